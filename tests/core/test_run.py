# SPDX-License-Identifier: Apache-2.0
"""Run folders: what is refused, what is removed, what is remembered."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import sys

import pytest

from jaxsafe.core import provenance, run
from jaxsafe.core.checks import UserError
from jaxsafe.core.flags import RunOptions
from tests.core import toy

OWN = ["checkpoints", "config.json", "eval.jsonl", "log.txt", "metrics.jsonl"]
OWN += ["summary.json", "timing.json"]


def resolve(*arguments):
    return run.resolve(toy.parsed(*arguments), "toy", toy.PRESETS, toy.BINARY.free)


def make_run(path, config=None, **options):
    """A run folder as far as its record goes."""
    path.mkdir(parents=True, exist_ok=True)
    options = dataclasses.replace(toy.BINARY.options, out=str(path), devices=1, **options)
    run.write_record(run.Folder(path), "toy", options, config or toy.Config(), "python -m toy")
    return path


def contents(path):
    return {p: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    out = make_run(tmp_path / "run")
    before = contents(out)
    with pytest.raises(UserError, match=r"not empty: add --resume .* --overwrite .* another folde"):
        run.open_folder(str(out), RunOptions())
    assert contents(out) == before


def test_new_folders_are_made_with_their_parents(tmp_path):
    folder = run.open_folder(str(tmp_path / "a" / "b"), RunOptions())
    assert folder.path.is_dir() and not any(folder.path.iterdir())
    # A run killed before it wrote anything leaves nothing in the way of the next.
    run.open_folder(str(tmp_path / "a" / "b"), RunOptions())


def test_overwrite_removes_what_is_its_own_and_nothing_else(tmp_path):
    out = make_run(tmp_path / "run")
    for name in (*OWN[2:], "step_times.json", "notes.md"):
        (out / name).write_text("x")
    for name in ("checkpoints/line/5", "models/a", "plots", "tensorboard", "mine"):
        (out / name).mkdir(parents=True)
        (out / name / "file").write_text("x")
    run.open_folder(str(out), RunOptions(overwrite=True))
    assert sorted(p.relative_to(out).as_posix() for p in contents(out)) == ["mine/file", "notes.md"]


def test_overwrite_unlinks_a_linked_folder_and_keeps_what_it_points_to(tmp_path):
    """Checkpoints that stayed would be gone on from, as if they were the new run's."""
    out, other = make_run(tmp_path / "run"), tmp_path / "big disk"
    (other / "line" / "5").mkdir(parents=True)
    (out / "checkpoints").symlink_to(other)
    run.open_folder(str(out), RunOptions(overwrite=True))
    assert not (out / "checkpoints").exists() and (other / "line" / "5").is_dir()


def test_overwrite_that_cannot_remove_says_so(tmp_path, monkeypatch):
    out = make_run(tmp_path / "run")
    (out / "checkpoints").mkdir()

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(run.shutil, "rmtree", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\)"):
        run.open_folder(str(out), RunOptions(overwrite=True))
    assert (out / "config.json").exists()  # so that it can be tried again


def test_overwrite_leaves_a_folder_that_is_no_run_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"no run folder \(no config\.json\), so --overwrite leave"):
        run.open_folder(str(tmp_path), RunOptions(overwrite=True))
    assert (tmp_path / "checkpoints").exists()


def test_out_that_is_a_file_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    for options in (RunOptions(), RunOptions(overwrite=True), RunOptions(resume=True)):
        with pytest.raises(UserError, match="is a file: choose a folder"):
            run.open_folder(str(file), options)
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        run.open_folder(str(file / "below"), RunOptions())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_parent_that_is_read_only_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\)"):
        run.open_folder(str(tmp_path / "run"), RunOptions())


RECORD = {"schema": 1, "system": "toy", "options": {}, "config": {}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"schema": 1, "sys', "Unterminated string"),
        ("[1]", "it holds no record"),
        (json.dumps(RECORD | {"schema": 7}), "schema 7, this version reads 1"),
        (json.dumps({k: v for k, v in RECORD.items() if k != "system"}), "it lacks 'system'"),
        (json.dumps({k: v for k, v in RECORD.items() if k != "config"}), "it lacks 'config'"),
        (json.dumps(RECORD), "options.preset is missing"),
        (json.dumps(RECORD | {"options": 3}), "options=3 has the wrong type"),
        (b"\xff\xfe", "can't decode"),
    ],
)
def test_a_damaged_record_is_one_line(tmp_path, text, reason):
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        resolve("--resume", f"--out={tmp_path}")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/config.json is damaged (") and reason in message
    assert message.endswith("restore it or start anew with --overwrite.") and "\n" not in message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lr": "fast"}, r"lr='fast' has the wrong type"),
        ({"steps": 0}, r"steps=0 is out of range"),
        ({"gone": 1}, r"gone is not a field of Config"),
    ],
)
def test_a_record_with_a_bad_field_names_file_and_field(tmp_path, change, reason):
    file = make_run(tmp_path) / "config.json"
    record = json.loads(file.read_text())
    record["config"] |= change
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=rf"^{file} is damaged \({reason}.*\): restore it"):
        resolve("--resume", f"--out={tmp_path}")


def test_resume_needs_a_run_folder(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder \(no config\.json\): check the path"):
        resolve("--resume", f"--out={tmp_path}/typo")
    with pytest.raises(UserError, match="need --out=FOLDER"):
        resolve("--resume")
    with pytest.raises(UserError, match="need --out=FOLDER"):
        resolve("--mode=render")


@pytest.mark.parametrize("mode", ["--resume", "--mode=eval"])
@pytest.mark.parametrize(
    ("flag", "was"),
    [
        ("--lr=0.5", "0.05"),
        ("--stages=line,other", "line"),
        ("--seed=4", "0"),
        ("--num_seeds=3", "2"),
        ("--devices=2", "1"),
        ("--preset=paper", "demo"),
    ],
)
def test_another_run_is_refused_with_both_values_and_a_fix(tmp_path, mode, flag, was):
    make_run(tmp_path)
    with pytest.raises(UserError) as caught:
        resolve(mode, f"--out={tmp_path}", flag)
    assert str(caught.value) == (
        f"{flag} differs from the run in {tmp_path}, which has {was}: drop the flag, or choose "
        "another --out."
    )


def test_another_system_is_refused(tmp_path):
    file = make_run(tmp_path) / "config.json"
    file.write_text(file.read_text().replace('"toy"', '"pls"'))
    with pytest.raises(UserError, match="is a run of pls, not of toy: choose another"):
        resolve("--resume", f"--out={tmp_path}")


def test_default_preset_resumed_config_and_flag_in_that_order(tmp_path):
    assert resolve()[1] == toy.Config()
    assert resolve("--preset=paper")[1].lr == 0.1
    assert resolve("--preset=paper", "--lr=0.2")[1].lr == 0.2
    make_run(tmp_path, toy.Config(lr=0.3, steps=7, points=9), seed=5)
    options, config = resolve("--resume", f"--out={tmp_path}", "--steps=8")
    assert (config.lr, config.steps, config.points, options.seed) == (0.3, 8, 9, 5)
    assert (options.num_seeds, options.log_every) == (2, 5)  # the binary's own defaults


def test_what_changes_no_number_may_change(tmp_path):
    make_run(tmp_path)
    free = ["--log_every=7", "--checkpoint_every=3", "--tensorboard", "--check_nans=off"]
    options, config = resolve("--resume", f"--out={tmp_path}", *free, "--steps=99", "--points=2")
    assert (options.log_every, options.checkpoint_every) == (7, 3) and options.tensorboard
    assert (config.steps, config.points) == (99, 2)


def test_a_resumed_run_does_not_inherit_how_it_was_started(tmp_path):
    """Else scoring a run of two processes would wait for the second one forever."""
    make_run(
        tmp_path,
        distributed=True,
        coordinator="host:1",
        num_processes=2,
        process_id=0,
        overwrite=True,
        check_nans="off",
    )
    options, _ = resolve("--mode=eval", f"--out={tmp_path}")
    assert not (options.distributed or options.overwrite or options.resume or options.dry_run)
    assert (options.coordinator, options.num_processes, options.process_id) == (None, None, None)
    assert options.check_nans == "off" and options.mode == "eval"


def test_summary_and_record_have_the_promised_keys(tmp_path):
    assert toy.here(f"--out={tmp_path}/run", "--stages=line,other") == 0
    out = tmp_path / "run"
    assert sorted(p.name for p in out.iterdir()) == OWN
    summary = json.loads((out / "summary.json").read_text())
    common = {"schema", "system", "command", "versions", "device", "git", "date"}
    assert set(summary) == common | {"status", "stages", "results"}
    assert (summary["schema"], summary["system"], summary["status"]) == (1, "toy", "complete")
    assert list(summary["stages"]) == ["line", "other"]
    entry = summary["stages"]["line"]
    assert set(entry) == {"steps", "compile_s", "run_s", "rate", "unit"}
    assert entry["steps"] == 20 and entry["unit"] == "samples/s" and entry["compile_s"] > 0
    assert [row["method"] for row in summary["results"]] == ["line", "other"]
    record = json.loads((out / "config.json").read_text())
    assert set(record) == common | {"hash", "options", "config"}
    assert {"python", "jax", "jaxlib", "numpy"} <= set(record["versions"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    lines = (out / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert lines[-1].endswith(" finished")


def test_the_recorded_command_gives_the_same_rows(tmp_path):
    """Also where part of the command stood in a file, and the run was resumed since."""
    flagfile = tmp_path / "flags"
    flagfile.write_text("--lr=0.07\n--seed=3\n")
    done = toy.apart(f"--flagfile={flagfile}", f"--out={tmp_path}/one", "--steps=12")
    assert done.returncode == 0, done.stderr
    one = tmp_path / "one"
    for name in ("again", "once more"):
        command = shlex.split(json.loads((one / "config.json").read_text())["command"])
        assert command[:3] == ["python", "-m", "tests.core.toy"]
        assert not any("resume" in x or "flagfile" in x for x in command)
        assert toy.here(*command[3:], f"--out={tmp_path / name}") == 0
        for rows in ("metrics.jsonl", "eval.jsonl"):
            assert (tmp_path / name / rows).read_bytes() == (one / rows).read_bytes()
        if name == "again":
            assert toy.apart("--resume", f"--out={one}").returncode == 0


def test_command_line_quotes_what_a_shell_would_split(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog.py", "--out=my runs/a"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    assert shlex.split(provenance.command_line()) == ["python", "prog.py", "--out=my runs/a"]


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    run.write_json(path, {"a": 1})

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_the_commit_is_that_of_this_tree():
    commit = provenance.git_commit()
    if not (pathlib.Path(toy.ROOT) / ".git").exists():
        pytest.skip("no git repository here")
    assert commit is None or re.fullmatch(r"[0-9a-f]{12}\+?", commit)
