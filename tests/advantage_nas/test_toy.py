# SPDX-License-Identifier: Apache-2.0
"""The toy: its network by plain loops, its identities, who learns it faster (page, 4.1, 7.7)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import toy
from jaxsafe.advantage_nas.config import EstimatorConfig
from jaxsafe.core import parallel

CONFIG = toy.ToyConfig()


@pytest.fixture(scope="module")
def state():
    return toy.init(jax.random.key(0), CONFIG)


def by_loops(net, mixture, x):
    """The output of one input `[13, 13]` in float64, channel by channel and pixel by pixel."""
    total = 0.0
    for e in range(10):
        hidden = np.zeros((4, 4))
        for k in range(10):
            kernel = np.float64(net.first[e, k]).reshape(7, 7)
            for i in range(4):
                for j in range(4):
                    window = x[2 * i : 2 * i + 7, 2 * j : 2 * j + 7]
                    hidden[i, j] += mixture[e, k] * np.sum(window * kernel)
        total += np.sum(np.tanh(hidden) * np.float64(net.second[e]).reshape(4, 4))
    return total / 10


def test_the_network_is_the_papers(state):
    x = jax.random.uniform(jax.random.key(1), (3, 13, 13), minval=-1.0)
    rng = np.random.default_rng(0)
    mixture, choice = rng.normal(size=(10, 10)), rng.integers(0, 10, 10)
    teacher = np.eye(10)[np.asarray(state.net.teacher)]
    loss = toy.losses(state.net, x)
    inputs = np.float64(x)
    for given, found in (
        (mixture, loss.dense(jnp.asarray(mixture, jnp.float32))),
        (np.eye(10)[choice], loss.sampled(jnp.ones(10), jnp.asarray(choice))),
    ):
        errors = [by_loops(state.net, given, v) - by_loops(state.net, teacher, v) for v in inputs]
        np.testing.assert_allclose(found[0], np.mean(np.square(errors)), rtol=1e-4)


def test_the_teacher_has_no_loss_and_both_forms_one_gradient(state):
    x = jax.random.uniform(jax.random.key(2), (20, 13, 13), minval=-1.0)
    loss = toy.losses(state.net, x)
    assert loss.sampled(jnp.ones(10), state.net.teacher)[0] == 0
    choice = jnp.arange(10)
    sparse = jax.grad(lambda g: loss.sampled(g, choice)[0])(jnp.ones(10))
    dense = jax.grad(lambda m: loss.dense(m)[0])(jnp.eye(10))
    np.testing.assert_allclose(sparse, jnp.diag(dense), rtol=1e-4, atol=1e-8)


def run(method, seeds=10, steps=600):
    """The 100-fold losses `[seeds, steps / 300]` and the share of correct edges at the end."""
    estimator = EstimatorConfig(method=method)
    config = dataclasses.replace(CONFIG, estimator=estimator, steps=steps)

    def whole(key):
        def part(s, i):
            return toy.chunk(s, 300 * i, 300, config)

        return jax.lax.scan(part, toy.init(key, config), jnp.arange(steps // 300))[1]

    found = jax.jit(jax.vmap(whole))(parallel.seed_keys(0, seeds))
    return 100 * np.asarray(found["toy/loss"]), np.asarray(found["toy/correct"])[:, -1]


@pytest.mark.slow
def test_advantages_are_ahead_of_reinforce_and_rloo_at_300_and_at_the_end():
    """Page, 7.7, whose networks are others; every pair of medians, at equal iterations."""
    found = {m: run(m, steps=900) for m in ("advantage", "counterfactual", "reinforce", "rloo")}
    for credit in ("advantage", "counterfactual"):
        for blind in ("reinforce", "rloo"):
            mine, theirs = (np.median(found[m][0], axis=0) for m in (credit, blind))
            assert mine[0] < 0.6 * theirs[0] and mine[-1] < theirs[-1], (credit, blind)
            assert found[credit][1].mean() > found[blind][1].mean()


def test_advantage_learns_the_toy_within_300_iterations():
    loss, correct = run("advantage", seeds=4, steps=300)
    assert np.median(loss[:, 0]) < 0.5 and correct.mean() > 0.7
