# SPDX-License-Identifier: Apache-2.0
"""Policies compared with the closed forms, from hand-made actors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs.games import QuadraticGame, ScalarRegulator, closed_form
from jaxsafe.m2td3 import PRESETS, Config, known_answers, train
from jaxsafe.m2td3.experiment import validate_experiment

CONFIG = Config(actor="linear")


def linear(weights, game):
    """Actors `u = half range * weight * obs + middle` of S seeds, and their worlds."""
    task, uncertainty = known_answers.game_tasks.make(game)
    kernel = jnp.asarray(weights, jnp.float32)[:, None, None]
    world = train.world_of(task, uncertainty)
    worlds = jax.tree.map(lambda x: jnp.stack([x] * len(weights)), world)
    return {"params": {"Dense_0": {"kernel": kernel}}}, worlds


def test_policy_numbers_and_gaps_are_those_of_the_formulas():
    game = QuadraticGame()
    found = known_answers.solve(game, *linear([2 * 23 / 32 - 1, 0.0, 9.0], game), CONFIG)
    np.testing.assert_allclose(found.numbers, [23 / 32, 0.5, 1.0], atol=1e-6)
    np.testing.assert_allclose(found.worst, [-729 / 1024, -2.25, -1.6875], atol=1e-5)
    np.testing.assert_allclose(found.gap, found.worst[0] - found.worst, atol=1e-5)
    game = ScalarRegulator()
    found = known_answers.solve(game, *linear([-0.4, -0.9], game), CONFIG)
    np.testing.assert_allclose(found.numbers, [1.2, 2.7], atol=1e-6)
    assert found.gap[0] == pytest.approx(0, abs=1e-5) and found.gap[1] == np.inf


def test_rows_hold_no_number_that_json_cannot():
    game = ScalarRegulator()
    found = known_answers.solve(game, *linear([-0.4, -0.9], game), CONFIG)
    row = known_answers.row("regulator", "m2td3", game, found)
    assert row["gap_per_seed"][1] == "inf" and row["worst_per_seed"][1] == "-inf"
    assert row["answer"] == row["minimax"] == pytest.approx(1.2)
    documented = known_answers.__doc__
    assert all(key in documented for key in row)
    rows = known_answers.rows("regulator", "m2td3", range(7, 9), found)
    assert [r["seed"] for r in rows] == [7, 8] and rows[1]["return"] == "-inf"


@pytest.mark.parametrize("game", [QuadraticGame(), ScalarRegulator()])
def test_each_method_has_its_own_answer(game):
    known = closed_form(game)
    got = {m: known_answers.answer(m, known) for m in ("m2td3_plus", "dr_td3", "td3", "rarl")}
    want = (known.minimax, known.redrawn, known.nominal, None)
    assert tuple(got.values()) == want


def test_the_picture_has_a_panel_per_game(tmp_path):
    played = {"quadratic": QuadraticGame(), "regulator": ScalarRegulator()}
    solved = {
        name: {m: known_answers.solve(game, *linear([-0.4, -0.3], game), CONFIG)}
        for name, game in played.items()
        for m in ("m2td3",)
    }
    path = known_answers.picture(tmp_path / "known.png", solved, played)
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scenario": "Hopper-1", "engine": "analytic"}, "engine='analytic' has no Hopper"),
        ({"scenario": "Pendulum-3", "flavour": "rrls"}, "has no choice of flavour"),
        ({"scenario": "Pendulum-4"}, "Pendulum-3"),
        ({"games": ("quadratic", "quadratic")}, "games='quadratic,quadratic'"),
        (
            {"games": ("regulator",), "regulator": ScalarRegulator(a=9.0)},
            "no gain keeps the cost finite",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(changes, words):
    with pytest.raises(UserError, match=words):
        validate_experiment(dataclasses.replace(PRESETS["demo"], **changes))


def test_every_preset_is_sound():
    def refusal(experiment):
        try:
            validate_experiment(experiment)
        except UserError as error:
            return str(error)

    assert {name: refusal(e) for name, e in PRESETS.items()} == dict.fromkeys(PRESETS)
