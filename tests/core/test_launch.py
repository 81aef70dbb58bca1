# SPDX-License-Identifier: Apache-2.0
"""A binary as its user meets it: modes, refusals, what is written and what is not."""

import json
import logging
import re
import types

import jax
import jax.numpy as jnp
import pytest

from jaxsafe.core import checkpoint, launch, metrics, parallel
from jaxsafe.core.checks import UserError
from tests.core import toy
from tests.core.test_run import make_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run; tests only read it, or copy it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert toy.here(f"--out={out}", "--stages=line,other", "--steps=10") == 0
    return out


def snapshot(path):
    return {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in path.rglob("*")}


BAD_INPUT = [
    (["--stepz=3"], "Unknown flag --stepz. Did you mean --steps?"),
    (["--preset=dmeo"], "'dmeo' is unknown. Did you mean 'demo'?"),
    (["--steps=0"], "--steps=0 is out of range: give a value in [1, inf]."),
    (["--lr=fast"], "--lr=fast has the wrong type: give a float >= 0."),
    (["--stages=line,line"], "stages=line,line repeats one: name each once."),
    (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
    (["--devices=3"], "--devices=3 does not fit --num_seeds=2 on"),
    (["--distributed", "--process_id=0"], "needs --coordinator, --num_processes and --process_id"),
    (["--resume", "--seed=9"], "--seed=9 differs from the run in"),
    (["--num_seeds=900000000000"], "Lower the replay capacity or --num_seeds."),
    ([], "is not empty: add --resume to go on with that run, --overwrite to start it anew"),
]


@pytest.mark.parametrize(("arguments", "text"), BAD_INPUT)
def test_bad_input_is_exit_code_2_and_touches_nothing(finished, arguments, text, capsys):
    """`test_flags` covers how errors become one line on stderr; here, that they come in time."""
    before = snapshot(finished)
    try:
        code, message = toy.here(*arguments, f"--out={finished}"), ""
    except UserError as error:
        code, message = 2, str(error)
    except SystemExit as stop:
        code, message = stop.code, capsys.readouterr().err
    assert code == 2 and text in message and message.strip().count("\n") == 0
    assert snapshot(finished) == before


def test_a_user_error_in_the_run_is_one_line_of_a_program(finished):
    done = toy.apart(f"--out={finished}")
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"error: --out=.* is not empty: .*\n", done.stderr)


def test_tensorboard_that_is_absent_is_told_before_the_old_run_is_gone(finished, monkeypatch):
    def absent():
        raise UserError("absent")

    monkeypatch.setattr(metrics, "summary_writer", absent)
    before = snapshot(finished)
    with pytest.raises(UserError, match="absent"):
        toy.here("--overwrite", "--tensorboard", f"--out={finished}")
    assert snapshot(finished) == before


def test_tensorboard_is_written_beside_the_rows(tmp_path):
    pytest.importorskip("tensorboardX")
    assert toy.here("--tensorboard", "--steps=5", f"--out={tmp_path}/run") == 0
    found = sorted(p.name for p in (tmp_path / "run/tensorboard/line").iterdir())
    assert found == ["seed0", "seed1"]


def test_a_dry_run_tells_sizes_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert toy.here("--dry_run", "--width=1000", "--stages=line,other", "--lr=0.07") == 0
    text = capsys.readouterr().out
    config = json.loads(text[: text.index("\n}") + 2])
    assert config["lr"] == 0.07 and config["width"] == 1000
    header, *lines = text[text.index("\n}") + 3 :].splitlines()
    assert header.startswith("toy: seeds 0 to 1 on ")
    names, *table = (line.split() for line in lines[:-1])
    assert names == [
        *("stage", "steps", "parameters", "state_mib", "temporary_mib", "compile_s"),
    ]
    assert [row[:4] for row in table] == [[s, "20", "1000", "0"] for s in ("line", "other")]
    assert all(float(row[5]) > 0 for row in table)
    assert lines[-1] == "dry run: nothing was trained and nothing written"
    assert not any(tmp_path.iterdir())


def test_a_dry_run_of_a_run_folder_leaves_it_alone(finished):
    before = snapshot(finished)
    assert toy.here("--dry_run", "--overwrite", f"--out={finished}") == 0
    assert snapshot(finished) == before


def test_eval_scores_again_and_changes_no_training(tmp_path, finished, capsys):
    before = snapshot(finished)
    rows = (finished / "eval.jsonl").read_bytes()
    (finished / "eval.jsonl").unlink()
    assert toy.here("--mode=eval", f"--out={finished}") == 0
    text = capsys.readouterr().out
    assert "line: step 10 of 10\nother: step 10 of 10\nfinished\n" in text
    assert (finished / "eval.jsonl").read_bytes() == rows
    after = snapshot(finished)
    changed = {p.name for p in after if after[p] != before.get(p)}
    assert changed == {"eval.jsonl", "log.txt"} and set(after) == set(before)


def test_render_draws_and_scores_nothing(finished, capsys):
    rows = (finished / "eval.jsonl").stat().st_mtime_ns
    assert toy.here("--mode=render", f"--out={finished}") == 0
    assert capsys.readouterr().out.endswith("rendered\n")
    assert (finished / "plots/toy.txt").read_text() == "['line', 'other']\n"
    assert (finished / "eval.jsonl").stat().st_mtime_ns == rows


def test_eval_of_a_run_that_lacks_a_stage_says_what_to_do(tmp_path):
    config = toy.Config(stages=("line", "other"))
    out = make_run(tmp_path / "run", config)
    program = toy.program(config)
    state = program.init(program.keys())
    checkpoint.save(out / "checkpoints" / "line", 5, state)
    with pytest.raises(UserError, match="no checkpoint of other: finish the run with --resume"):
        toy.here("--mode=eval", f"--out={out}")


@pytest.mark.parametrize("mode", ["--mode=eval", "--resume"])
def test_a_nan_in_a_checkpoint_is_named(tmp_path, mode):
    out, program = make_run(tmp_path / "run"), toy.program()
    state = program.init(program.keys())
    broken = state.replace(weights=state.weights.at[1, 2].set(jnp.nan))
    checkpoint.save(out / "checkpoints" / "line", 5, broken)
    with pytest.raises(UserError, match=r"line/5 holds a value that is not finite in weights"):
        toy.here(mode, f"--out={out}")


def test_the_default_folder_is_named_after_system_and_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert toy.here("--preset=paper", "--steps=5") == 0
    assert (tmp_path / "runs/toy-paper/summary.json").exists()


def test_one_state_at_a_time(tmp_path, monkeypatch):
    """A finished stage's replay must not stay while the next one trains."""
    alive = []
    original = launch.loop.train

    def watched(program, folder, stop):
        alive.append(sum(x.size for x in jax.live_arrays() if x.size >= 10_000))
        return original(program, folder, stop)

    monkeypatch.setattr(launch.loop, "train", watched)
    arguments = ["--stages=line,other,third", "--width=9999", "--num_seeds=2", "--steps=5"]
    assert toy.here(*arguments, f"--out={tmp_path}/run") == 0
    assert len(set(alive)) == 1


def test_the_compilation_cache_is_the_users_unless_given(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for given, expected in (("/given", None), (None, f"{tmp_path}/jaxsafe/xla")):
        changes = {}
        values = {"jax_compilation_cache_dir": given}
        fake = types.SimpleNamespace(values=values, update=changes.__setitem__)
        monkeypatch.setattr(launch.jax, "config", fake)
        launch.enable_compilation_cache()
        assert changes.get("jax_compilation_cache_dir") == expected


def test_seeds_spread_over_cores_unless_told_otherwise(monkeypatch):
    """What `_set_up` asks of the CPU backend, which can be asked only once a process."""
    asked = []
    monkeypatch.setattr(parallel, "split_host_cpu", asked.append)
    monkeypatch.setattr(parallel, "available_cores", lambda: 4)
    monkeypatch.setattr(parallel, "initialize_distributed", lambda *_: None)
    monkeypatch.setattr(parallel, "choose_num_devices", lambda seeds, requested: (seeds, requested))

    def set_up(**options):
        return launch._set_up(toy.RunOptions(**options)).devices

    assert set_up(num_seeds=8) == (8, 0) and asked == [4]
    assert set_up(num_seeds=2) == (2, 0) and asked[1:] == [2]
    assert set_up(num_seeds=8, devices=8) == (8, 8) and asked[2:] == [8]
    # Scoring takes what there is, however many devices trained.
    assert set_up(num_seeds=8, devices=8, mode="eval") == (8, 0)
    whole = {"distributed": True, "num_seeds": 8, "devices": 8}
    assert set_up(**whole, num_processes=2) == (8, 8) and asked[4:] == [4]
    assert set_up(**whole) == (8, 8) and asked[5:] == [1]


def test_the_log_level_of_jax_is_that_of_warnings():
    launch._set_up(toy.RunOptions())
    assert logging.getLogger("jax").level == logging.WARNING
