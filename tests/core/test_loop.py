# SPDX-License-Identifier: Apache-2.0
"""The host loop: chunks without seams, stops that lose nothing, runs that survive a kill."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core import checkpoint, checks, loop, metrics
from jaxsafe.core.checks import UserError
from jaxsafe.core.run import Folder
from tests.core import toy
from tests.core.test_checkpoint import assert_same


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def train(program, folder):
    return loop.train(program, folder, loop.Stop())


def rows(folder):
    return list(metrics.read(folder.metrics))


def test_chunks_join_without_a_seam(folder, tmp_path):
    """Chunks of 5, of 7 (the last one shorter) and one of 20 reach the same bits."""
    whole = train(toy.program(log_every=100), Folder(tmp_path / "whole"))
    for log_every in (5, 7):
        parts = train(toy.program(log_every=log_every), Folder(tmp_path / str(log_every)))
        assert_same(parts.state, whole.state)
    steps = [row["step"] for row in rows(Folder(tmp_path / "7")) if row["seed"] == 0]
    assert steps == [7, 14, 20]
    assert whole.steps == 20 and whole.state.steps.tolist() == [20, 20]


def test_a_chunk_takes_the_memory_of_its_state(folder):
    program = toy.program()
    state = program.init(program.keys())
    after, _ = program.chunk(5)(state, jnp.int32(0))
    assert state.weights.is_deleted() and not after.weights.is_deleted()


def test_rows_say_stage_step_seed_and_units(folder):
    train(toy.program(seed=3), folder)
    found = rows(folder)
    assert [(row["step"], row["seed"]) for row in found] == [
        (step, seed) for step in (5, 10, 15, 20) for seed in (3, 4)
    ]
    assert {row["stage"] for row in found} == {"line"}
    assert all(row["samples"] == 16 * row["step"] and row["n"] == row["step"] for row in found)


def test_timing_counts_this_run_alone(folder):
    trained = train(toy.program(), folder)
    timing = trained.timing()
    assert timing["steps"] == 20 and timing["unit"] == "samples/s"
    assert trained.rate == pytest.approx(2 * 16 * 20 / trained.run_s)
    again = train(toy.program(), folder)
    assert again.rate == 0 and again.compile_s == 0 and len(rows(folder)) == 8


def test_the_bar_can_be_turned_off(folder, tmp_path, capfd):
    train(toy.program(progress=False), Folder(tmp_path / "off"))
    assert capfd.readouterr().err == ""
    train(toy.program(progress=True), Folder(tmp_path / "on"))
    assert "line: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("every", "saved"), [(0, [0, 20]), (5, [15, 20]), (7, [15, 20]), (12, [15, 20]), (50, [0, 20])]
)
def test_checkpoints_come_at_the_row_that_passes_their_step(folder, every, saved):
    train(toy.program(checkpoint_every=every), folder)
    assert checkpoint.steps(folder.checkpoints("line")) == saved


def test_rows_are_on_disk_before_their_checkpoint(folder, monkeypatch):
    """Else a kill between the two would leave a hole that no resume fills."""
    original, seen = checkpoint.save, []

    def save(where, step, state):
        seen.append((step, max((row["step"] for row in rows(folder)), default=0)))
        original(where, step, state)

    monkeypatch.setattr(checkpoint, "save", save)
    train(toy.program(checkpoint_every=5), folder)
    assert seen == [(step, step) for step in (0, 5, 10, 15, 20)]


def test_resume_drops_rows_past_the_checkpoint_and_writes_them_again(folder, tmp_path):
    unbroken = Folder(tmp_path / "unbroken")
    whole = train(toy.program(), unbroken)
    checkpoint_at = tmp_path / "at"
    short = toy.program(toy.Config(steps=10))
    train(short, Folder(checkpoint_at))
    # As if killed between the rows of step 15 and the next checkpoint, in the middle of a row.
    lines = unbroken.metrics.read_text().splitlines(keepends=True)
    (checkpoint_at / "metrics.jsonl").write_text("".join(lines[:7]) + lines[7][:11])
    trained = train(toy.program(), Folder(checkpoint_at))
    assert_same(trained.state, whole.state)
    assert (checkpoint_at / "metrics.jsonl").read_bytes() == unbroken.metrics.read_bytes()


def test_rows_stay_at_multiples_when_their_spacing_changes(folder):
    train(toy.program(toy.Config(steps=5)), folder)
    train(toy.program(log_every=7), folder)
    assert [row["step"] for row in rows(folder) if row["seed"] == 0] == [5, 7, 14, 20]


def test_rows_of_other_stages_stay_on_resume(folder):
    metrics.append(folder.metrics, [{"stage": "other", "step": 999, "seed": 0}])
    train(toy.program(), folder)
    assert rows(folder)[0] == {"stage": "other", "step": 999, "seed": 0} and len(rows(folder)) == 9


@pytest.mark.parametrize("checkpoint_every", [0, 5])
def test_a_nan_stops_and_the_last_good_state_is_kept(folder, tmp_path, checkpoint_every):
    good = train(toy.program(toy.Config(steps=10)), Folder(tmp_path / "good"))
    program = toy.program(toy.Config(nan_at=12), seed=3, checkpoint_every=checkpoint_every)
    with pytest.raises(loop.NonFiniteError) as caught:
        train(program, folder)
    where = folder.checkpoints("line")
    assert str(caught.value) == (
        f"line: loss/last of seed 3 is nan at step 15. The last good state, of step 10, is in "
        f"{where}. Start anew with lower learning rates, or --resume --check_nans=debug to find "
        "the operation."
    )
    assert checkpoint.steps(where)[-1] == 10
    restored = checkpoint.restore(where, 10, program.shapes())
    assert restored.steps.tolist() == [10, 10]
    # Seed 3 alone went wrong in neither run up to here, so the states are those of seeds 3 and 4.
    reference = train(toy.program(toy.Config(steps=10), seed=3), Folder(tmp_path / "reference"))
    assert_same(restored, reference.state)
    assert not np.array_equal(restored.weights, good.state.weights)
    assert [row["step"] for row in rows(folder)] == [5, 5, 10, 10]


def test_nan_checks_can_be_turned_off(folder):
    trained = train(toy.program(toy.Config(nan_at=12), check_nans="off"), folder)
    assert trained.steps == 20 and np.isnan(trained.state.weights).all()
    assert [row["loss/last"] for row in rows(folder)][-1] == "nan"
    with pytest.raises(UserError, match="not finite in opt_state"):
        loop.restore_last(toy.program(), folder)


def test_debugging_names_the_step_and_the_line(folder):
    program = toy.program(toy.Config(nan_at=12), check_nans="debug")
    with pytest.raises(loop.NonFiniteError) as caught:
        train(program, folder)
    source = (toy.ROOT / "tests/core/toy.py").read_text().splitlines()
    line = next(i for i, text in enumerate(source, 1) if "broken = jnp.log(" in text)
    assert f"Step 12: invalid value (nan) encountered in log at {toy.__file__}:{line}." in str(
        caught.value
    )


def test_a_stage_that_went_further_than_asked_is_refused(folder):
    train(toy.program(), folder)
    with pytest.raises(UserError, match=r"line has reached step 20 in .*, past the 10 asked for"):
        loop.check_length(toy.program(toy.Config(steps=10)), folder)
    loop.check_length(toy.program(toy.Config(steps=20)), folder)


def test_a_state_too_large_is_refused_with_its_size(monkeypatch):
    program = toy.program()
    assert program.state_bytes() == 2 * (3 * 3 * 4 + 4 + 4 + 1 + 8)
    monkeypatch.setattr(checks, "host_memory_bytes", lambda: 100)
    with pytest.raises(
        UserError, match=r"state of line over 2 seeds needs .* GiB; .* Lower .*--num_seeds\."
    ):
        program.check_memory()


def test_a_huge_run_is_refused_before_anything_is_touched(tmp_path):
    out = tmp_path / "run"
    assert toy.here(f"--out={out}") == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    with pytest.raises(UserError, match=r"needs 6\.71e\+03 GiB"):
        toy.here(f"--out={out}", "--overwrite", "--width=300000000000", "--num_seeds=2")
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_the_first_signal_asks_and_the_second_acts():
    calls = []
    old = signal.signal(signal.SIGTERM, lambda *_: calls.append("old"))
    try:
        with loop.catch_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.agreed() == signal.SIGTERM and not calls
            os.kill(os.getpid(), signal.SIGTERM)
            assert calls == ["old"]
        os.kill(os.getpid(), signal.SIGTERM)
        assert calls == ["old", "old"]
    finally:
        signal.signal(signal.SIGTERM, old)


@pytest.mark.parametrize(("steps", "at"), [(20, 5), (5, 5)])
def test_a_signal_stops_at_the_next_row_with_its_state(folder, steps, at):
    """Also at the very last row, ahead of the scoring."""
    with loop.catch_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(loop.StoppedError) as caught:
            loop.train(toy.program(toy.Config(steps=steps)), folder, stop)
    assert str(caught.value) == f"SIGINT: stopped line at step {at}; --resume goes on from there."
    assert caught.value.signum == signal.SIGINT
    assert checkpoint.steps(folder.checkpoints("line"))[-1] == at


def test_many_seeds_count_up_from_the_first():
    keys = toy.program(seed=4_000_000_000, num_seeds=3).keys()
    assert jax.random.key_data(keys)[:, 1].tolist() == [4_000_000_000 + i for i in range(3)]
