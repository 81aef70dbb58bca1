# SPDX-License-Identifier: Apache-2.0
"""The pendulum in closed form against MuJoCo C and MJX."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import host
from jaxsafe.envs import pendulum as closed_form
from jaxsafe.envs.types import State
from jaxsafe.envs.uncertainty import make_set, scenario

from .recordings import (
    OMEGAS,
    check_rewards_and_endings,
    plan,
    replay,
    states,
    upto_end,
)

RANGES = {"pole_mass": (1, 31), "cart_mass": (1, 11)}
ROWS = 1000


@pytest.fixture(scope="module")
def analytic():
    """(task, set) in 32 bits."""
    return scenario("InvertedPendulum-2", engine="analytic")


@pytest.fixture(scope="module")
def in_64_bits(gym_v4):
    with jax.enable_x64(True):
        task = closed_form.make("InvertedPendulum-v4")
        return replay(task, make_set(task, RANGES), gym_v4)


@pytest.fixture(scope="module")
def in_32_bits(analytic, gym_v5):
    return replay(*analytic, gym_v5)


def test_64_bit_steps_equal_gymnasium(in_64_bits, gym_v4):
    """Open loop in plan `fall`, closed loop in the others; `rail` runs into the rail's end."""
    assert in_64_bits.obs.dtype == np.float64
    error = np.abs(in_64_bits.obs - gym_v4.obs).max(-1)
    assert error[:, 0].max() < 1e-13  # one step; measured 4e-15
    assert error[plan("balance")].max() < 1e-12  # 200 steps held up; measured 2e-14
    assert error[plan("rail")].max() < 1e-12  # 200 steps, most of them after the end; 1e-14
    assert error[upto_end(gym_v4)].max() < 1e-12  # measured 2e-14
    assert error.max() < 1e-5  # falls go on to the hinge's limit, past chaos; measured 2e-7


def test_32_bit_steps_stay_near_gymnasium(in_32_bits, gym_v5):
    assert in_32_bits.obs.dtype == np.float32
    error = np.abs(in_32_bits.obs - gym_v5.obs).max(-1)
    assert error[:, 0].max() < 3e-6  # one step; measured 3e-7
    assert error[plan("balance")].max() < 3e-4  # 200 steps held up; measured 4e-5
    assert error[upto_end(gym_v5)].max() < 3e-4  # falls and rail; measured 4e-5


def test_rewards_and_endings_equal_gymnasium(in_64_bits, gym_v4, in_32_bits, gym_v5):
    check_rewards_and_endings(in_64_bits, gym_v4, reward_at_end=1)
    check_rewards_and_endings(in_32_bits, gym_v5, reward_at_end=0)


class Scattered:
    """States anywhere, past both limits as well, with omegas and actions of their own."""

    def __init__(self):
        rng = np.random.default_rng(0)
        low, high = np.array(list(RANGES.values())).T
        self.omegas = rng.uniform(low, high, (ROWS, 2))
        corners = ROWS // 4
        self.omegas[:corners] = np.where(rng.integers(0, 2, (corners, 2)), high, low)
        start = [[1.1, 1.8, 4.0, 8.0]] * rng.uniform(-1, 1, (ROWS, 4))
        start[: ROWS // 10, :2] = np.sign(start[: ROWS // 10, :2]) * [1.02, 1.6]
        self.start = start
        self.actions = rng.uniform(-4, 4, (ROWS, 1))

    def step(self, task):
        box = make_set(task, RANGES)
        models, axes = box.batched(task.model, jnp.asarray(self.omegas))
        program = jax.jit(jax.vmap(task.step, in_axes=(axes, 0, 0)))
        return program(models, states(self.start), jnp.asarray(self.actions))[1].obs

    def step_mujoco(self, task):
        """MuJoCo C with its solver's tolerance at zero; also how many limits push in a row."""
        model = make_set(task, RANGES).apply_host(task.host.model, self.omegas[0])
        model.opt.tolerance = 0
        data, out, limits = mujoco.MjData(model), [], []
        for omega, start, action in zip(self.omegas, self.start, self.actions, strict=True):
            model.body_mass[[2, 1]] = omega
            mujoco.mj_resetData(model, data)
            data.qpos[:], data.qvel[:], data.ctrl[:] = start[:2], start[2:], action
            mujoco.mj_forward(model, data)
            limits.append((data.efc_force > 0).sum())
            mujoco.mj_step(model, data, nstep=task.host.spec.frame_skip)
            out.append([*data.qpos, *data.qvel])
        return np.array(out), np.array(limits)


@pytest.fixture(scope="module")
def scattered():
    return Scattered()


def test_one_step_from_anywhere_equals_mujoco_c(scattered):
    with jax.enable_x64(True):
        task = closed_form.make()
        ours = scattered.step(task)
    theirs, limits = scattered.step_mujoco(task)
    assert [(limits == n).sum() > 20 for n in (0, 1, 2)] == [True] * 3
    error = np.abs(np.asarray(ours) - theirs).max(1)
    assert error.max() < 1e-12  # measured 3e-14


def test_one_step_from_random_states_equals_mjx(scattered, analytic, pendulum, compiled_step):
    ours, theirs = [], []
    step = jax.jit(analytic[0].step)
    for i in range(64):
        state = jax.tree.map(lambda x, i=i: x[i], states(scattered.start))
        action = jnp.asarray(scattered.actions[i], jnp.float32)
        for task, program, out in (
            (*analytic[:1], step, ours),
            (pendulum[0], compiled_step, theirs),
        ):
            model = pendulum[1].apply(task.model, scattered.omegas[i])
            out.append(program(model, state, action)[1].obs)
    error = np.abs(np.subtract(ours, theirs)) / np.maximum(1, np.abs(theirs))
    # In 32 bits both; measured 9e-6, half of them within 2e-7.
    assert error.max() < 1e-4 and np.median(error.max(1)) < 1e-6


def test_everything_but_the_model_and_the_step_is_mjx_s(analytic):
    task, box = analytic
    mjx, mjx_box = scenario("InvertedPendulum-2")
    assert box == mjx_box
    np.testing.assert_array_equal(box.nominal(task.model), mjx_box.nominal(mjx.model))
    for ours, theirs in ((task.reset, mjx.reset), (task.explore, mjx.explore)):
        a, b = ours(task.model, jax.random.key(3)), theirs(mjx.model, jax.random.key(3))
        jax.tree.map(np.testing.assert_array_equal, a, b)
        np.testing.assert_array_equal(task.observe(task.model, a), mjx.observe(mjx.model, b))
    same = ("name", "obs_size", "action_size", "max_episode_steps", "parameters")
    assert all(getattr(task, n) == getattr(mjx, n) for n in same)
    assert task.host.spec == mjx.host.spec


def test_a_policy_scores_the_same_in_mujoco_c(analytic):
    """The host's model takes the same omegas, and holds the same policy up."""
    task, box = analytic
    gains = np.array([0.2024, 15.0148, 0.3707, 0.5322])
    push = lambda obs: np.clip(obs @ gains, -3, 3)[..., None]  # noqa: E731
    scores = host.score(task, push, box, OMEGAS[1:], episodes=1, seed=0)
    assert (scores.returns == 1000).all()


def test_state_keeps_its_types_so_that_it_can_be_a_scan_carry(analytic):
    for x64 in (False, True):
        with jax.enable_x64(x64):
            task = closed_form.make()
            state = jax.eval_shape(task.reset, task.model, jax.random.key(0))
            after, timestep = jax.eval_shape(task.step, task.model, state, jnp.zeros(1))
        kinds = [
            [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(y)] for y in (state, after)
        ]
        assert kinds[0] == kinds[1] and jax.tree.structure(state) == jax.tree.structure(after)
        assert timestep.obs.shape == (4,) and timestep.obs.dtype == state.qpos.dtype


def test_any_actions_leave_states_finite(analytic):
    """A thousand pushes of infinite force, cut to full force, this way and that at every corner."""
    task, box = analytic
    rng = np.random.default_rng(1)
    rows = 200
    models, axes = box.batched(
        task.model, jnp.asarray(np.repeat(OMEGAS, rows // 5, 0), jnp.float32)
    )
    flips = rng.random((1000, rows, 1)) < rng.choice([0.02, 0.1, 0.5], (1, rows, 1))
    actions = np.where(np.cumsum(flips, 0) % 2, np.inf, -np.inf).astype(np.float32)

    def run(model, state, plan):
        return jax.lax.scan(lambda s, u: task.step(model, s, u), state, plan)[1].obs

    program = jax.jit(jax.vmap(run, in_axes=(axes, 0, 1)))
    start = jnp.asarray(rng.uniform(-1, 1, (rows, 4)), jnp.float32)
    path = np.abs(program(models, states(start), jnp.asarray(actions)))
    assert np.isfinite(path).all()
    assert 1 < path[..., 0].max() < 2 and path[..., 1].max() < 2.5
    broken = task.step(
        task.model, jax.tree.map(lambda x: x[0], states(start)), jnp.array([jnp.nan])
    )
    assert broken[1].terminated  # as in MJX: a NaN ends the episode


def test_time_limit_truncates_without_terminating(analytic):
    task, _ = analytic
    state = State(jnp.zeros(2), jnp.zeros(2), jnp.zeros(2), jnp.int32(998))
    state, before = task.step(task.model, state, jnp.zeros(1))
    _, at = task.step(task.model, state, jnp.zeros(1))
    assert not before.truncated and at.truncated and not at.terminated


def test_a_gradient_passes_through_the_rail(analytic):
    """A closed form is differentiable; forces of the limit are no exception."""
    task, _ = analytic

    def end(mass):
        model = task.model.replace(body_mass=task.model.body_mass.at[2].set(mass))
        state = State(jnp.array([1.001, 0.05]), jnp.array([1.0, 0.0]), jnp.zeros(2), jnp.int32(0))
        return task.step(model, state, jnp.ones(1))[0].qvel[1]

    slope = jax.grad(end)(5.0)
    rise = (end(5.05) - end(4.95)) / 0.1
    assert jnp.isfinite(slope) and abs(slope - rise) < 0.02 * abs(rise)


def test_errors_name_the_choice():
    with pytest.raises(UserError, match="engine='analytic' has no Hopper: choose engine='mjx'"):
        scenario("Hopper-1", engine="analytic")
    with pytest.raises(UserError, match=r"engine='analitic' is unknown. Did you mean 'analytic'"):
        scenario("InvertedPendulum-1", engine="analitic")
    with pytest.raises(UserError, match="'InvertedPendulum-v2' is unknown"):
        scenario("InvertedPendulum-1", "v2", engine="analytic")
