# SPDX-License-Identifier: Apache-2.0
import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs.mujoco_tasks import SPECS, make
from jaxsafe.envs.types import State

from .recordings import (
    OMEGAS,
    STEPS,
    check_rewards_and_endings,
    gymnasium_env,
    plan,
    states,
    upto_end,
)

# What may differ: colours, and the memory set aside (their MJCF asks for a stack of its own).
NOT_PHYSICS = {"geom_rgba", "narena"}


def start(*values, steps=0):
    return jax.tree.map(lambda x: x[0], states(np.array([values], np.float32), steps))


class TestParity:
    def test_the_recordings_hold_what_they_are_for(self, gym_v5):
        first = gym_v5.first()
        assert (first[plan("balance")] == STEPS).all()
        assert (first[plan("fall")] < 50).all() and (first[plan("rail")] < 50).all()
        assert (np.abs(gym_v5.obs[plan("rail"), :, 0]).max(1) > 1.005).all()
        assert len(gym_v5.obs) == 3 * len(OMEGAS)

    def test_64_bit_steps_equal_gymnasium_v4(self, mjx64, gym_v4):
        assert mjx64.obs.dtype == np.float64
        error = np.abs(mjx64.obs - gym_v4.obs).max(-1)
        assert error[:, 0].max() < 1e-12  # one step; measured 7e-15
        assert error[plan("balance")].max() < 1e-11  # 200 steps held up; measured 7e-14
        assert error[upto_end(gym_v4)].max() < 1e-11  # falls and rail; measured 7e-14
        assert error.max() < 1e-4  # on through the fall, where errors grow; measured 2e-7

    def test_32_bit_steps_stay_near_gymnasium_v5(self, mjx32, gym_v5):
        assert mjx32.obs.dtype == np.float32
        error = np.abs(mjx32.obs - gym_v5.obs).max(-1)
        assert error[:, 0].max() < 1e-5  # one step; measured 5e-7
        assert error[plan("balance")].max() < 1e-3  # 200 steps held up; measured 2e-5
        assert error[upto_end(gym_v5)].max() < 5e-3  # falls and rail; measured 5e-4

    def test_rewards_and_endings_equal_gymnasium(self, mjx32, gym_v5, mjx64, gym_v4):
        check_rewards_and_endings(mjx32, gym_v5, reward_at_end=0)
        check_rewards_and_endings(mjx64, gym_v4, reward_at_end=1)

    @pytest.mark.parametrize("version", ["v4", "v5"])
    def test_compiled_model_equals_gymnasium(self, version):
        theirs, ours = gymnasium_env(version).model, make(f"InvertedPendulum-{version}").host.model
        names = [n for n in dir(theirs) if not n.startswith("_") and n not in NOT_PHYSICS]
        compared = 0
        for name in names:
            value = getattr(theirs, name)
            if isinstance(value, int | float | np.ndarray):
                np.testing.assert_array_equal(getattr(ours, name), value, err_msg=name)
                compared += 1
        for group in ("opt", "stat"):
            for name in (n for n in dir(getattr(theirs, group)) if not n.startswith("_")):
                value = getattr(getattr(theirs, group), name)
                np.testing.assert_array_equal(getattr(getattr(ours, group), name), value, name)
        assert compared > 300

    @pytest.mark.parametrize("version", ["v4", "v5"])
    def test_spaces_equal_gymnasium(self, version):
        env, task = gymnasium_env(version), make(f"InvertedPendulum-{version}")
        registry = pytest.importorskip("gymnasium").envs.registration.registry
        assert task.max_episode_steps == registry[env_name(version)].max_episode_steps == 1000
        assert task.host.spec.frame_skip == env.frame_skip
        assert (task.obs_size,) == env.observation_space.shape == task.obs_scale.shape
        np.testing.assert_array_equal(task.action_low, env.action_space.low)
        np.testing.assert_array_equal(task.action_high, env.action_space.high)


def env_name(version):
    return f"InvertedPendulum-{version}"


def test_v4_and_v5_differ_only_in_the_reward():
    v4, v5 = SPECS[env_name("v4")], SPECS[env_name("v5")]
    assert dataclasses.replace(v4, name=v5.name, reward=v5.reward) == v5
    assert v4.reward is not v5.reward


def test_reset_is_within_the_noise_and_fills_it(pendulum):
    task, _ = pendulum
    keys = jax.random.split(jax.random.key(0), 4000)
    state = jax.vmap(task.reset, in_axes=(None, 0))(task.model, keys)
    obs = jax.vmap(task.observe, in_axes=(None, 0))(task.model, state)
    assert (jnp.abs(obs) <= 0.01).all()
    assert (jnp.abs(obs).max(0) > 0.0098).all() and (jnp.abs(obs.mean(0)) < 5e-4).all()
    assert not state.steps.any() and not state.qacc.any()


def test_exploring_starts_fill_their_box(pendulum):
    task, _ = pendulum
    keys = jax.random.split(jax.random.key(1), 4000)
    state = jax.vmap(task.explore, in_axes=(None, 0))(task.model, keys)
    box = np.array([0.7, 0.05, 0.3, 0.2], np.float32)
    obs = np.abs(np.concatenate([state.qpos, state.qvel], 1))
    assert (obs <= box).all() and (obs.max(0) > 0.98 * box).all()


def test_time_limit_truncates_without_terminating(pendulum, compiled_step):
    task, _ = pendulum
    idle = jnp.zeros(1)
    state, before = compiled_step(task.model, start(0, 0, 0, 0, steps=998), idle)
    _, at = compiled_step(task.model, state, idle)
    assert not before.truncated and at.truncated and not at.terminated and at.reward == 1
    _, both = compiled_step(task.model, start(0, 0.3, 0, 0, steps=999), idle)
    assert both.truncated and both.terminated and both.reward == 0


def test_actions_are_clipped(pendulum, compiled_step):
    task, _ = pendulum
    at_limit, beyond, below = (
        compiled_step(task.model, start(0, 0, 0, 0), jnp.array([u]))[1].obs for u in (3.0, 9.0, 2.0)
    )
    np.testing.assert_array_equal(at_limit, beyond)
    assert (at_limit != below).all()


def test_non_finite_state_terminates(pendulum, compiled_step):
    task, _ = pendulum
    _, timestep = compiled_step(task.model, start(np.nan, 0, 0, 0), jnp.zeros(1))
    assert timestep.terminated and timestep.reward == 0
    qpos = np.array([[0.0, 0.19], [0.0, 0.21], [0.0, -0.21], [np.inf, 0.0]])
    ended = task.host.spec.terminated(np, qpos, np.zeros((4, 2)))
    np.testing.assert_array_equal(ended, [False, True, True, True])


@pytest.mark.slow
def test_step_without_jit_equals_step_with_jit(pendulum, compiled_step):
    task, _ = pendulum
    state, action = start(0.01, -0.02, 0.1, 0.2), jnp.array([0.7])
    eager, compiled = (f(task.model, state, action) for f in (task.step, compiled_step))
    for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_state_keeps_its_types_so_that_it_can_be_a_scan_carry(pendulum):
    task, _ = pendulum
    state = task.reset(task.model, jax.random.key(0))
    after, timestep = jax.eval_shape(task.step, task.model, state, jnp.zeros(1))
    assert isinstance(after, State)
    kinds = [[(x.shape, x.dtype) for x in jax.tree.leaves(y)] for y in (state, after)]
    assert kinds[0] == kinds[1]
    assert timestep.obs.shape == (task.obs_size,) and timestep.reward.shape == ()


@pytest.mark.slow
def test_the_shorter_line_search_changes_nothing(pendulum):
    """Three steps from and into the rails, where the solver has work to do."""
    task, box = pendulum
    rng, num = np.random.default_rng(0), 500
    low, high = np.array([0.9, -0.1, -1, -1]), np.array([1.05, 0.1, 1, 1])
    begin = states(rng.uniform(low, high, (num, 4)).astype(np.float32))
    models, axes = box.batched(task.model, jnp.asarray(rng.uniform(box.low, box.high, (num, 2))))
    actions = jnp.asarray(rng.uniform(-3, 3, (num, 1)), jnp.float32)

    def run(ls_iterations):
        change = lambda tree: tree.replace(opt=tree.opt.replace(ls_iterations=ls_iterations))  # noqa: E731
        step, state = jax.vmap(task.step, in_axes=(change(axes), 0, 0)), begin
        for _ in range(3):
            state, _ = step(change(models), state, actions)
        return state

    few, many = models.opt.ls_iterations, int(task.host.model.opt.ls_iterations)
    assert few < many == 50
    short, long = (jax.jit(run, static_argnums=0)(n) for n in (few, many))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), short, long)
    assert np.mean(np.asarray(short.qpos)[:, 0] > 1.0) > 0.1


def test_model_is_committed_to_no_device(pendulum):
    assert not any(leaf.committed for leaf in jax.tree.leaves(pendulum[0].model))


def test_unknown_task_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'InvertedPendulum-v5'") as error:
        make("InvertedPendulum-v6")
    assert "\n" not in str(error.value)


def test_import_prints_nothing():
    code = "import jaxsafe.envs.mujoco_tasks"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == ""
