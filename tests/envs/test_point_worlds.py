# SPDX-License-Identifier: Apache-2.0
"""Rewards and costs computed by hand, and the motion of the point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import point_worlds
from jaxsafe.envs.point_worlds import PointState, circle_pay, hazard_pay, run_pay
from jaxsafe.envs.rollout import auto_reset, episode_return
from jaxsafe.envs.uncertainty import make_set

STILL = np.zeros(2, np.float32)


def at(position, velocity=(0.0, 0.0), goal=(0.0, 0.0)) -> PointState:
    place, speed, aim = (jnp.array(x, jnp.float32) for x in (position, velocity, goal))
    return PointState(place, speed, aim, jnp.zeros(2, jnp.uint32), jnp.int32(0))


@pytest.fixture(scope="module", params=point_worlds.WORLDS)
def task(request):
    return point_worlds.make(request.param)


@pytest.mark.parametrize(
    ("position", "velocity", "action", "reward", "cost"),
    [
        ((0, 7), (2, 0), (0, 0), 1.4, 0),  # on the ring, clockwise: 0.1 * 7 * 2
        ((0, 7), (-2, 0), (0, 0), -1.4, 0),
        ((7, 0), (0, -2), (0, 0), 1.4, 1),  # there the wall is crossed
        ((-7, 0), (0, 2), (0, 0), 1.4, 1),
        ((0, 8), (2, 0), (0, 0), 0.8, 0),  # 0.1 * 8 * 2 / (1 + 1)
        ((0, 4), (2, 0), (0, 0), 0.2, 0),  # 0.1 * 4 * 2 / (1 + 3)
        ((3, 4), (4, -3), (1, -1), 0.1 * 25 / 3 - 0.02, 0),
        ((6, 0), (0, 0), (0, 0), 0, 0),
        ((6.001, 0), (0, 0), (0, 0), 0, 1),
        ((0, 9), (0, 5), (0, 0), 0, 0),  # outwards is no gain
    ],
)
def test_circle(position, velocity, action, reward, cost):
    got = circle_pay(None, None, at(position, velocity), jnp.float32(action))
    np.testing.assert_allclose(got[0], reward, atol=1e-6)
    assert got[1] == cost


def test_circle_s_reward_is_greatest_on_the_ring_at_a_given_speed():
    radii = np.linspace(3, 11, 801)
    rewards = [circle_pay(None, None, at((0, r), (2, 0)), jnp.float32(STILL))[0] for r in radii]
    assert radii[np.argmax(rewards)] == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("before", "position", "velocity", "action", "reward", "cost"),
    [
        ((0, 0), (0.25, 0), (2.5, 0), (0, 0), 15, 0),
        ((0, 0), (0.25, 0), (2.501, 0), (0, 0), 15, 1),
        ((0, 0), (0.25, 0), (1.8, 1.8), (0, 0), 15, 1),  # planar: 2.55 m/s
        ((0, 0), (-0.25, 0), (-2.5, 0), (1, 0), -16, 0),
        ((0, 2), (0, 2), (0, 0), (0, 0), 0, 0),
        ((0, -2.001), (0, -2.001), (0, 0), (0, 0), 0, 1),
        ((0, 2.1), (0, 2.1), (9, 0), (0, 0), 0, 1),  # both at once cost 1
        # sqrt(1000^2 + 100^2) - 1000
        ((0, 100), (0, 0), (0, 0), (0, 0), 60 * 4.98756211, 0),
    ],
)
def test_run(before, position, velocity, action, reward, cost):
    got = run_pay(None, at(before), at(position, velocity), jnp.float32(action))
    np.testing.assert_allclose(got[0], reward, rtol=1e-5, atol=1e-5)
    assert got[1] == cost


@pytest.mark.parametrize(
    ("before", "position", "goal", "reward", "cost"),
    [
        ((3, 3), (3, 2.5), (3, 1), 0.5, 0),
        ((3, 2.5), (3, 3), (3, 1), -0.5, 0),
        ((3, 1.5), (3, 1.39), (3, 1), 0.11 + 5, 0),
        ((3, 1.5), (3, 1.41), (3, 1), 0.09, 0),
        ((1, 1), (2, 0.79), (2, 2), np.sqrt(2) - 1.21, 1),
        ((1, 1), (2, 0.81), (2, 2), np.sqrt(2) - 1.19, 0),
    ],
)
def test_hazard(before, position, goal, reward, cost):
    model = point_worlds.make("Hazard-v0").model
    got = hazard_pay(model, at(before, goal=goal), at(position, goal=goal), jnp.float32(STILL))
    np.testing.assert_allclose(got[0], reward, atol=1e-5)
    assert got[1] == cost


def test_hazard_shows_the_nearest_hazard_and_the_way_to_the_goal():
    task = point_worlds.make("Hazard-v0")
    obs = task.observe(task.model, at((1.5, 0.2), (0.1, 0.2), (-1, 3)))
    np.testing.assert_allclose(obs, [1.5, 0.2, 0.1, 0.2, -2.5, 2.8, 0.5, -0.2], atol=1e-6)


def test_a_goal_reached_is_followed_by_another():
    task = point_worlds.make("Hazard-v0")
    model = task.model.replace(noise=jnp.float32(0))
    away, there = (task.step(model, at((3, 3), goal=g), STILL) for g in ((0, 3), (3, 3.2)))
    np.testing.assert_array_equal(away[0].goal, [0, 3])
    assert there[1].reward > 4.9 and np.abs(there[0].goal - jnp.array([3, 3.2])).max() > 0.01
    assert np.abs(there[0].goal).max() <= point_worlds.FIELD
    np.testing.assert_allclose(there[1].obs[4:6], there[0].goal - there[0].position, atol=1e-6)


def test_motion_by_hand(task):
    """v' = (v + 0.1 (10 a - v)), p' = p + 0.1 v', for a mass of 1 kg; twice as slow for 2 kg."""
    calm = task.model.replace(noise=jnp.float32(0))
    state = at((3.0, -3.5), (1.0, 2.0), (-3, -3))
    after, timestep = task.step(calm, state, np.array([0.5, -9.0]))  # clipped to -1
    np.testing.assert_allclose(after.velocity, [1.4, 0.8], atol=1e-6)
    np.testing.assert_allclose(after.position, [3.14, -3.42], atol=1e-6)
    np.testing.assert_array_equal(timestep.obs, task.observe(calm, after))
    heavy, _ = task.step(calm.replace(mass=jnp.float32(2)), state, np.array([0.5, -1.0]))
    np.testing.assert_allclose(heavy.velocity, [1.2, 1.4], atol=1e-6)


def test_gusts_differ_by_step_and_episode_and_have_their_size(task):
    keys = jax.random.split(jax.random.key(0), 500)
    states = jax.vmap(task.reset, in_axes=(None, 0))(task.model, keys)

    def run(state):
        def body(state, _):
            after, _ = task.step(task.model, state, STILL)
            return after, after.velocity - 0.9 * state.velocity

        return jax.lax.scan(body, state, length=20)[1]

    gusts = np.asarray(jax.jit(jax.vmap(run))(states))  # [500, 20, 2]
    np.testing.assert_allclose(gusts.std((0, 1)), 0.3 * np.sqrt(0.1), rtol=0.03)
    assert np.abs(gusts.mean((0, 1))).max() < 0.003
    flat = gusts.reshape(500, -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(40)).max() < 0.25
    assert len(np.unique(gusts)) > 0.99 * gusts.size


def test_a_state_may_be_stepped_twice_with_the_same_outcome(task):
    state = task.reset(task.model, jax.random.key(3))
    one, two = (task.step(task.model, state, STILL) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_starts_fill_their_box_and_episodes_are_truncated_only():
    task = point_worlds.make("Circle-v0", max_episode_steps=7)
    keys = jax.random.split(jax.random.key(0), (2, 500))
    for draw, width, row in ((task.reset, 0.5, 0), (task.explore, 1.0, 1)):
        states = jax.vmap(draw, in_axes=(None, 0))(task.model, keys[row])
        assert 0.98 * width < np.abs(states.position).max() <= width
        assert not states.velocity.any() and not states.steps.any()
    total, steps = episode_return(
        task,
        lambda obs: obs[:2] * 0,
        task.model,
        states.__class__(*(x[0] for x in jax.tree.leaves(states))),
        length=20,
    )
    assert steps == 7 and np.isfinite(total)


def test_state_keeps_its_types_and_starts_anew(task):
    state = task.reset(task.model, jax.random.key(0))
    after, timestep = jax.eval_shape(task.step, task.model, state, jnp.zeros(2))
    kinds = [[(x.shape, x.dtype) for x in jax.tree.leaves(y)] for y in (state, after)]
    assert kinds[0] == kinds[1]
    assert timestep.obs.shape == task.obs_scale.shape == (task.obs_size,)
    assert [x.dtype for x in timestep] == ["float32"] * 3 + ["bool"] * 2
    after, timestep = task.step(task.model, state.replace(steps=jnp.int32(99)), STILL)
    assert timestep.truncated and not timestep.terminated
    fresh = auto_reset(task, task.model, after, timestep, jax.random.key(9))
    assert fresh.steps == 0 and (fresh.words != state.words).any()


def test_the_body_may_be_uncertain(task):
    box = make_set(task, {"mass": (0.5, 2), "noise": (0, 1)})
    model = box.apply(task.model, jnp.array([0.5, 0.0]))
    assert model.mass == 0.5 and model.noise == 0 and model.drag == 1


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("Circle-v1", 10, "Did you mean 'Circle-v0'"),
        ("Run-v0", 0, "max_episode_steps=0 is out of range"),
    ],
)
def test_errors(name, steps, message):
    with pytest.raises(UserError, match=message):
        point_worlds.make(name, steps)
