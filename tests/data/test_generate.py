# SPDX-License-Identifier: Apache-2.0
"""Data made here: they cover the plane of cost and reward, and anyone can make them again."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import behaviours, generate, trajectories
from jaxsafe.data.behaviours import Behaviour
from jaxsafe.data.trajectories import totals
from jaxsafe.envs import gymnax, point_worlds, safety_tasks
from jaxsafe.envs.types import AdaptedState, Task, Timestep

EPISODES = 600


@pytest.fixture(scope="module", params=point_worlds.WORLDS)
def made(request):
    task = safety_tasks.make(request.param)
    behaviour = behaviours.scripted(task)
    return task, behaviour, generate.generate(task, EPISODES, 0, behaviour, batch=256)


def occupied(data, bins: int = 8) -> int:
    """Cells of the plane with an episode in them, of `bins` x `bins`."""
    returns, costs = totals(data)
    return int((np.histogram2d(costs, returns, bins)[0] > 0).sum())


def test_the_plane_of_cost_and_reward_is_covered(made):
    """From safe to reckless at every threshold of the study, and from bad to good within each."""
    _, _, (data, _) = made
    returns, costs = totals(data)
    assert occupied(data) >= 32  # of 64; measured 38 to 43
    for low, high in ((0, 0), (1, 5), (5, 10), (10, 20), (20, 40), (40, 100)):
        inside = (costs >= low) & (costs <= high)
        assert inside.sum() >= 10
        spread = np.ptp(np.quantile(returns[inside], [0.05, 0.95])) / np.ptp(returns)
        assert spread > 0.2
    best = [returns[costs <= b].max() for b in (0, 5, 10, 20, 100)]
    assert best == sorted(best) and best[-1] > 1.2 * best[0]  # who risks more can gain more


def test_columns_are_a_rollout(made):
    _, _, (data, _) = made
    assert len(data.starts) == EPISODES and (data.lengths == 100).all()
    assert data.timeouts.sum() == EPISODES and data.timeouts[data.ends - 1].all()
    assert not data.terminals.any() and set(data.costs) == {0, 1}
    inside = np.setdiff1d(np.arange(len(data.rewards)), data.ends - 1)
    np.testing.assert_array_equal(data.observations[inside + 1], data.next_observations[inside])
    assert (np.abs(data.actions) <= 1).all() and data.actions.std() > 0.1


def test_circle_s_rows_pay_by_the_formula():
    task = safety_tasks.make("Circle-v0")
    data = generate.generate(task, 20, 3).trajectories
    x, y, vx, vy = data.next_observations.T
    off = np.abs(np.hypot(x, y) - 7)
    effort = np.square(data.actions).sum(1)
    reward = 0.1 * (y * vx - x * vy) / (1 + off) - 0.01 * effort
    np.testing.assert_allclose(data.rewards, reward, atol=1e-4)
    np.testing.assert_array_equal(data.costs, np.abs(x) > 6)


def test_an_episode_depends_on_seed_and_index_alone(made):
    task, behaviour, (data, knobs) = made
    few = generate.generate(task, 5, 0, behaviour, batch=256)
    for a, b in zip(few.trajectories[:7], data[:7], strict=True):
        np.testing.assert_allclose(a, b[:500], atol=1e-2)  # measured 1e-5
    for name, knob in knobs.items():
        np.testing.assert_allclose(few.knobs[name], knob[:5], rtol=1e-6)
        assert len(np.unique(knob)) > 0.99 * EPISODES  # drawn for each trajectory
    other = generate.generate(task, 5, 1, behaviour, batch=256)
    assert (other.trajectories.actions != few.trajectories.actions).any(1).all()


def test_flatten_evens_out_the_plane(made):
    _, _, wide = made
    flat = generate.flatten(wide, 0, bins=(8, 8), most=10)
    before, after = (totals(x.trajectories)[::-1] for x in (wide, flat))
    _, *edges = np.histogram2d(*before, 8)
    counts = [np.histogram2d(*x, edges)[0] for x in (before, after)]
    np.testing.assert_array_equal(counts[1], np.minimum(counts[0], 10))
    assert counts[0].max() > 30
    assert all(len(knob) == len(flat.trajectories.starts) for knob in flat.knobs.values())


def test_files_carry_their_origin_and_are_equal_bytes(tmp_path):
    task = safety_tasks.make("Run-v0", max_episode_steps=10)
    behaviour = behaviours.scripted(task)
    paths = [tmp_path / name for name in ("a.hdf5", "b.hdf5", "c.hdf5")]
    made = [
        generate.write(p, task, 20, s, behaviour) for p, s in zip(paths, (3, 3, 4), strict=True)
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    got = trajectories.load(paths[0])
    for a, b in zip(got.trajectories, made[0].trajectories, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(got.extras["knobs/fast"], made[0].knobs["fast"])
    attributes = got.attributes
    assert attributes["env_id"] == "Run-v0" and attributes["seed"] == 3
    assert attributes["licence"] == "Apache-2.0" and attributes["flat"] == 0
    assert "jax" in json.loads(attributes["versions"]) and len(attributes["generator_hash"]) == 64
    longer = safety_tasks.make("Run-v0", max_episode_steps=11)
    assert generate.generator_hash(longer, behaviour) != attributes["generator_hash"]
    flat = generate.write(paths[2], task, 1000, 0, behaviour, flat=True)
    stored = trajectories.load(paths[2]).trajectories
    assert len(stored.starts) == len(flat.trajectories.starts) < 1000


def staircase() -> Task:
    """Counts up by its action and terminates at 3; truncated after 5 steps."""

    def step(model, state, action):
        count, steps = state.inner + action, state.steps + 1
        ended = count[0] >= 3
        timestep = Timestep(count, count[0], jnp.float32(1), ended, steps >= 5)
        return AdaptedState(count, steps), timestep

    def reset(model, key):
        return AdaptedState(jnp.zeros(1), jnp.int32(0))

    ends = (np.zeros(1, np.float32), np.full(1, 2, np.float32), np.ones(1, np.float32))
    observe = lambda model, state: state.inner  # noqa: E731
    return Task("Stairs", None, reset, reset, step, observe, 1, 1, *ends, 5, {}, None)


def test_episodes_stop_where_they_end():
    task = staircase()
    behaviour = Behaviour(
        "steps",
        lambda key: {"size": jax.random.randint(key, (), 0, 3).astype(jnp.float32)},
        lambda knobs, obs, key, t: knobs["size"][None],
    )
    data, knobs = generate.generate(task, 30, 0, behaviour, batch=7)
    lengths = {0.0: 5, 1.0: 3, 2.0: 2}
    assert set(knobs["size"]) == set(lengths)
    np.testing.assert_array_equal(data.lengths, [lengths[x] for x in knobs["size"]])
    np.testing.assert_array_equal(data.terminals[data.ends - 1], knobs["size"] > 0)
    np.testing.assert_array_equal(data.timeouts[data.ends - 1], knobs["size"] == 0)
    assert data.terminals.sum() + data.timeouts.sum() == 30
    np.testing.assert_array_equal(data.observations[data.starts], 0)


def test_a_broken_policy_is_named():
    task = staircase()
    broken = Behaviour("broken", lambda key: {}, lambda k, obs, key, t: obs * jnp.nan)
    with pytest.raises(UserError, match="broken on Stairs: key 'observations' row 1, 0"):
        generate.generate(task, 2, 0, broken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 0}, "number=0 is out of range"),
        ({"batch": 0}, "batch=0 is out of range"),
        ({"number": 10**10}, "GiB.*Lower number"),
    ],
)
def test_errors(change, message):
    task = safety_tasks.make("Circle-v0")
    with pytest.raises(UserError, match=message):
        generate.generate(**({"task": task, "number": 1, "seed": 0} | change))


def test_tasks_without_a_script_say_so():
    with pytest.raises(UserError, match="Pendulum-v1 has no scripted behaviour"):
        behaviours.scripted(gymnax.make("Pendulum-v1"))


class TestRobots:
    @pytest.mark.slow
    def test_gaits_make_the_swimmer_swim_below_and_above_its_limit(self, tmp_path):
        pytest.importorskip("gymnasium", reason="the robots are Gymnasium's")
        task = safety_tasks.make("SafetySwimmerVelocity-v1", max_episode_steps=60)
        made = generate.write(tmp_path / "a.hdf5", task, 32, 0)
        costs = totals(made.trajectories)[1]
        assert costs.min() < 10 and costs.max() > 25 and len(np.unique(costs)) > 10
        assert made.knobs["phases"].shape == (32, 2)
        got = trajectories.load(tmp_path / "a.hdf5")
        assert got.attributes["behaviour"] == "gait" and got.trajectories.observations.shape[1] == 8

    def test_a_policy_may_be_given(self):
        task = safety_tasks.make("Circle-v0", max_episode_steps=5)
        policy = behaviours.of_policy(task, lambda obs: jnp.ones(2), "push", scale=(0.5, 0.5))
        data, knobs = generate.generate(task, 200, 0, policy)
        noise = np.repeat(knobs["noise"], 5)
        calm = noise < 0.05
        np.testing.assert_allclose(data.actions[calm], 0.5, atol=0.25)
        spread = data.actions[noise > 0.4].std()
        assert 0.2 < spread < 0.6 and set(knobs["scale"]) == {0.5}
