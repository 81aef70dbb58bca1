# SPDX-License-Identifier: Apache-2.0
"""Spaces are data; a user's own is made and searched in 20 lines."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import edges, operations, space
from jaxsafe.core.checks import UserError


def test_sizes_and_orders_are_the_papers():
    four, five, text = space.nas_bench_201(), space.nas_bench_201(space.NAS_BENCH_201), space.ptb()
    assert (four.num_edges, four.num_operations, four.size, four.zero) == (6, 4, 4096, None)
    assert (five.size, five.zero, text.size, text.zero) == (15625, 4, 15625, 4)
    assert four.edges == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)) == text.edges
    assert four.names == ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert text.names == ("identity", "tanh", "sigmoid", "relu", "zero")
    assert [four.into(node) for node in range(1, 4)] == [(0,), (1, 2), (3, 4, 5)]
    assert space.nas_bench_201() is four  # one object, so that nothing compiles twice
    assert "15,625 architectures" in space.describe(five)


def test_a_space_of_ones_own():
    """The README's example."""
    mine = space.Space(
        "mine",
        num_nodes=3,
        edges=((0, 1), (0, 2), (1, 2)),
        operations=(
            operations.from_flax("dense", nn.Dense(8)),
            operations.from_function("tanh", jnp.tanh),
            operations.zero("zero"),
        ),
    )

    def init(key):
        return edges.init_cell(key, mine, jax.ShapeDtypeStruct((1, 8), jnp.float32))

    def loss(weights, gates, choice, batch, half, carry, key):
        x, target = batch
        out = edges.cell(mine, weights, gates, choice, x, half)
        return jnp.mean((out.mean(-1) - target) ** 2), (carry, {})

    network = space.Network(mine, init, loss)

    weights = network.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (16, 8))
    batch = (x, x[:, 0])
    choice, ones = jnp.array([0, 1, 0]), jnp.ones(3)
    value, (carry, metrics) = network.weight_loss(weights, choice, batch)
    dense, w = weights[0]["params"], np.asarray
    h1 = x @ dense["kernel"][0] + dense["bias"][0]
    h2 = np.tanh(x) + h1 @ dense["kernel"][2] + dense["bias"][2]
    np.testing.assert_allclose(value, np.mean((w(h2).mean(-1) - w(x)[:, 0]) ** 2), rtol=1e-5)
    assert (carry, metrics) == ((), {})
    mixed, _ = network.dense_loss(weights, jax.nn.one_hot(choice, 3), batch)
    np.testing.assert_allclose(value, mixed, rtol=1e-6)
    gate_gradient = jax.grad(
        lambda gates, half: network.loss(weights, gates, choice, batch, half, (), None)[0]
    )
    full = gate_gradient(ones, "both")
    assert np.abs(full).min() > 1e-4
    np.testing.assert_allclose(gate_gradient(ones, "gates"), full, rtol=1e-5)
    assert not np.any(gate_gradient(ones, "weights"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": ((0, 1), (2, 1), (0, 2))}, "edge 2>1 of space 'x' is none between nodes 0 to 2"),
        ({"edges": ((0, 1), (1, 3))}, "edge 1>3"),
        ({"edges": ((0, 2),)}, "node 1 of space 'x' has no edge"),
        ({"edges": ((0, 1), (0, 2), (0, 1))}, "repeats one"),
        ({"edges": ()}, "edges='' is empty"),
        ({"operations": (operations.zero("a"), operations.zero("a"))}, "operations='a,a'"),
        ({"combine": "max"}, "combine='max' is unknown"),
        ({"output": "first"}, "output='first' is unknown"),
    ],
)
def test_a_space_that_is_none_is_named(change, message):
    sound = {
        "name": "x",
        "num_nodes": 3,
        "edges": ((0, 1), (1, 2)),
        "operations": (operations.zero("a"), operations.zero("b")),
    }
    space.Space(**sound)
    with pytest.raises(UserError, match=message):
        space.Space(**sound | change)


def test_unknown_operations_and_shapes_that_change_are_named():
    with pytest.raises(UserError, match=r"nor_conv_3x3'\? Choose"):
        space.nas_bench_201(("skip_connect", "nor_conv3x3"))
    widening = space.Space("w", 2, ((0, 1),), (operations.from_flax("wide", nn.Dense(9)),))
    with pytest.raises(UserError, match=r"'wide' makes float32\[1, 9\] of float32\[1, 8\]"):
        edges.init_cell(jax.random.key(0), widening, jnp.zeros((1, 8)))


def test_gates_and_choices_that_do_not_fit_are_named():
    four = space.nas_bench_201()
    weights = edges.init_cell(jax.random.key(0), four, jnp.zeros((1, 4, 4, 2)))
    x = jnp.zeros((1, 4, 4, 2))
    for gates, choice, half, message in (
        (jnp.ones(5), jnp.zeros(6, int), "both", r"gates \(5,\) do not fit"),
        (jnp.ones(6), None, "both", r"give \(6, 4\) \(a mixture"),
        (jnp.ones(6), jnp.zeros(7, int), "both", r"choice \(7,\) does not fit"),
        (jnp.ones(6), jnp.zeros(6, int), "weight", "half='weight' is unknown"),
    ):
        with pytest.raises(UserError, match=message):
            edges.cell(four, weights, gates, choice, x, half)
