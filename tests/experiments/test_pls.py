# SPDX-License-Identifier: Apache-2.0
"""The PLS binary from end to end: a small world, and a small count."""

import json
import random
import shutil

import numpy as np
import pytest

from experiments import pls

from . import binaries
from .binaries import assert_same_rows, json_rows, snapshot

MODULE = "experiments.pls"
RUN = ("--seed=0", "--num_seeds=2", "--devices=1", "--noprogress")
SMALL = [
    *("--worlds=Circle-v0", "--data.trajectories=60", "--policy.steps=300", "--policy.hidden=16"),
    *("--policy.batch_size=32", "--policy.learning_rate=3e-3"),
    *("--targets.side=5", "--targets.cost_side=5", "--targets.seed_episodes=400"),
    *("--search.explore_steps=2", "--search.reward_steps=2", "--search.episodes=4"),
    *("--operation.thresholds=30,40", "--operation.repeats=2", "--operation.oracle_episodes=8"),
    "--operation.oracle_more=20",
    *("--operation.draws=60", "--log_every=25", "--checkpoint_every=25", *RUN),
]
COUNT = [
    *("--preset=guarantee", "--promises=matched", "--deltas=0.2", "--search.delta=0.2", "--side=8"),
    *("--search.explore_steps=2", "--search.reward_steps=2", "--counting.functions=40"),
    *("--counting.draws=40", "--counting.halvings=2", "--counting.block=10"),
    *("--log_every=20", "--checkpoint_every=20", *RUN),
]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The small run, never stopped; tests that change it take a copy."""
    return binaries.unbroken(tmp_path_factory, "pls", MODULE, SMALL)


def test_a_run_in_a_world_leaves_what_the_readme_promises(finished):
    assert {p.name for p in finished.iterdir()} == {
        *("config.json", "metrics.jsonl", "eval.jsonl", "timing.json", "log.txt"),
        *("summary.json", "checkpoints", "plots"),
    }
    rows = json_rows(finished / "metrics.jsonl")
    assert [(r["step"], r["seed"]) for r in rows] == [
        (step, seed) for step in range(25, 301, 25) for seed in (0, 1)
    ]
    assert rows[-1]["windows"] == 300 * 32 and rows[-1]["policy/loss"] < rows[0]["policy/loss"]
    for name in ("maps_Circle-v0.png", "costs_Circle-v0.png"):
        assert (finished / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_the_summary_is_what_the_searches_did(finished):
    summary = json.loads((finished / "summary.json").read_text())["results"]
    searches = json_rows(finished / "eval.jsonl")
    methods = pls.BINARY.presets["demo"].operation.methods
    assert [(r["threshold"], r["method"]) for r in summary] == [
        (b, m) for b in (30.0, 40.0) for m in methods
    ]
    for row in summary:
        mine = [
            s
            for s in searches
            if (s["threshold"], s["method"]) == (row["threshold"], row["method"])
        ]
        assert len(mine) == row["searches"] == (2 if row["method"] == "naive" else 4)
        broken = [s["unsafe_evaluations"] > 0 or s["cost"] > row["threshold"] for s in mine]
        assert row["violations"] == sum(broken) == sum(row["violations_per_seed"])
        assert row["cost"] == pytest.approx(np.mean([s["cost"] for s in mine]))
        assert row["evaluations"] == (1 if row["method"] == "naive" else 4)
        assert 0 <= row["low"] <= row["frequency"] <= row["high"] <= 1
        assert (row["alpha"] is None) == (row["method"] in ("naive", "unsafe_search"))


def test_eval_searches_again_and_render_films_it(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    before = snapshot(out / "checkpoints")
    methods = ("naive", "pls")
    changed = f"--operation.methods={','.join(methods)}"
    other = binaries.run(MODULE, "--mode=eval", f"--out={out}", changed, "--noprogress")
    assert other.returncode == 0, other.stderr
    before_rows = json_rows(finished / "eval.jsonl")
    assert json_rows(out / "eval.jsonl") == [r for r in before_rows if r["method"] in methods]
    film = binaries.run(MODULE, "--mode=render", f"--out={out}", "--noprogress")
    assert film.returncode == 0, film.stderr
    assert (out / "plots/search_Circle-v0.gif").read_bytes().startswith(b"GIF89a")
    assert snapshot(out / "checkpoints") == before


@pytest.mark.slow
def test_a_count_is_whole_after_a_kill(tmp_path):
    done = binaries.run(MODULE, *COUNT, f"--out={tmp_path / 'whole'}")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "whole" / "summary.json").read_text())["results"]
    assert [r["case"] for r in results] == ["srinivas, delta 0.2", "calibrated, delta 0.2"]
    for row in results:
        assert row["n"] == sum(row["n_per_seed"]) <= 80
        assert row["violations"] == sum(row["violations_per_seed"])
    srinivas, calibrated = (row["alpha_per_seed"] for row in results)
    assert np.ptp(srinivas) == 0 and max(calibrated) < srinivas[0] / 2
    for name in ("promise", "regret", "coverage"):
        assert (tmp_path / f"whole/plots/{name}.png").exists()
    binaries.kill_and_resume(MODULE, COUNT, tmp_path / "cut", [(3, 9)], random.Random(5))
    assert_same_rows(tmp_path / "cut", tmp_path / "whole")


BAD_INPUT = [
    (["--worlds=Cirle-v0"], r"'Cirle-v0' is unknown\. Did you mean 'Circle-v0'\?"),
    (["--worlds=Run-v0,Run-v0"], r"worlds='Run-v0,Run-v0' is empty or repeats one"),
    (["--operation.thresholds="], r"operation\.thresholds='' is empty"),
    (["--operation.thresholds=0,5"], r"operation\.thresholds holds 0: give costs above it"),
    (["--operation.methods=pls,plss"], r"'plss' is unknown\. Did you mean 'pls'\?"),
    (["--search.delta=2"], r"--search\.delta=2\.0 is out of range"),
    (["--search.explore_steps=0", "--search.reward_steps=0"], r"leave nothing to do: raise one"),
    (
        ["--preset=guarantee", "--counting.functions=60"],
        r"functions=60 is no multiple .*: give 100",
    ),
    (["--preset=guarantee", "--counting.draws=200"], r"cannot show a frequency below delta=0\.01"),
    (["--search.alfa=3"], r"Unknown flag --search\.alfa\. Did you mean --search\.alpha"),
]


def test_bad_input_is_one_line_and_exit_code_2_and_touches_nothing(finished, tmp_path):
    before = snapshot(finished)
    cases = [[*given, f"--out={finished}", "--only_check_args"] for given, _ in BAD_INPUT]
    binaries.assert_refused(MODULE, cases, [pattern for _, pattern in BAD_INPUT], tmp_path)
    assert snapshot(finished) == before


def test_a_seed_set_that_is_not_safe_is_refused(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    strict = ("--operation.thresholds=0.01", "--operation.reserve=0")
    done = binaries.run(MODULE, "--mode=eval", f"--out={out}", *strict)
    assert done.returncode == 2 and "is shown to be safe at threshold 0.01" in done.stderr
