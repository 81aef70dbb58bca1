# SPDX-License-Identifier: Apache-2.0
"""The saved walkers: they load, they act, and the search that found them is reproducible."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import gait_search, gaits, generate
from jaxsafe.data.trajectories import totals
from jaxsafe.envs import safety_tasks

# Robot: O, A.
SIZES = {"HalfCheetah": (17, 6), "Hopper": (11, 3), "Walker2d": (17, 6)}


@pytest.mark.parametrize("robot", gaits.ROBOTS)
def test_saved_gaits_act(robot):
    size, actions = SIZES[robot]
    gait = gaits.load(robot)
    assert gait.weights.shape == (2, actions, size + 3) and gait.frequency.shape == (2,)
    obs = np.linspace(-0.1, 0.1, size, dtype=np.float32)
    for pace in (0, 1):
        by_hand = gait.weights[pace][:, :size] @ obs + gait.weights[pace][:, -3:] @ [0, 1, 1]
        for xp in (np, jnp):
            got = gaits.action(xp, gait, pace, xp.asarray(obs), xp.float32(0))
            np.testing.assert_allclose(got, by_hand, rtol=1e-3, atol=1e-3)
    quarter = gaits.action(np, gait, 0, 0 * obs, 0.25 / gait.frequency[0])
    np.testing.assert_allclose(quarter, gait.weights[0][:, [-3, -1]].sum(1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("robot", gaits.ROBOTS)
def test_saved_gaits_name_their_origin(robot):
    stored = json.loads(gaits.path(robot).read_text())
    assert stored["task"] == f"Safety{robot}Velocity-v1" and stored["licence"] == "Apache-2.0"
    assert {"method", "seed", "mujoco", "control_steps", "speeds"} <= set(stored)
    # The file is what the search of today would be asked for.
    asked = json.loads(json.dumps(dataclasses.asdict(gait_search.SEARCHES[robot])))
    assert stored["search"] == asked


def test_other_robots_have_none():
    with pytest.raises(UserError, match="Swimmer"):
        gaits.load("Swimmer")


@pytest.fixture(scope="module")
def hopper():
    pytest.importorskip("gymnasium", reason="the robots are Gymnasium's")
    return safety_tasks.make("SafetyHopperVelocity-v1")


def brief(robot: str) -> gait_search.Search:
    return dataclasses.replace(
        gait_search.SEARCHES[robot], iterations=(10, 10), horizon=(20, 20), directions=4, top=2
    )


def test_a_search_depends_on_its_seed_alone(hopper, tmp_path):
    found = [
        gait_search.search_gait(hopper, brief("Hopper"), seed, lambda line: None)
        for seed in (0, 0, 1)
    ]
    files = [tmp_path / name for name in "abc"]
    for file, one in zip(files, found, strict=True):
        gait_search.save(file, hopper, brief("Hopper"), 0, one)
    first, again, other = (file.read_bytes() for file in files)
    assert first == again != other
    stored = json.loads(first)
    np.testing.assert_allclose(stored["weights"], found[0][0].weights, rtol=1e-4)
    assert stored["control_steps"] <= 2 * 10 * 8 * 20


def test_raw_weights_are_those_of_normalised_observations(hopper):
    rng = np.random.default_rng(0)
    search = dataclasses.replace(brief("Hopper"), clock=2.0)
    sums = gait_search.Statistics(1.0, np.zeros(11), np.ones(11)).add(rng.normal(3, 2, (50, 11)))
    theta = rng.normal(size=3 * 14 + 1)
    weights, frequency = gait_search.raw(hopper, search, theta, sums)
    obs = rng.normal(3, 2, 11)
    mean, std = sums.moments()
    seen = np.concatenate([(obs - mean) / std, [1.2, 1.6, 2]])
    np.testing.assert_allclose(
        weights @ np.concatenate([obs, [0.6, 0.8, 1]]), theta[:-1].reshape(3, 14) @ seen
    )
    assert frequency == pytest.approx(search.frequency * np.exp(theta[-1]))


def test_walker_s_left_leg_is_its_right_one_half_a_turn_later():
    search = gait_search.SEARCHES["Walker2d"]
    weights = gait_search.full(search, np.random.default_rng(0).normal(size=(3, 20)))
    obs = np.arange(17.0)
    mirrored = obs[[0, 1, 5, 6, 7, 2, 3, 4, 8, 9, 10, 14, 15, 16, 11, 12, 13]]
    now = weights @ np.concatenate([obs, [0.6, 0.8, 1]])
    later = weights @ np.concatenate([mirrored, [-0.6, -0.8, 1]])
    np.testing.assert_allclose(now[:3], later[3:])
    np.testing.assert_allclose(now[3:], later[:3])


@pytest.mark.slow
@pytest.mark.parametrize("robot", gaits.ROBOTS)
def test_walkers_spread_over_the_plane_of_cost_and_reward(robot):
    """In MJX: who walks on below the limit, who runs above it and gains more, who falls or lies."""
    pytest.importorskip("gymnasium", reason="the robots are Gymnasium's")
    steps = 500 if robot == "Walker2d" else 200  # it takes 300 to gain its speed
    task = safety_tasks.make(f"Safety{robot}Velocity-v1", max_episode_steps=steps)
    data, knobs = generate.generate(task, 48, 0)
    returns, costs = totals(data)
    share = costs / data.lengths
    assert set(knobs) == {"pace", "scale", "noise"} and len(np.unique(costs)) > 10
    safe, reckless = share < 0.1, share > 0.5
    assert safe.sum() >= 5 and reckless.sum() >= 4
    best = returns.max()
    assert returns[safe].max() > 0.3 * best and returns[reckless].max() > returns[safe].max()
    assert (returns < 0.6 * best).sum() >= 3
