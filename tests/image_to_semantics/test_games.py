# SPDX-License-Identifier: Apache-2.0
"""Breakout as a world of pixels: its data, its pictures, its replay and its agents."""

import jax
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.image_to_semantics import collect, evaluate, experiment, games, study, target, worlds
from jaxsafe.image_to_semantics.collect import Recipe
from jaxsafe.image_to_semantics.config import Config
from jaxsafe.image_to_semantics.types import Range


@pytest.fixture(scope="module")
def world():
    return worlds.make("breakout")


@pytest.fixture(scope="module")
def data():
    return {level: collect.collect(Recipe("breakout", level, 0), 12) for level in (0, 1)}


def test_data_hold_whole_games(data, world):
    one = data[0]
    assert one.images.shape[1:] == (64, 64, 3) and one.truth.shape[1] == 36
    assert (one.lengths <= world.steps).all() and one.ends.sum() == 12
    assert len(set(one.lengths)) > 3
    np.testing.assert_array_equal(np.unique(one.actions), [0, 1, 2])
    # A lost ball is the last that is seen: in the paddle's row, beside the paddle.
    lost = one.truth[one.ends][one.lengths < world.steps]
    assert len(lost) and (lost[:, 1] == 9).all() and (lost[:, 0] != lost[:, 4]).all()
    np.testing.assert_array_equal(one.truth, data[1].truth)
    again = collect.collect(Recipe("breakout", 1, 0), 2)
    np.testing.assert_array_equal(again.images, data[1].images[: len(again.images)])


def test_the_replay_of_logged_actions_is_the_game(data, world):
    """The rules are the source's: labels from an episode's first image alone are the truth."""
    drift = evaluate.label_drift(world, data[1], np.ones(36))
    assert len(drift) > 20 and np.nanmax(drift) == 0


def test_a_picture_shows_ball_paddle_and_bricks(world):
    rng = np.random.default_rng(0)
    state = world.start(rng)[0]
    state[:6] = [2, 6, 1, 1, 7, 0]
    state[6 + 13] = 0  # row 2, column 3
    looks = target.looks(world, target.LEVELS[0], [rng])
    renderer = target.open_renderer(world)
    image = renderer.draw(looks, np.zeros(1, int), np.zeros(1, int), state[None])[0]
    at = lambda row, column: image[int(6.4 * row + 3.2), int(6.4 * column + 3.2)]  # noqa: E731
    ground, brick, ball, paddle = (np.round(255 * c) for c in games._COLOURS)
    for place, colour in (
        ((6, 2), ball),
        ((9, 7), paddle),
        ((2, 4), brick),
        ((2, 3), ground),
        ((0, 0), ground),
    ):
        assert np.abs(at(*place) - colour).max() <= 1, place
    assert image.shape == (64, 64, 3) and renderer.close() is None


def test_looks_stay_in_an_episode_and_differ_between(data):
    first, second = (data[1].images[data[1].starts[i]].astype(float) for i in (0, 1))
    later = data[1].images[data[1].starts[0] + 3].astype(float)
    corner = (slice(30, 50), slice(0, 64))
    assert np.abs(first[corner].mean((0, 1)) - later[corner].mean((0, 1))).max() < 8
    assert np.abs(first[8:22].mean((0, 1)) - second[8:22].mean((0, 1))).max() > 8
    assert (data[0].images[0] != data[1].images[0]).mean() > 0.5


def test_the_policy_on_true_states_beats_its_noisy_self(world):
    recipe = Recipe("breakout", 1, 5)
    true, behaviour = evaluate.true_state_returns(recipe, 8), collect.behaviour_returns(recipe, 8)
    assert (true == 9).all() and behaviour.mean() < 6  # 9 bricks in 100 steps, as gymnax pays them


def test_agents_act_through_a_predictor(monkeypatch, world):
    """A perfect predictor's agent earns what the policy on true states earns."""
    seen = []

    def open_fleet(*arguments):
        seen.append(games.GameFleet(arguments[0], arguments[2]))
        return seen[0]

    def act(world, config, gain, policy, images, key, before):
        truth = seen[0].semantics.reshape(*images.shape[:2], -1)
        return world.policy(np, truth), truth

    monkeypatch.setattr(target, "open_fleet", open_fleet)
    monkeypatch.setattr(evaluate, "_act", act)
    policy = evaluate.Policy(None, np.zeros(1), Range(np.zeros(36), np.ones(36)))
    run = evaluate.transfer(policy, Config(), Recipe("breakout", 1, 5), 3)
    np.testing.assert_array_equal(run.returns, np.full((1, 3), 9.0))
    assert run.distance == 0


def test_ranges_are_the_rules(monkeypatch):
    """Bricks that no source episode broke still have a range, or errors would be boundless."""
    from jaxsafe.image_to_semantics import stages

    what = stages.seen(experiment.Data(world="breakout", episodes=3, source_episodes=2), "relative")
    np.testing.assert_allclose(what.range.width, np.array([9, 9, 2, 2, 9, 1] + [1] * 30), rtol=1e-3)
    assert (what.std > 1e-3).all()
    laid = study.table(what.offline, 2, what.std)
    assert laid.truth.shape[2] == 36 and np.isfinite(jax.device_get(laid.truth)).all()


def test_what_bodies_alone_have_is_refused(world):
    of = lambda **more: experiment.Experiment(data=experiment.Data(world="breakout", **more))  # noqa: E731
    identified = experiment.Study(methods=("augmented", "identified"))
    source = experiment.Source(policy="trained")
    for one, message in (
        (of(level=2), r"level=2 changes physics, which breakout has none of"),
        (of(renderer="mujoco"), r"data.renderer=mujoco draws no breakout"),
        (experiment.Experiment(data=of().data, study=identified), r"no damping, masses or motors"),
        (experiment.Experiment(data=of().data, source=source), r"breakout has discrete ones"),
    ):
        with pytest.raises(UserError, match=message):
            experiment.validate_experiment(one)
    with pytest.raises(UserError, match=r"give data\.level 0 or 1"):
        collect.collect(Recipe("breakout", 3, 0), 1)
    with pytest.raises(UserError, match="breakout is a game"):
        target.open_renderer(world, by="mujoco")
