# SPDX-License-Identifier: Apache-2.0
"""The saved walkers: they load, they act, and the search that found them is reproducible."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import gait_search, gaits, generate
from jaxsafe.data.gait_settings import SEARCHES, Mirror, Search
from jaxsafe.data.trajectories import totals
from jaxsafe.envs import host, host_steps, safety_tasks

# Robot: O, A.
SIZES = {"HalfCheetah": (17, 6), "Hopper": (11, 3), "Walker2d": (17, 6), "Ant": (27, 8)}


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
    asked = json.loads(json.dumps(dataclasses.asdict(SEARCHES[robot])))
    assert stored["search"] == asked


def test_other_robots_have_none():
    with pytest.raises(UserError, match="Swimmer"):
        gaits.load("Swimmer")


@pytest.fixture(scope="module")
def hopper():
    pytest.importorskip("gymnasium", reason="the robots are Gymnasium's")
    return safety_tasks.make("SafetyHopperVelocity-v1")


def brief(robot: str) -> Search:
    return dataclasses.replace(
        SEARCHES[robot], iterations=(10, 10), horizon=(20, 20), directions=4, top=2
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


@pytest.mark.parametrize("robot", ["Walker2d", "Ant"])
def test_the_other_half_is_the_first_one_mirrored(robot):
    search = SEARCHES[robot]
    size, actions = SIZES[robot]
    rng = np.random.default_rng(0)
    weights = gait_search.full(search, rng.normal(size=(actions // 2, size + 3)))
    obs = rng.normal(size=size)
    now = weights @ np.concatenate([obs, [0.6, 0.8, 1]])
    clock = [0.6, 0.8, 1] if search.mirror.together else [-0.6, -0.8, 1]  # or half a turn later
    later = weights @ np.concatenate([mirrored(search.mirror, obs), clock])
    np.testing.assert_allclose(later, turned(search.mirror, now))


def mirrored(mirror: Mirror, obs):
    """The observation of the mirrored state."""
    signs = np.ones(len(obs))
    signs[list(mirror.flip)] = -1
    return signs * obs[list(mirror.swap)]


def turned(mirror: Mirror, action):
    """The action of the mirrored robot."""
    first, rest = list(mirror.half), list(mirror.rest)
    signs = np.ones(len(first))
    signs[list(mirror.turned)] = -1
    other = np.empty_like(action)
    other[first], other[rest] = signs * action[rest], signs * action[first]
    return other


@pytest.mark.parametrize("robot", ["Walker2d", "Ant"])
def test_a_mirrored_robot_moves_as_the_mirror_does(robot):
    """In MuJoCo C: the mirror is one of the robot's own symmetries, off the ground."""
    pytest.importorskip("gymnasium", reason="the robots are Gymnasium's")
    task = safety_tasks.make(f"Safety{robot}Velocity-v1")
    spec, model = task.host
    mirror = SEARCHES[robot].mirror
    rng = np.random.default_rng(1)
    action = rng.uniform(-1, 1, task.action_size)
    qpos, qvel = (x[0] for x in host.initial_states(task, 1, 0))
    hidden = len(qpos) + len(qvel) - task.obs_size  # positions that no one sees
    state = np.concatenate([qpos, qvel])
    state[hidden:] += 0.05 * rng.normal(size=task.obs_size)
    height = 1 if robot == "Walker2d" else 2
    state[height] += 1.0
    other = state.copy()
    other[hidden:] = mirrored(mirror, state[hidden:])
    pool = host_steps.make_pool(model, num_threads=1)
    both = np.stack([state, other])
    qpos, qvel = both[:, : len(qpos)], both[:, len(qpos) :]
    actions = np.stack([action, turned(mirror, action)])
    qpos, qvel, _ = host_steps.step_batch_derived(spec, pool, [model] * 2, qpos, qvel, actions)
    seen = np.concatenate([qpos, qvel], 1)[:, hidden:]
    np.testing.assert_allclose(seen[1], mirrored(mirror, seen[0]), atol=1e-9)
    assert np.abs(seen[0] - state[hidden:]).max() > 0.01


@pytest.mark.slow
def test_ants_spread_over_the_plane_of_cost_and_reward():
    """In MJX; who is above the limit at times gains about as much as who stays below it."""
    pytest.importorskip("gymnasium", reason="the robots are Gymnasium's")
    task = safety_tasks.make("SafetyAntVelocity-v1", max_episode_steps=200)
    data, _ = generate.generate(task, 48, 0)
    returns, costs = totals(data)
    share = costs / data.lengths
    safe, fast = share < 0.05, share > 0.25
    assert safe.sum() >= 15 and fast.sum() >= 6 and share.max() > 0.4
    assert len(np.unique(costs)) > 10
    best = returns.max()
    assert min(returns[safe].max(), returns[fast].max()) > 0.8 * best
    assert (returns < 0.4 * best).sum() >= 8 and (data.lengths == 200).sum() > 40


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["HalfCheetah", "Hopper", "Walker2d"])
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
