# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution against the adjoint that JAX derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.nn.conv import plain_conv
from jaxsafe.nn.conv_transpose import conv_transpose2d

NONE = ((0, 0), (0, 0))


@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_the_adjoint_and_so_are_its_gradients(stride):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 3, 4, 5))
    kernel = jax.random.normal(keys[1], (4, 4, 6, 5))
    out = conv_transpose2d(x, kernel, stride)
    assert out.shape == (2, 2 * stride + 4, 3 * stride + 4, 6)
    weight = jax.random.normal(keys[2], out.shape)

    def theirs(x, kernel):
        forward = lambda y: plain_conv(y, kernel, stride, NONE)  # noqa: E731
        return jax.linear_transpose(forward, jnp.zeros(out.shape))(x)[0]

    np.testing.assert_allclose(out, theirs(x, kernel), atol=1e-4)
    ours = jax.grad(lambda *a: (weight * conv_transpose2d(*a, stride)).sum(), (0, 1))(x, kernel)
    other = jax.grad(lambda *a: (weight * theirs(*a)).sum(), (0, 1))(x, kernel)
    for a, b in zip(ours, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_bad_shapes():
    with pytest.raises(UserError, match=r"stride=0 do not fit"):
        conv_transpose2d(jnp.zeros((1, 2, 2, 3)), jnp.zeros((4, 4, 2, 3)), 0)
    with pytest.raises(UserError, match=r"an input \(1, 2, 2, 3\), a kernel \(4, 4, 3, 2\)"):
        conv_transpose2d(jnp.zeros((1, 2, 2, 3)), jnp.zeros((4, 4, 3, 2)), 1)
