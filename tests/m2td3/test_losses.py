# SPDX-License-Identifier: Apache-2.0
"""The losses against the same equations written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.m2td3 import init, losses, networks


def numpy_mlp(params, x, layer_norm=False):
    """The MLP of `nn.mlp`, from its parameters alone."""
    layers = params["params"]
    count = sum(name.startswith("Dense") for name in layers)
    for i in range(count):
        dense = layers[f"Dense_{i}"]
        x = x @ np.asarray(dense["kernel"], np.float64) + np.asarray(dense["bias"], np.float64)
        if i == count - 1:
            return x
        if layer_norm:
            norm = layers[f"LayerNorm_{i}"]
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
        x = np.maximum(x, 0)
    raise AssertionError("no layers")


def numpy_q(params, config, world, obs, action, omega):
    scaled = np.asarray(obs) * np.asarray(world.obs_scale)
    inputs = np.concatenate([scaled, action, omega], axis=-1).astype(np.float64)
    output = numpy_mlp(params, inputs, config.critic_layer_norm)[..., 0]
    return config.critic_scale * output + config.critic_offset


@pytest.fixture(scope="module")
def state(config, world):
    return init(jax.random.key(0), config, world)


def test_td_target_equals_numpy(state, config, world, make_batch):
    batch = make_batch(0, (8,))
    rng = np.random.default_rng(1)
    action, omega = rng.normal(size=(8, 2)), rng.uniform(-1, 1, (8, 2))
    got = losses.td_target(
        state.target_critic, batch, jnp.float32(action), jnp.float32(omega), config, world
    )
    inputs = (config, world, batch.next_obs, action, omega)
    lower = np.minimum(
        numpy_q(state.target_critic["q1"], *inputs), numpy_q(state.target_critic["q2"], *inputs)
    )
    np.testing.assert_allclose(got, batch.reward + batch.discount * lower, atol=1e-5)


def test_terminal_transitions_do_not_bootstrap(state, config, world, make_batch):
    batch = make_batch(0, (8,))._replace(discount=jnp.zeros(8))
    got = losses.td_target(state.target_critic, batch, batch.action, batch.omega, config, world)
    np.testing.assert_array_equal(got, batch.reward)


def test_critic_loss_equals_numpy(state, config, world, make_batch):
    batch = make_batch(2, (8,))
    target = jnp.arange(8.0)
    loss, metrics = losses.critic_loss(state.critic, batch, target, config, world)
    inputs = (config, world, batch.obs, batch.action, batch.omega)
    errors = [numpy_q(state.critic[q], *inputs) - np.arange(8.0) for q in ("q1", "q2")]
    assert loss == pytest.approx(sum(np.mean(e**2) for e in errors), rel=1e-5)
    assert metrics["critic/loss"] == loss


def test_policy_reaches_but_never_passes_the_limits(state, config, world):
    obs = jax.random.normal(jax.random.key(1), (100, 3))
    both = []
    for sign in (1, -1):
        last = jax.tree.map(lambda x, s=sign: s * 1e6 * x, state.actor["params"]["Dense_2"])
        big = {"params": state.actor["params"] | {"Dense_2": last}}
        both.append(networks.policy(big, config, world, obs))
    action = jnp.concatenate(both)
    assert np.all(action >= world.action_low) and np.all(action <= world.action_high)
    np.testing.assert_allclose(action.max(0), world.action_high, atol=1e-4)
    np.testing.assert_allclose(action.min(0), world.action_low, atol=1e-4)


def test_smoothed_action_noise_is_clipped_in_units_of_half_the_range(state, config, world):
    obs = jnp.zeros((4000, 3))
    clean = networks.policy(state.actor, config, world, obs)
    noise = jax.random.normal(jax.random.key(2), (4000, 2))
    noisy = losses.smoothed_action(noise, state.actor, obs, config, world)
    half = (world.action_high - world.action_low) / 2
    shift = np.asarray((noisy - clean) / half)
    assert np.abs(shift).max() == pytest.approx(config.noise_clip, abs=1e-6)
    assert shift.std(0) == pytest.approx([config.policy_noise] * 2, rel=0.05)


def test_smoothed_omega_stays_in_the_set_and_leaves_points_alone(config, world):
    point = world.replace(omega_high=world.omega_low.at[0].set(3.0))
    omega = jnp.broadcast_to(jnp.array([0.95, 0.0]), (4000, 2))
    noise = jax.random.normal(jax.random.key(3), (4000, 2))
    noisy = losses.smoothed_omega(noise, omega, config, point)
    assert noisy[:, 0].max() == 1.0 and noisy[:, 0].min() >= 0.95 - config.target_omega_clip
    np.testing.assert_array_equal(noisy[:, 1], 0.0)


def test_raw_omega_reaches_the_critic_in_physical_units(config, world, state):
    raw = config.__class__(**{**vars(config), "normalise_omega": False})
    obs, action, omega = jnp.ones((1, 3)), jnp.ones((1, 2)), jnp.array([[-1.0, 1.0]])
    got = networks.q_value(state.critic["q1"], raw, world, obs, action, omega)
    physical = np.array([[1.0, 30.0]])
    want = numpy_q(state.critic["q1"], config, world, obs, action, physical)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_worst_candidate_is_the_least_value_and_the_last_of_equals():
    assert losses.worst_candidate(jnp.array([3.0, 1.0, 2.0])) == 1
    assert losses.worst_candidate(jnp.array([1.0, 2.0, 1.0])) == 2


def test_the_worst_case_is_a_mean_over_states_with_its_gradients(state, config, world, make_batch):
    batch = make_batch(5, (8,))
    omegas = jnp.array([[-1.0, 0.5], [0.2, 1.0], [0.9, -0.3]])
    q1 = state.critic["q1"]
    value, worst, grad_action, grad_omega = losses.worst_case(
        q1, batch.obs, batch.action, omegas, config, world
    )
    means = [
        numpy_q(q1, config, world, batch.obs, batch.action, np.tile(omega, (8, 1))).mean()
        for omega in omegas
    ]
    assert worst == np.argmin(means) and value == pytest.approx(min(means), abs=1e-5)
    want = jax.grad(losses.policy_value, argnums=(2, 3))(
        q1, batch.obs, batch.action, omegas[worst], config, world
    )
    np.testing.assert_allclose(grad_action, want[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(grad_omega, want[1], rtol=1e-4, atol=1e-7)
