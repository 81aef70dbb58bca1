# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds are those counted by hand, through loops, branches and derivatives."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxsafe.nn.conv import conv2d
from jaxsafe.nn.count import multiply_adds


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (lambda a, b: a @ b, (shape(2, 3), shape(3, 5)), 30),
        (lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (shape(7, 2, 3), shape(7, 3, 5)), 210),
        (conv2d, (shape(2, 8, 8, 3), shape(3, 3, 3, 4)), 2 * 64 * 4 * 27),
        (lambda x, w: conv2d(x, w, 2, 1), (shape(1, 8, 8, 3), shape(3, 3, 3, 4)), 16 * 4 * 27),
        (lambda x, w: conv2d(x, w), (shape(1, 8, 8, 3), shape(1, 1, 3, 4)), 64 * 12),
        (lambda a: jnp.tanh(a) + a, (shape(4, 4),), 0),
        (lambda a: lax.scan(lambda c, _: (c @ a, None), a, None, 6)[0], (shape(4, 4),), 6 * 64),
        (jax.jit(lambda a: a @ a), (shape(4, 4),), 64),
        (jax.checkpoint(lambda a: a @ a), (shape(4, 4),), 64),
        (
            lambda a, i: lax.switch(i, [lambda a: a, lambda a: a @ a, lambda a: a @ a @ a], a),
            (shape(4, 4), jax.ShapeDtypeStruct((), jnp.int32)),
            128,
        ),
        (jax.grad(lambda a: jnp.sum((a @ a) ** 2)), (shape(4, 4),), 3 * 64),
    ],
)
def test_counts_are_those_by_hand(function, arguments, expected):
    assert multiply_adds(function, *arguments) == expected
