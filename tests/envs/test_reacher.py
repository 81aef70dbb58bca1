# SPDX-License-Identifier: Apache-2.0
"""The reacher arm: its geometry, its two engines, and a policy that reaches."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxsafe.envs import host, reacher


@pytest.fixture(scope="module")
def task():
    return reacher.make()


def test_observe_and_place_are_inverse():
    rng = np.random.default_rng(0)
    qpos = rng.uniform(-1, 1, (50, 4)) * [3.1, 3.1, 0.5, 0.5]
    qvel = rng.normal(size=(50, 4)) * [1, 1, 0, 0]
    obs = reacher.observe(np, qpos, qvel)
    assert obs.shape == (50, 8)
    for found, given in zip(reacher.place(np, obs), (qpos, qvel), strict=True):
        np.testing.assert_allclose(found, given, atol=1e-12)
    np.testing.assert_allclose(obs[:, 2], np.cos(qpos[:, 1]))


def test_the_tip_is_where_mujoco_has_it(task):
    data = mujoco.MjData(task.host.model)
    for qpos in ([0.5, 1.2, 0.3, -0.4], [-2.0, 0.3, 0, 0]):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(task.host.model, data)
        expected = data.geom("tip").xpos[:2]
        np.testing.assert_allclose(reacher.tip(np, data.qpos), expected, atol=1e-12)
        np.testing.assert_allclose(reacher.tip(np, data.qpos) - data.qpos[2:], expected - qpos[2:])


def test_starts_are_at_rest_all_over(task):
    keys = jax.random.split(jax.random.key(0), 500)
    states = jax.vmap(task.reset, (None, 0))(task.model, keys)
    assert not states.qvel.any()
    spread = np.abs(states.qpos).max(0)
    np.testing.assert_allclose(spread, [np.pi, np.pi, 0.55, 0.55], rtol=0.03)


def test_the_engines_agree_over_an_episode(task):
    """MJX in 32 bits against MuJoCo C: the arm is smooth, so rounding stays rounding."""
    rng = np.random.default_rng(1)
    qpos, qvel = reacher.start(rng)
    actions = np.repeat(rng.uniform(-1, 1, (10, 2)), 5, axis=0)
    theirs = host.trajectory(task, task.host.model, qpos, qvel, actions)

    @jax.jit
    def run(qpos):
        state = task.reset(task.model, jax.random.key(0)).replace(qpos=qpos)
        step = lambda state, action: task.step(task.model, state, action)  # noqa: E731
        return jax.lax.scan(step, state, jnp.asarray(actions, jnp.float32))[1]

    ours = run(jnp.asarray(qpos, jnp.float32))
    np.testing.assert_allclose(ours.obs, theirs.obs, atol=2e-4)
    np.testing.assert_allclose(ours.reward, theirs.reward, atol=2e-4)


def test_the_policy_reaches(task):
    """From any start the tip ends at the ball, and much sooner than under random actions."""
    rng, gaps = np.random.default_rng(2), []
    for _ in range(10):
        policy = lambda obs: reacher.reach(np, obs)  # noqa: E731
        path = host.episode(task, task.host.model, policy, *reacher.start(rng))
        gaps.append(np.linalg.norm(reacher.tip(np, path[-1]) - path[-1, 2:]))
        assert path.shape == (51, 4) and np.ptp(path[:, 2:], axis=0).max() == 0
    assert np.mean(gaps) < 0.02 and max(gaps) < 0.12
