# SPDX-License-Identifier: Apache-2.0
"""Benchmarks run, at a size that measures nothing."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags

from benchmarks import m2td3_ablation, safe_game, safeopt_numpy, sklearn_search
from jaxsafe import pls
from jaxsafe.core import flags as flags_lib
from jaxsafe.m2td3 import PRESETS

ROOT = pathlib.Path(__file__).parent.parent


def worker(name, *small):
    """Rows of a benchmark's process for one core."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--worker", "--cores=1", *small],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_m2td3_updates_times_seeds_together_and_in_turn():
    rows = worker("m2td3_updates", "--seeds=1,8", "--repeats=1")
    ours = [(row["what"], row["seeds"]) for row in rows if row["what"].startswith("jaxsafe")]
    assert ours == [("jaxsafe", 1), ("jaxsafe", 8), ("jaxsafe, in turn on 1", 8)]
    others = [row for row in rows if not row["what"].startswith("jaxsafe")]
    assert [(row["what"], row["seeds"]) for row in others] in ([], [("PyTorch", 1)])
    assert all(("temporary_mb" in row) == (row not in others) for row in rows)


@pytest.mark.slow  # MJX compiles for half a minute
def test_mjx_steps_times_both_engines():
    rows = worker("mjx_steps", "--batches=2", "--repeats=1")
    each = [(kind, name) for kind in ("controller", "noise") for name in ("MJX", "MuJoCo C")]
    assert [(row["actions"], row["engine"]) for row in rows] == each
    for row in rows:
        assert row["rate"] > 0 and row["worlds"] == 2
        assert ("temporary_mb" in row) == (row["engine"] == "MJX")


@pytest.mark.parametrize(
    "engines",
    [
        ("mujoco_c", "analytic"),
        pytest.param(("mujoco_c", "mjx"), marks=pytest.mark.slow),  # MJX compiles for half a minute
    ],
)
def test_grid_evaluation_times_the_engines_asked_for(engines):
    small = ("--grid=2", "--episodes=2", "--length=20", "--repeats=1", "--batches=4")
    rows = worker("grid_evaluation", *small, f"--engines={','.join(engines)}")
    assert [row["engine"] for row in rows] == ["MuJoCo C", engines[1]]
    for row in rows:
        assert row["seconds"] * row["rate"] == pytest.approx(2 * 2 * 2 * 20)
        assert (row["omegas"], row["episodes"], row["cores"]) == (4, 2, 1)
    assert rows[0]["compile_s"] == 0 and rows[1]["compile_s"] > 0


@pytest.mark.slow
def test_image_to_semantics_times_every_kernel():
    small = ("--images=4", "--batches=2,4", "--episodes=2", "--length=3", "--per_call=1")
    rows = worker("image_to_semantics", *small, "--repeats=1")
    ours = [row for row in rows if row["by"] == "jaxsafe"]
    assert len({(row["what"], row["batch"]) for row in ours}) == len(ours) == 2 + 6 * 2
    assert {row["what"] for row in rows if row["by"] == "PyTorch"} < {row["what"] for row in ours}
    for row in rows:
        assert row["rate"] > 0 and row["cpu_ms"] > 0
        assert (row["compile_s"] > 0) == (row["by"] == "jaxsafe")


@pytest.mark.slow
def test_pls_search_times_every_engine_there_is():
    small = ("--observations=2,4", "--side=6", "--repeats=2", "--seeds=3,5", "--steps=2")
    rows = worker("pls_search", *small)
    latency = [row for row in rows if row["seeds"] == 1]
    ours = [row for row in latency if row["what"].startswith("jaxsafe")]
    assert [row["N"] for row in ours] == [2, 4] * len(safe_game.RULES)
    peers = {row["what"] for row in latency} - {row["what"] for row in ours}
    assert any(what.startswith("SafeOpt's rule") for what in peers)
    for row in latency:
        assert 0 < row["low_ms"] <= row["ms"] <= row["high_ms"] and row["repeats"] == 2
        assert row["rate"] == pytest.approx(1e3 / row["ms"])
    # The first step compiles, the timed ones do not.
    assert all(1e3 * row["compile_s"] > row["ms"] for row in ours)
    many = [row for row in rows if row["seeds"] > 1]
    kinds = [(row["what"].split()[-1], row["seeds"]) for row in many]
    assert kinds == [("none", 3), ("none", 5), ("gp", 3), ("gp", 5)]
    for row in ours + many:
        assert row["temporary_mb"] > 0
    for row in many:
        assert row["per_cpu_s"] == pytest.approx(1e3 / row["cpu_ms"]) and row["N"] == 4


@pytest.mark.parametrize("number", range(3))
def test_engines_of_safeopts_rule_choose_the_same_points(number):
    """Ours and plain NumPy, which share no line, in 64 bits."""
    steps = 30
    game = safe_game.draw(number, 20, steps)
    config = safe_game.config_of("SafeOpt", steps)
    alphas = pls.alpha_table(config, 400, 1)[:, 0]
    expected, _ = safe_game.play(safeopt_numpy.SafeOpt(game, alphas), game, steps)
    with jax.enable_x64(True):
        got, seconds = safe_game.play(safe_game.Ours(game, config), game, steps)
    assert got == expected and len(set(got)) > 5
    assert seconds.shape == (steps, 2) and (seconds > 0).all()


@pytest.fixture(scope="module")
def safe_ucb():
    """A game, its alphas, and the points that ours chooses, in 64 bits."""
    steps = 12
    game = safe_game.draw(0, 20, steps)
    config = safe_game.config_of("safe UCB", steps)
    with jax.enable_x64(True):
        points, _ = safe_game.play(safe_game.Ours(game, config), game, steps)
    assert len(set(points)) > 5
    return game, pls.alpha_table(config, 400, 1)[:, 0], points


def test_scikit_learn_chooses_the_points_of_safe_ucb(safe_ucb):
    game, alphas, expected = safe_ucb
    theirs = sklearn_search.SafeUCB(game, alphas)
    assert safe_game.play(theirs, game, len(expected) - 1)[0] == expected


def test_botorch_chooses_the_points_of_safe_ucb(safe_ucb):
    pytest.importorskip("botorch", reason="needs the extra peers")
    from benchmarks import botorch_search

    game, alphas, expected = safe_ucb
    for how in botorch_search.HOW:
        for timed in (None, (3, 7)):
            theirs = botorch_search.SafeUCB(game, alphas, how, 1, timed)
            assert safe_game.play(theirs, game, len(expected) - 1)[0] == expected, (how, timed)


def test_games_are_draws_of_the_process():
    """Correlation exp(-d^2 / 2 l^2) along and across, unit variance, over 300 games."""
    games = [safe_game.draw(n, 10, 3) for n in range(300)]
    grid = games[0].grid
    values = np.stack([game.truth for game in games]) - games[0].prior_mean[:, None]
    np.testing.assert_allclose(values.std((0, 2)), 1.0, atol=0.1)
    for a, b in ((44, 45), (44, 54), (33, 66)):
        squares = ((grid[a] - grid[b]) ** 2).sum() / safe_game.LENGTHSCALE**2
        got = (values[:, :, a] * values[:, :, b]).mean()
        assert abs(got - np.exp(-squares / 2)) < 0.12
    for game in games:
        assert game.seed.sum() == 1 and game.truth[1, game.first] == game.truth[1].min()


@pytest.mark.slow
def test_cdt_times_training_and_rollouts_of_every_engine_there_is():
    small = ("--batches=2", "--episodes=1,3", "--length=11", "--width=16", "--repeats=1")
    rows = worker("cdt", *small)
    sides = list(dict.fromkeys(row["by"] for row in rows))
    assert sides in (["jaxsafe"], ["jaxsafe", "PyTorch"])
    each = [("training", 2), ("rollouts", 1), ("rollouts", 3)]
    kinds = [(row["what"], row["batch"], row["by"]) for row in rows]
    assert kinds == [(*case, by) for case in each for by in sides]
    assert all(row["rate"] > 0 and row["cores"] == 1 for row in rows)


def test_lm_generate_times_every_engine_there_is():
    """In turns and with the same ids, or there are no rows."""
    small = ("--batches=2", "--prompt=6", "--new=4", "--repeats=2")
    rows = worker("lm_generate", *small)
    sides = [row["by"] for row in rows]
    assert sides in (["jaxsafe"] * 2, ["jaxsafe", "transformers"] * 2)
    assert [row["unequal"] for row in rows] == [False] * (len(rows) // 2) + [True] * (
        len(rows) // 2
    )
    for row in rows:
        assert row["batch"] == 2 and row["repeats"] == 2 and row["per_cpu_s"] > 0
        assert row["low"] <= row["rate"] <= row["high"]
        assert ("first_call_s" in row) == ("temporary_mb" in row) == (row["by"] == "jaxsafe")


def test_sacpo_dpo_times_both_references_and_both_sides_agree():
    small = ("--pairs=2", "--tokens=16", "--layers=1", "--repeats=1")
    rows = worker("sacpo_dpo", *small)
    ours, theirs = ([r for r in rows if (r["by"] == "jaxsafe") is mine] for mine in (True, False))
    assert [(row["by"], row["reference"]) for row in ours] == [
        ("jaxsafe", "online"),
        ("jaxsafe", "cached"),
    ]
    assert [row["by"] for row in theirs] in ([], ["TRL", "TRL"])
    for row in rows:
        assert row["rate"] * row["s_per_update"] == pytest.approx(1) and row["cores"] == 1
        assert row["loss_at_5"] == pytest.approx(ours[0]["loss_at_5"], rel=2e-3)


def test_tsdi_times_the_estimate_and_corrected_answers():
    small = ("--passes=2", "--prompt=5", "--positions=2", "--batches=2", "--new=4", "--layers=1")
    rows = worker("tsdi", *small, "--repeats=2")
    kinds = ["estimate", "all logits", "same logits", "plain", "corrected"]
    assert [row["what"] for row in rows] == kinds
    for row in rows:
        assert row["batch"] == 2 and row["repeats"] == 2 and row["per_cpu_s"] > 0
        assert 0 < row["low"] <= row["rate"] <= row["high"] and row["temporary_mb"] > 0


def test_an_ablation_keeps_the_rows_of_its_own_settings_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(m2td3_ablation.timing, "RESULTS", tmp_path)
    assert m2td3_ablation.earlier("a") == []
    rows = [{"what": "M2TD3+", "worst_iqm": 1.0}]
    (tmp_path / "m2td3_ablation.json").write_text(json.dumps({"note": "a", "rows": rows}))
    assert m2td3_ablation.earlier("a") == rows
    with pytest.raises(SystemExit, match="2"):
        m2td3_ablation.earlier("b")
    assert "is of other settings (a): leave out --resume" in capsys.readouterr().out


def test_every_row_of_the_ablation_changes_the_demo_by_flags_that_exist():
    before = PRESETS["demo"].algo
    assert m2td3_ablation.ROWS["M2TD3+"] == ()
    for name, given in list(m2td3_ablation.ROWS.items())[1:]:
        values = flags.FlagValues()
        flags_lib.define_run_flags(values, PRESETS)
        flags_lib.define_config_flags(PRESETS["demo"], "", values)
        values(["m2td3", *given])
        for path in (flag.removeprefix("--").partition("=")[0] for flag in given):
            default = getattr(before, path.removeprefix("algo."))
            assert values[path].value != default, (name, path)
