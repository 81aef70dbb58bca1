# SPDX-License-Identifier: Apache-2.0
"""The search: schedules, what moves when, first steps, and that it finds what works."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import algorithm, estimators, losses, optimizers
from jaxsafe.advantage_nas.config import NB201, PTB, Config, EstimatorConfig
from tests.advantage_nas.worlds import NETWORK, batch

CONFIG = Config(epochs=4, freeze_epochs=1, steps_per_epoch=3)


def with_method(method, config=CONFIG, **changes):
    estimator = dataclasses.replace(config.estimator, method=method)
    return dataclasses.replace(config, estimator=estimator, **changes)


def run(config, steps, seed=0):
    step = jax.jit(lambda s, b: algorithm.update(s, b, config, NETWORK))
    states = [jax.jit(lambda k: algorithm.init(k, config, NETWORK))(jax.random.key(seed))]
    metrics = []
    for i in range(steps):
        state, row = step(states[-1], batch(jax.random.key(1000 + i)))
        states.append(state)
        metrics.append(row)
    return states, metrics


def test_published_rates():
    """Page, section 3: the weights' rate in epoch 50, theta's in epoch 70."""
    assert optimizers.weight_rate(NB201)(50 * 390) == pytest.approx(0.04132, abs=5e-6)
    theta = optimizers.theta_rate(NB201)
    assert theta(jnp.int32(20 * 390)) == pytest.approx(1.5e-4)
    assert theta(jnp.int32(20 * 390 + 389)) == pytest.approx(1.5e-4)  # moves once in an epoch
    assert theta(jnp.int32(0)) == pytest.approx(3e-4)
    assert optimizers.weight_rate(PTB)(jnp.int32(0)) == pytest.approx(20.0)
    level = dataclasses.replace(NB201, weight_schedule="constant")
    assert optimizers.weight_rate(level)(jnp.int32(80 * 390)) == pytest.approx(0.1)


def test_adams_first_step_is_the_learning_rate():
    config = dataclasses.replace(CONFIG, theta_lr=3e-4)
    optimizer = optimizers.theta_optimizer(config)
    theta = jnp.zeros((2, 2))
    grad = jnp.array([[1e-3, -2.0], [0.0, 5.0]])
    move, _ = optimizer.update(grad, optimizer.init(theta), theta)
    np.testing.assert_allclose(move, [[-3e-4, 3e-4], [0.0, -3e-4]], rtol=2e-3)


def test_the_weights_step_is_clip_decay_and_nesterov():
    config = dataclasses.replace(CONFIG, weight_lr=0.1, weight_decay=0.5, weight_clip=1.0)
    optimizer = optimizers.weight_optimizer(config)
    w, velocity = np.array([1.0, -2.0]), np.zeros(2)
    state = optimizer.init(jnp.asarray(w))
    for gradient in ([3.0, 4.0], [0.1, 0.2]):
        g = np.array(gradient) / max(1.0, np.linalg.norm(gradient)) + 0.5 * w
        velocity = 0.9 * velocity + g
        expected = w - 0.1 * (g + 0.9 * velocity)
        move, state = optimizer.update(jnp.array(gradient), state, jnp.asarray(w, jnp.float32))
        np.testing.assert_allclose(w + move, expected, rtol=1e-5)
        w = expected


def test_theta_rests_while_frozen_and_the_weights_never_do():
    states, metrics = run(CONFIG, 5)
    for before, after, row in zip(states[:-1], states[1:], metrics, strict=True):
        frozen = before.step < CONFIG.freeze_steps
        assert frozen == bool(jnp.array_equal(before.theta, after.theta))
        assert (row["theta/loss"] == 0) == frozen
        assert not jnp.array_equal(before.weights["head"], after.weights["head"])
        # Each stream hands on its own carry.
        assert after.carry.train == before.carry.train + 1
        assert after.carry.valid == before.carry.valid + (0 if frozen else 1)
    assert states[-1].estimator.step == 2 and states[-1].step == 5


def test_one_step_is_the_estimate_and_the_gradient_done_by_hand():
    config = dataclasses.replace(CONFIG, freeze_epochs=0)
    states, _ = run(config, 1)
    start, after = states
    minibatch = batch(jax.random.key(1000))
    words = [jax.random.key_data(k) for k in jax.random.split(jax.random.fold_in(start.key, 0))]
    draw, loss_key = jax.random.split(jax.random.wrap_key_data(words[0]))
    loss = losses.of_network(NETWORK, start.weights, minibatch.valid, 0, loss_key)
    grad, _, info = estimators.estimate(
        draw, start.theta, loss, start.estimator, algorithm.estimator_config(config)
    )
    np.testing.assert_allclose(after.theta - start.theta, -0.03 * np.sign(grad), atol=1e-5)
    np.testing.assert_array_equal(after.best.choice, info.choice)
    assert after.best.loss == pytest.approx(float(info.loss), rel=1e-5)


@pytest.mark.parametrize("method", ["counterfactual", "rloo", "gdas", "darts", "proxyless"])
def test_other_methods_take_steps_too(method):
    states, metrics = run(with_method(method, freeze_epochs=0), 2)
    assert not jnp.array_equal(states[0].theta, states[-1].theta)
    assert all(np.isfinite(v) for row in metrics for v in row.values())
    assert "weights/accuracy" in metrics[0]


def test_random_search_stays_uniform_under_l2_too():
    states, _ = run(with_method("random", freeze_epochs=0, theta_l2=0.1), 2)
    np.testing.assert_array_equal(states[0].theta, states[-1].theta)


def test_theirs_averages_the_losses_of_both_streams():
    estimator = EstimatorConfig(method="reinforce", loss_baseline="after")
    states, metrics = run(dataclasses.replace(CONFIG, estimator=estimator, freeze_epochs=0), 1)
    theta, weights = metrics[0]["theta/loss"], metrics[0]["weights/loss"]
    value = states[-1].estimator.loss_baseline.value
    assert value == pytest.approx(float(0.95 * theta + 0.05 * weights), rel=1e-5)


def test_the_temperature_falls_over_thetas_steps():
    config = with_method("gdas", epochs=10, freeze_epochs=4, steps_per_epoch=7)
    assert algorithm.estimator_config(config).tau_steps == 42


def test_a_search_learns_and_makes_up_its_mind():
    config = with_method("advantage", epochs=40, freeze_epochs=5, steps_per_epoch=10, theta_lr=0.05)

    def whole(key):
        def one(state, i):
            return algorithm.update(state, batch(jax.random.key(i), 32), config, NETWORK)

        return jax.lax.scan(one, algorithm.init(key, config, NETWORK), jnp.arange(400))

    state, metrics = jax.jit(whole)(jax.random.key(0))
    assert metrics["weights/loss"][-20:].mean() < 0.6 * metrics["weights/loss"][:20].mean()
    assert metrics["theta/entropy"][-1] < 0.8 * metrics["theta/entropy"][0]
    assert algorithm.most_likely(state.theta).shape == (2,)
