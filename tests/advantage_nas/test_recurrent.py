# SPDX-License-Identifier: Apache-2.0
"""The recurrent cell is the paper's, step by step in NumPy, in all its forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import recurrent, space
from jaxsafe.core.checks import UserError

SMALL = recurrent.Language(vocabulary=11, streams=3, units=4, dropout=0.0)
CHOICE = (1, 4, 2, 3, 0, 1)  # tanh, zero, sigmoid, relu, identity, tanh
FUNCTIONS = (
    lambda x: x,
    np.tanh,
    lambda x: 1 / (1 + np.exp(-x)),
    lambda x: np.maximum(x, 0),
    lambda x: 0 * x,
)


def chunk(length=5, seed=0):
    words = np.random.default_rng(seed).integers(0, 11, (length + 1, 3))
    return jnp.asarray(words[:-1]), jnp.asarray(words[1:])


def start(dtype=jnp.float32):
    """Weights far from 0, so that the functions differ."""
    weights = recurrent.recurrent_network(space.ptb(), SMALL).init(jax.random.key(0))
    return jax.tree.map(lambda w: jnp.asarray(10 * w, dtype), weights)


def by_hand(weights, gates, tokens, hidden):
    """Logits by the equations of the module's docstring."""
    w = jax.tree.map(np.asarray, weights)
    sigmoid = FUNCTIONS[2]
    outs = []
    for words in np.asarray(tokens):
        x = w["embedding"][words]
        both = x @ w["words"] + hidden @ w["hidden"]
        nodes = [hidden + sigmoid(both[:, :4]) * (np.tanh(both[:, 4:]) - hidden)]
        for node in (1, 2, 3):
            brought = []
            for e, (j, i) in enumerate(space.all_pairs(4)):
                if i == node:
                    c = sigmoid(nodes[j] @ w["edges"][e][:, :4])
                    u = gates[e] * FUNCTIONS[CHOICE[e]](nodes[j] @ w["edges"][e][:, 4:])
                    brought.append(nodes[j] + c * (u - nodes[j]))
            nodes.append(sum(brought) / len(brought))
        hidden = (nodes[1] + nodes[2] + nodes[3]) / 3
        outs.append(hidden @ w["decoder"] + w["bias"])
    return np.stack(outs), hidden


def test_logits_are_those_of_the_equations():
    weights, (tokens, targets) = start(), chunk()
    gates = np.linspace(0.5, 1.5, 6)
    state = np.random.default_rng(1).normal(size=(3, 4))
    expected, after = by_hand(weights, gates, tokens, state)
    got, hidden = recurrent.run(
        space.ptb(),
        SMALL,
        weights,
        jnp.asarray(gates),
        jnp.asarray(CHOICE),
        tokens,
        jnp.asarray(state),
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(hidden, after, atol=1e-5)
    network = recurrent.recurrent_network(space.ptb(), SMALL)
    loss, (carry, metrics) = network.gate_loss(
        weights, jnp.asarray(gates), jnp.asarray(CHOICE), (tokens, targets), jnp.asarray(state)
    )
    log_p = expected - np.log(np.exp(expected).sum(-1, keepdims=True))
    nats = -np.take_along_axis(log_p, np.asarray(targets)[..., None], -1)
    # The sum over the 5 words of the mean over streams.
    np.testing.assert_allclose(loss, nats.mean(1).sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["perplexity"], np.exp(nats.mean()), rtol=1e-5)
    np.testing.assert_allclose(carry, after, atol=1e-5)
    mean = recurrent.recurrent_network(space.ptb(), dataclasses.replace(SMALL, sum_loss=False))
    again, _ = mean.gate_loss(
        weights, jnp.asarray(gates), jnp.asarray(CHOICE), (tokens, targets), jnp.asarray(state)
    )
    np.testing.assert_allclose(5 * again, loss, rtol=1e-6)


def test_halves_and_the_dense_form_have_the_same_gradients():
    with jax.enable_x64(True):
        weights, batch = start(jnp.float64), chunk()
        network = recurrent.recurrent_network(space.ptb(), SMALL)
        gates, state = jnp.linspace(0.5, 1.5, 6), 0.1 * jnp.ones((3, 4))

        @jax.jit
        def sparse(choice):
            def value(weights, gates, half):
                return network.loss(weights, gates, choice, batch, half, state)[0]

            by_weights = jax.grad(value)(weights, gates, "weights")
            return by_weights, jax.grad(value, 1)(weights, gates, "gates")

        def dense(weights, gates):
            mixture = jax.nn.one_hot(jnp.asarray(CHOICE), 5) * gates[:, None]
            return network.dense_loss(weights, mixture, batch, state)[0]

        expected = jax.jit(jax.grad(dense, (0, 1)))(weights, gates)
        found = sparse(jnp.asarray(CHOICE))

        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), found, expected)
        assert found[1][1] == 0 and np.abs(found[1]).max() > 1e-3  # the zero operation's gate


def test_a_uniform_guess_has_the_logarithm_of_the_vocabulary():
    network = recurrent.recurrent_network(space.ptb(), SMALL)
    weights = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0)))
    loss, (_, metrics) = network.weight_loss(
        weights, jnp.asarray(CHOICE), chunk(), network.init_carry()
    )
    assert loss == pytest.approx(5 * np.log(11)) and metrics["perplexity"] == pytest.approx(11)


def test_weights_start_within_the_papers_bounds_and_dropout_needs_a_key():
    language = dataclasses.replace(SMALL, units=40, dropout=0.5)
    network = recurrent.recurrent_network(space.ptb(), language)
    weights = network.init(jax.random.key(0))
    for leaf in jax.tree.leaves(weights):
        assert 0.09 < jnp.abs(leaf).max() <= 0.1 or leaf.size < 100
    assert weights["edges"].shape == (6, 40, 80)
    arguments = (weights, jnp.asarray(CHOICE), chunk(), network.init_carry())
    plain = [network.weight_loss(*arguments)[0] for _ in range(2)]
    dropped = [network.weight_loss(*arguments, jax.random.key(k))[0] for k in range(2)]
    assert plain[0] == plain[1] and len({float(x) for x in (*dropped, plain[0])}) == 3
    ones = recurrent._drop(jax.random.key(0), jnp.ones(10_000), 0.25)
    np.testing.assert_allclose(np.unique(ones), [0, 4 / 3], rtol=1e-6)
    assert abs(ones.mean() - 1) < 0.03


def test_parameters_are_those_that_are_read():
    """Two matrices of an edge, one where it is zero."""
    weights = start()
    total = sum(leaf.size for leaf in jax.tree.leaves(weights))
    used = recurrent.used_parameters(space.ptb(), SMALL, CHOICE)
    assert used == total - 4 * 4  # one zero edge
    network = recurrent.recurrent_network(space.ptb(), SMALL)
    state = 0.1 * jnp.ones((3, 4))
    gradient = jax.grad(lambda w: network.weight_loss(w, jnp.asarray(CHOICE), chunk(40), state)[0])(
        weights
    )
    assert sum(int((leaf == 0).sum()) for leaf in jax.tree.leaves(gradient["edges"])) == 4 * 4


def test_a_space_that_does_not_fit_is_named():
    with pytest.raises(UserError, match="'nor_conv_1x1' has weights"):
        recurrent.recurrent_network(space.nas_bench_201(), SMALL)
    with pytest.raises(UserError, match="units=0"):
        dataclasses.replace(SMALL, units=0)
