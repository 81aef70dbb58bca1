# SPDX-License-Identifier: Apache-2.0
"""gymnax's tasks against gymnax itself and against Gymnasium."""

import subprocess
import sys

import gymnax as theirs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import gymnax, host
from jaxsafe.envs.rollout import auto_reset, episode_return
from jaxsafe.envs.scenarios import GYMNAX_SCENARIOS, SCENARIOS
from jaxsafe.envs.types import AdaptedState
from jaxsafe.envs.uncertainty import make_set, scenario

OMEGAS = np.array([[1, 1, 10], [0.5, 0.5, 5], [1.5, 0.5, 15], [0.5, 1.5, 15], [1.5, 1.5, 5]])
STEPS = 200


@pytest.fixture(scope="module")
def pendulum3():
    return scenario("Pendulum-3")


@pytest.fixture(scope="module", params=gymnax.SPECS)
def task(request):
    return gymnax.make(request.param)


def batch(task, count, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.vmap(task.reset, in_axes=(None, 0))(task.model, keys)


def pendulum_at(theta, speed):
    """The state of a pendulum at an angle and a speed."""
    task = gymnax.make("Pendulum-v1")
    state = task.reset(task.model, jax.random.key(0))
    inner = state.inner.replace(theta=jnp.asarray(theta), theta_dot=jnp.asarray(speed))
    return state.replace(inner=inner)


def test_reset_and_steps_have_gymnax_s_bits(task):
    """Operation by operation: XLA rounds the two programs, which differ, in ways of its own."""
    env, params = theirs.make(task.name)
    ours = task.reset(task.model, jax.random.key(1))
    obs, state = env.reset(jax.random.key(1), params)
    np.testing.assert_array_equal(task.observe(task.model, ours), obs)
    keys = jax.random.split(jax.random.key(2), 50)
    draws = np.random.default_rng(0).uniform(-1, 1, (50, 1))
    with jax.disable_jit():
        for key, draw in zip(keys, draws, strict=True):
            action = jnp.asarray(draw * task.action_high, jnp.float32)
            ours, timestep = task.step(task.model, ours, action)
            obs, state, reward, terminated, truncated, _ = env.step(key, state, action, params)
            np.testing.assert_array_equal(timestep.obs, obs)
            assert timestep.reward == reward and not timestep.cost
            assert timestep.terminated == terminated and timestep.truncated == truncated
    jax.tree.map(np.testing.assert_array_equal, ours.inner, state)


def test_pendulum_equals_gymnasium_at_other_masses_lengths_and_gravities(pendulum3):
    module = pytest.importorskip("gymnasium.envs.classic_control.pendulum")
    task, box = pendulum3
    env, step, rng = module.PendulumEnv(), jax.jit(task.step), np.random.default_rng(1)
    errors = []
    for omega in OMEGAS:
        env.reset(seed=0)
        env.m, env.l, env.g = omega
        theta, speed = rng.uniform([-3, -1], [3, 1]).astype(np.float32)
        env.state = np.array([theta, speed], np.float64)
        state, model = pendulum_at(theta, speed), box.apply(task.model, omega)
        for action in rng.uniform(-2.5, 2.5, (STEPS, 1)):
            state, timestep = step(model, state, jnp.asarray(action, jnp.float32))
            obs, reward, terminated, _, _ = env.step(action)
            errors.append([*np.abs(timestep.obs - obs), abs(timestep.reward - reward)])
            assert terminated == timestep.terminated
    errors = np.reshape(errors, (len(OMEGAS), STEPS, 4))
    assert errors[:, 0].max() < 5e-6  # one step in 32 bits; measured 6e-7
    assert errors[:, :20].max() < 5e-5  # measured 5e-6
    assert errors.max() < 5e-3  # 200 steps; measured 6e-4
    assert timestep.truncated and gymnax.make("Pendulum-v1").max_episode_steps == STEPS


def test_every_parameter_named_changes_a_step_and_only_its_field(task):
    state = batch(task, 1)
    state = jax.tree.map(lambda x: x[0], state)
    action = jnp.asarray(task.action_high) / 2
    obs = task.step(task.model, state, action)[1].obs
    for name, leaf in task.parameters.items():
        box = make_set(task, {name: (1e-3, 20)})
        value = box.nominal(task.model)
        np.testing.assert_allclose(value, float(getattr(task.model, leaf.field)), rtol=1e-7)
        model = box.apply(task.model, 1.1 * value)
        assert not np.array_equal(task.step(model, state, action)[1].obs, obs), name
        same = jax.tree.map(np.array_equal, model, task.model)
        assert [f for f, x in vars(same).items() if not x] == [leaf.field]


def test_pendulum_s_other_fields_are_limits():
    """So mass, length, gravity and the time step are all there is to its motion."""
    task = gymnax.make("Pendulum-v1")
    limits = {"max_speed", "max_torque", "max_steps_in_episode"}
    assert set(vars(task.model)) == limits | {x.field for x in task.parameters.values()}
    fast = task.model.replace(max_speed=jnp.float32(4))
    assert task.step(fast, pendulum_at(1.0, 4.5), jnp.zeros(1))[1].obs[2] == 4


def test_batched_rows_step_as_their_own_models(pendulum3):
    task, box = pendulum3
    omegas = box.sample(jax.random.key(5), (64,))
    models, axes = box.batched(task.model, omegas)
    assert (axes.m, axes.l, axes.g, axes.dt) == (0, 0, 0, None)
    state = batch(task, 64)
    after, _ = jax.jit(jax.vmap(task.step, in_axes=(axes, 0, None)))(models, state, jnp.ones(1))
    for row in (0, 31, 63):
        own = jax.tree.map(lambda x, row=row: x[row], state)
        alone, _ = task.step(box.apply(task.model, omegas[row]), own, jnp.ones(1))
        np.testing.assert_allclose(after.inner.theta_dot[row], alone.inner.theta_dot, atol=2e-6)
    assert len(np.unique(after.inner.theta_dot)) == 64


def test_the_time_limit_truncates_and_nothing_starts_anew_inside(task):
    state = batch(task, 1)
    state = jax.tree.map(lambda x: x[0], state)
    last = task.max_episode_steps - 2
    state = state.replace(inner=state.inner.replace(time=jnp.int32(last)), steps=jnp.int32(last))
    state, before = task.step(task.model, state, jnp.zeros(1))
    after, at = task.step(task.model, state, jnp.zeros(1))
    assert not before.truncated and at.truncated and not at.terminated
    assert after.steps == task.max_episode_steps == after.inner.time
    np.testing.assert_array_equal(at.obs, task.observe(task.model, after))
    fresh = auto_reset(task, task.model, after, at, jax.random.key(9))
    assert fresh.steps == 0 and fresh.inner.time == 0


def test_the_mountain_car_terminates_at_its_goal_and_is_not_truncated():
    task = gymnax.make("MountainCarContinuous-v0")
    state = jax.tree.map(lambda x: x[0], batch(task, 1))
    inner = state.inner.replace(position=jnp.float32(0.44), velocity=jnp.float32(0.05))
    _, timestep = task.step(task.model, state.replace(inner=inner), jnp.array([7.0]))
    assert timestep.terminated and not timestep.truncated
    assert abs(timestep.reward - 99.9) < 1e-4  # the action is clipped before it costs


def test_state_keeps_its_types_so_that_it_can_be_a_scan_carry(task):
    kinds = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            own = gymnax.make(task.name)
            state = jax.eval_shape(own.reset, own.model, jax.random.key(0))
            after, timestep = jax.eval_shape(own.step, own.model, state, jnp.zeros(1))
        for tree in (state, after):
            kinds.append([(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)])
        assert timestep.reward.dtype == timestep.cost.dtype == np.float32
        assert timestep.obs.shape == (own.obs_size,) == own.obs_scale.shape
    assert kinds[0] == kinds[1] and kinds[2] == kinds[3] and kinds[0] != kinds[2]


def test_episodes_score_and_gradients_pass(pendulum3):
    task, box = pendulum3
    still = pendulum_at(jnp.float32(0), jnp.float32(0))

    def score(omega):
        model = box.apply(task.model, omega)
        return episode_return(task, lambda obs: jnp.array([1.0]), model, still, length=3)[0]

    assert score(jnp.array([1.0, 1.0, 10.0])) < score(jnp.array([1.5, 1.5, 10.0])) < 0
    slope = jax.grad(score)(jnp.array([1.0, 1.0, 10.0]))
    assert (slope[:2] > 0).all() and slope[2] < 0  # heavier, longer and weaker gravity fall less


def test_pendulum_resets_cover_the_circle():
    state = batch(gymnax.make("Pendulum-v1"), 2000)
    assert state.inner.theta.min() < -3.1 and state.inner.theta.max() > 3.1
    assert jnp.abs(state.inner.theta_dot).max() <= 1 and isinstance(state, AdaptedState)


def test_pendulum_3_stands_beside_the_nineteen(pendulum3):
    task, box = pendulum3
    assert len(SCENARIOS) == 19 and list(GYMNAX_SCENARIOS) == ["Pendulum-3"]
    assert task.name == "Pendulum-v1"
    assert box.labels == ("mass (kg)", "length (m)", "gravity (m/s^2)")
    assert (box.low, box.high) == ((0.5, 0.5, 5), (1.5, 1.5, 15))
    np.testing.assert_array_equal(box.nominal(task.model), [1, 1, 10])


def test_errors_name_the_choice(pendulum3):
    for change in ({"version": "v4"}, {"flavour": "rrls"}, {"engine": "analytic"}):
        with pytest.raises(UserError, match="Pendulum-3 has no choice of"):
            scenario("Pendulum-3", **change)
    with pytest.raises(UserError, match=r"scenario='Pendulm-3' is unknown. Did you mean 'Pendulum"):
        scenario("Pendulm-3")
    with pytest.raises(UserError, match="gymnax task='CartPole-v1' is unknown"):
        gymnax.make("CartPole-v1")
    task, box = pendulum3
    with pytest.raises(UserError, match="Pendulum-v1 has no model in MuJoCo C"):
        host.score(task, None, box, OMEGAS, episodes=1, seed=0)
    with pytest.raises(UserError, match="Pendulum-v1 has no model in MuJoCo C"):
        host.initial_states(task, 1, seed=0)


def test_uncertainty_alone_does_not_import_gymnax():
    code = "import sys, jaxsafe.envs.uncertainty; print('gymnax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split()[-1] == "False"
