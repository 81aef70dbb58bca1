# SPDX-License-Identifier: Apache-2.0
"""Sweeps: the points of a grid, what is refused, and how processes end, fail and are stopped."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from absl import flags

from jaxsafe.core import flags as flags_lib
from jaxsafe.core import launch, sweep, sweep_folder, sweep_jobs
from jaxsafe.core.checks import UserError
from tests.core import toy

GRID = ("lr=.05,0.1", "steps=10,2e1,30")


def make(out, *given, arguments=(), module="tests.core.toy"):
    values = launch.define_flags(toy.BINARY, flags.FlagValues())
    flags_lib.parse_command_line(["sweep", *arguments], values)
    return sweep.make(toy.BINARY, module, values, given, out)


def stand_in(out, *rates):
    """A sweep over processes of no length."""
    found = make(out, f"lr={','.join(rates)}", module="tests.core.point")
    sweep_folder.open_folder(found, found.points, resume=True, dry_run=False)
    return found


def test_a_grid_is_all_combinations_the_last_field_fastest(tmp_path):
    found = make(tmp_path, *GRID, arguments=["--preset=paper", "--width=2", "--num_seeds=2"])
    assert [p.name for p in found.points] == [
        f"lr={lr},steps={steps}" for lr in ("0.05", "0.1") for steps in (10, 20, 30)
    ]
    # What equals a default is not said twice.
    assert found.flags == ("--preset=paper", "--width=2")
    assert found.points[1].arguments == ("--lr=0.05", "--steps=20")
    assert found.command_text(found.points[1]) == (
        "python -m tests.core.toy --preset=paper --width=2 --lr=0.05 --steps=20 "
        f"--out={tmp_path}/lr=0.05,steps=20 --noprogress"
    )


def test_fields_of_several_values_and_run_flags_are_swept_too(tmp_path):
    found = make(tmp_path, "stages=line;line,other", "seed=1,2")
    assert [p.arguments[0] for p in found.points[::2]] == ["--stages=line", "--stages=line,other"]
    assert found.points[3].name == "stages=line,other,seed=2"


def test_hosts_share_the_points(tmp_path):
    found = make(tmp_path, *GRID)
    shares = [found.share(i, 4) for i in range(4)]
    assert [len(s) for s in shares] == [2, 2, 1, 1]
    assert {p.name for s in shares for p in s} == {p.name for p in found.points}
    assert found.share(0, 1) == found.points


def test_names_are_short_safe_and_tell_points_apart():
    name = sweep.point_name
    assert name({"algo.gamma": "0.9", "algo.tau": "1"}) == "gamma=0.9,tau=1"
    assert name({"sft.lr": "1", "safe.lr": "2"}) == "sft.lr=1,safe.lr=2"
    assert name({"a.folder": "../x"}) == "folder=..%2Fx"
    long = [name({"a": "x" * 300 + end}) for end in "yz"]
    assert long[0] != long[1] and all(len(n) < 200 for n in long)


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        ((), (), "--grid is missing: give --grid=FIELD=VALUE,VALUE"),
        (("lr",), (), "--grid=lr is no list: write"),
        (("lr=",), (), "--grid=lr= is no list: write"),
        (("stepz=1",), (), r"no flag is called 'stepz'\. Did you mean 'steps'\?"),
        (("lr=1,fast",), (), "--grid=lr=fast has the wrong type: give a float >= 0"),
        (("lr=1,-1",), (), r"--grid=lr=-1.0 is out of range: give a value in \[0, inf\]"),
        (("lr=.1,0.10",), (), "--grid=lr='0.1,0.1' is empty or repeats one"),
        (("lr=1", "lr=2"), (), "lr has a --grid already"),
        (("out=a,b",), (), "out cannot differ between points"),
        (("lr=1",), ("--lr=2",), "--lr is in --grid as well"),
        (("lr=1",), ("--overwrite",), "--overwrite does not fit a sweep"),
        (("lr=1",), ("--mode=eval",), "--mode does not fit a sweep"),
        (("stages=line;line,line",), (), "point stages=line,line: stages=line,line repeats one"),
    ],
)
def test_bad_grids_are_told_before_anything_runs(tmp_path, given, arguments, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path / "s", *given, arguments=arguments)
    assert not (tmp_path / "s").exists()


def test_only_the_same_sweep_goes_on(tmp_path):
    out = tmp_path / "s"

    def enter(found, resume=False):
        sweep_folder.open_folder(found, found.points, resume, dry_run=False)

    enter(make(out, *GRID))
    record = (out / "sweep.json").read_bytes()
    enter(make(out, "lr=.05,.1", "steps=10,20,30"))  # nothing has begun
    with pytest.raises(UserError, match=r"with other grid \(lr=0.05,0.1 steps=10,20,30, now lr=1"):
        enter(make(out, "lr=1"), resume=True)
    with pytest.raises(UserError, match=r"with other flags \(none, now --width=2\)"):
        enter(make(out, *GRID, arguments=["--width=2"]), resume=True)
    (out / "lr=0.1,steps=10").mkdir()
    (out / "lr=0.1,steps=10" / "config.json").touch()
    with pytest.raises(UserError, match="has 1 of 6 points already: add --resume"):
        enter(make(out, *GRID))
    enter(make(out, *GRID), resume=True)
    assert (out / "sweep.json").read_bytes() == record
    (out / "sweep.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        enter(make(out, *GRID), resume=True)
    (out / "sweep.json").unlink()
    with pytest.raises(UserError, match="is no sweep"):
        enter(make(out, *GRID), resume=True)


def test_a_failing_point_is_told_and_the_others_go_on(tmp_path, capfd):
    found = stand_in(tmp_path / "s", "1.0", "0.5", "0.25")
    assert sweep_jobs.run_points(found, found.points, jobs=2) == 1
    out, err = capfd.readouterr()
    assert err == "lr=1.0: failed (exit code 3): error: it broke\n"
    assert [p.state() for p in found.points] == ["begun", "finished", "finished"]
    assert sweep_jobs.table(found.points).splitlines()[1:3] == [
        "lr=1.0   begun",
        "lr=0.5   finished  a       1.5 [1, 2]",
    ]
    # The failed one is tried again, the finished ones are left alone.
    before = [p.path.stat().st_mtime_ns for p in found.points[1:]]
    assert sweep_jobs.run_points(found, found.points, jobs=1) == 1
    assert [p.path.stat().st_mtime_ns for p in found.points[1:]] == before
    out, _ = capfd.readouterr()
    assert "lr=0.5: finished before" in out and "lr=1.0: going on" in out


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_is_passed_on_and_waited_for(tmp_path):
    found = stand_in(tmp_path / "s", "2.0", "0.5")
    text = (
        "import pathlib\nfrom tests.core import test_sweep\nfrom jaxsafe.core import sweep_jobs\n"
        f"found = test_sweep.stand_in(pathlib.Path({str(tmp_path / 's')!r}), '2.0', '0.5')\n"
        "raise SystemExit(sweep_jobs.run_points(found, found.points, jobs=1))\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", text], cwd=toy.ROOT, **pipes)
    wait_for(found.points[0].path / "waits", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and err == ""
    assert "lr=2.0: stopped\nstopped; 1 points did not begin" in out
    assert [p.state() for p in found.points] == ["begun", "new"]
    assert sweep_jobs.run_points(found, found.points, jobs=2) == 0
    arguments = json.loads((found.points[0].path / "config.json").read_text())
    assert arguments[-1] == "--resume"


def command(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "experiments.sweep", *arguments],
        cwd=toy.ROOT,
        env=os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=240,
        **kwargs,
    )


def test_the_binary_runs_real_points_and_goes_on(tmp_path):
    """The toy: a point that meets a NaN, one that finishes; then the same command once more."""
    out = tmp_path / "s"
    arguments = [
        *("--binary=tests.core.toy", "--devices=1", "--steps=10", f"--out={out}"),
        *("--grid=nan_at=3,-1", "--jobs=2"),
    ]
    listed = command(*arguments, "--dry_run")
    assert listed.returncode == 0 and not out.exists()
    lines = listed.stdout.splitlines()
    assert [line.split()[5] for line in lines] == ["--nan_at=3", "--nan_at=-1"]
    first = command(*arguments)
    assert first.returncode == 1
    assert "nan_at=3: failed (exit code 1): error: line: loss/" in first.stderr
    assert "finished  line    0." in first.stdout
    summary = out / "nan_at=-1" / "summary.json"
    before = summary.stat().st_mtime_ns
    assert toy.here("--steps=10", f"--out={tmp_path / 'alone'}") == 0
    for name in ("metrics.jsonl", "eval.jsonl"):
        assert (summary.parent / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    # All that is needed is in the record.
    again = command("--resume", f"--out={out}")
    assert again.returncode == 1 and "nan_at=-1: finished before" in again.stdout
    assert summary.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (),
            "error: --binary is missing: name one of advantage_nas, image_to_semantics, m2td3, "
            "pls, sacpo, tsdi.",
        ),
        (("--binary=m2dt3",), "error: --binary='m2dt3' is unknown. Did you mean 'm2td3'?"),
        (("--binary=json.tool",), "error: --binary=json.tool is no module with a BINARY"),
        (("--binary=tests.core.toy", "--grid=lr=1"), "error: --out is missing"),
        (("--jobs=0",), "--jobs=0 is out of range"),
        (("--binary=tests.core.toy", "--lrr=1"), "Unknown flag --lrr. Did you mean --lr?"),
        (
            ("--binary=tests.core.toy", "--grid=lr=1", "--out=x", "--host_index=2"),
            "error: --host_index=2 is out of range: give one below --num_hosts=1",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys):
    from experiments import sweep as program

    with pytest.raises(SystemExit) as stop:
        program.main(["sweep", *arguments], flags.FlagValues())
    text = capsys.readouterr().err
    assert stop.value.code == 2 and text.count("\n") == 1 and message in text


def test_no_flag_of_a_binary_is_called_as_one_of_the_sweep():
    from experiments import sweep as program

    own = {f.name for f in dataclasses.fields(sweep.SweepOptions)} | {"grid"}
    assert len(program._names()) > 5
    for name in program._names():
        binary = program._load(name)[1]
        assert not own & set(launch.define_flags(binary, flags.FlagValues())), name
