# SPDX-License-Identifier: Apache-2.0
"""Scores, their rows and their summary, on the game whose worst case is known."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core import metrics
from jaxsafe.core.checks import UserError
from jaxsafe.envs.uncertainty import scenario
from jaxsafe.envs.worst_case import Search
from jaxsafe.m2td3 import Config, act, evaluate, init, train
from jaxsafe.m2td3.experiment import RESUMABLE, Evaluation
from tests.m2td3 import games

CONFIG = Config(hidden=(8,), total_steps=10, warmup_steps=1)
HOW = Evaluation(grid=5, episodes=2, search=Search(random=30, rounds=4, proposals=10, alpha=0.4))
SEEDS = (7, 8, 9)


@pytest.fixture(scope="module")
def game():
    return games.quadratic()


@pytest.fixture(scope="module")
def scored(game):
    """(actions [S], Scores) of three policies as they are born."""
    world = train.world_of(*game)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    config = dataclasses.replace(CONFIG, actor_final_scale=4.0)
    learners = jax.vmap(lambda key: init(key, config, world))(keys)
    actors, worlds = evaluate.policies(learners, config)
    actions = jax.vmap(lambda a, w: act(a, jnp.zeros(1), config, w)[0])(actors, worlds)
    scores = evaluate.score("jax", actors, worlds, config, *game, HOW)
    return np.asarray(actions), scores


def test_scores_are_the_closed_forms(scored):
    actions, (engine, omegas, found) = scored
    assert engine == "jax" and len(set(actions)) == 3
    np.testing.assert_allclose(omegas[:, 0], np.linspace(0, 1, 5))
    expected = -(1 + 8 * omegas[:, 0]) * (actions[:, None] - omegas[:, 0]) ** 2
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.cvar, np.sort(expected, 1)[:, :2].mean(1), rtol=1e-4)
    exact = [games.quadratic_worst(a) for a in actions]
    np.testing.assert_allclose(found.refined, exact, rtol=1e-2)
    np.testing.assert_allclose(found.gap, found.worst - found.refined)


def test_tasks_without_mujoco_are_scored_by_their_own_engine(game):
    both = dataclasses.replace(HOW, engines=("mujoco_c", "jax"))
    assert evaluate.engines(game[0], HOW) == evaluate.engines(game[0], both) == ("jax",)
    task, _ = scenario("InvertedPendulum-1")
    assert evaluate.engines(task, HOW) == ("mujoco_c",)
    assert evaluate.engines(task, both) == ("mujoco_c", "jax")


def test_rows_hold_the_grid_then_the_worst_point_and_are_found_again(scored, game, tmp_path):
    _, scores = scored
    rows = evaluate.rows("m2td3", SEEDS, game[1], scores)
    assert len(rows) == 3 * 6
    assert rows[5] == {
        "method": "m2td3",
        "engine": "jax",
        "seed": 7,
        "point": "refined",
        "w": float(scores.found.refined_omega[0, 0]),
        "return": float(scores.found.refined[0]),
    }
    assert [row["return"] for row in rows[6:11]] == scores.found.values[1].tolist()
    path = tmp_path / "eval.jsonl"
    metrics.append(path, evaluate.rows("td3", SEEDS, game[1], scores))
    other = scores._replace(found=jax.tree.map(lambda x: x + 100, scores.found))
    metrics.append(path, evaluate.rows("td3", SEEDS, game[1], other))  # a second engine's
    omega = evaluate.worst_omega(path, "td3", 9, game[1])
    np.testing.assert_array_equal(omega, scores.found.refined_omega[2])
    for method, seed in (("m2td3", 9), ("td3", 10)):
        with pytest.raises(UserError, match=rf"no worst case of {method}: run --mode=eval first"):
            evaluate.worst_omega(path, method, seed, game[1])


def test_the_summary_is_what_the_docstring_says(scored, game):
    _, scores = scored
    row = evaluate.summary("m2td3", game[1], scores, HOW)
    json.dumps(row, allow_nan=False)
    for name in ("worst", "average", "cvar", "refined", "gap"):
        values = getattr(scores.found, name)
        assert row[f"{name}_per_seed"] == pytest.approx(values.tolist())
        assert row[f"{name}_mean"] == pytest.approx(values.mean())
        assert row[f"{name}_ci_low"] <= row[f"{name}_iqm"] <= row[f"{name}_ci_high"]
        assert row[f"{name}_n"] == 3
    told = evaluate.__doc__
    for key in row:
        group, _, rest = key.partition("_")
        assert key in told or (f"{group}_*" in told and rest in told), f"{key} is not documented"
    assert row["refined_omega_per_seed"] == scores.found.refined_omega.tolist()
    assert (row["parameters"], row["cvar_level"], row["grid"]) == (["w"], 0.4, 5)


def test_a_nan_is_written_not_hidden(scored, game):
    _, scores = scored
    broken = scores._replace(found=jax.tree.map(np.copy, scores.found))
    broken.found.worst[1] = broken.found.values[1, 2] = np.nan
    row = evaluate.summary("td3", game[1], broken, HOW)
    rows = evaluate.rows("td3", SEEDS, game[1], broken)
    json.dumps([row, rows], allow_nan=False)
    assert row["worst_per_seed"][1] == row["worst_mean"] == row["worst_ci_low"] == "nan"
    assert row["worst_n"] == 3 and isinstance(row["average_mean"], float)
    assert [r["return"] for r in rows].count("nan") == 1


def test_all_of_scoring_may_change_when_a_run_is_scored_again():
    assert {"eval.grid", "eval.search.random", "eval.engines", "eval.renderer"} < set(RESUMABLE)
    assert not [name for name in RESUMABLE if name.startswith("algo.")][1:]
