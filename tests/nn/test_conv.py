# SPDX-License-Identifier: Apache-2.0
"""The convolution and its hand-written gradients are XLA's, also inside control flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsafe.core.checks import UserError
from jaxsafe.nn.conv import conv2d, explicit_pads, plain_conv
from jaxsafe.nn.conv_transpose import conv_transpose2d

CASES = [
    # height, width, kernel, stride, padding
    (6, 6, 3, 1, "SAME"),
    (6, 7, 3, 2, "SAME"),
    (7, 5, 3, 2, 1),
    (6, 6, 3, 2, 1),
    (5, 6, 5, 1, 2),
    (8, 8, 3, 1, "VALID"),
    (8, 7, 2, 3, ((0, 1), (2, 0))),
    (6, 5, 1, 1, "SAME"),
    (6, 5, 1, 2, 0),
    (4, 4, 1, 1, 1),
]


def arrays(height, width, k, dtype, b=3, i=2, o=4, seed=0):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(b, height, width, i)), rng.normal(size=(k, k, i, o))
    return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


def by_hand(x, kernel, stride, pads):
    """The definition, in NumPy."""
    x, kernel = np.pad(x, ((0, 0), *pads, (0, 0))), np.asarray(kernel)
    rows = (x.shape[1] - kernel.shape[0]) // stride + 1
    columns = (x.shape[2] - kernel.shape[1]) // stride + 1
    out = np.zeros((x.shape[0], rows, columns, kernel.shape[3]))
    for r in range(rows):
        for c in range(columns):
            top, left = r * stride, c * stride
            patch = x[:, top : top + kernel.shape[0], left : left + kernel.shape[1]]
            out[:, r, c] = np.tensordot(patch, kernel, 3)
    return out


@pytest.mark.parametrize(("height", "width", "k", "stride", "padding"), CASES)
def test_values_and_gradients_are_those_of_the_definition(height, width, k, stride, padding):
    with jax.enable_x64(True):
        x, w = arrays(height, width, k, jnp.float64)
        pads = explicit_pads(x.shape, w.shape, stride, padding)
        expected = by_hand(x, w, stride, pads)
        g = jnp.asarray(np.random.default_rng(1).normal(size=expected.shape))

        def out(x, w, native):
            return conv2d(x, w, stride, padding, native)

        _, plain = jax.vjp(lambda x, w: plain_conv(x, w, stride, pads), x, w)
        for native in (False, True):
            y, vjp = jax.vjp(lambda x, w, n=native: out(x, w, n), x, w)
            np.testing.assert_allclose(y, expected, atol=1e-12)
            for mine, theirs in zip(vjp(g), plain(g), strict=True):
                np.testing.assert_allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_the_same_inside_of_a_switch_and_a_scan(stride):
    x, w = arrays(8, 8, 3, jnp.float32)

    def loss(w, x):
        return jnp.sum(jnp.sin(conv2d(x, w, stride)))

    def controlled(w, which):
        def step(total, x):
            branches = [lambda w: jnp.float32(0.0), lambda w: loss(w, x), lambda w: 2 * loss(w, x)]
            return total + lax.switch(which, branches, w), None

        return lax.scan(step, 0.0, jnp.stack([x, -0.5 * x]))[0]

    once = jax.grad(lambda w: loss(w, x) + loss(w, -0.5 * x))(w)
    for which in range(3):
        inside = jax.jit(jax.grad(controlled))(w, which)
        np.testing.assert_allclose(inside, which * once, rtol=2e-5, atol=2e-5)


def test_second_derivatives_forward_over_reverse():
    with jax.enable_x64(True):
        x, w = arrays(5, 5, 3, jnp.float64)

        def curve(native):
            def gradient(w):
                return jax.grad(lambda w: jnp.sum(jnp.tanh(conv2d(x, w, 2, native=native))))(w)

            return jax.jvp(gradient, (w,), (jnp.cos(w),))[1]

        np.testing.assert_allclose(curve(False), curve(True), atol=1e-12)
        assert np.abs(curve(True)).max() > 1e-3


@pytest.mark.parametrize(
    ("x", "kernel", "options", "message"),
    [
        ((2, 5, 5, 3), (3, 3, 4, 4), {}, "do not fit"),
        ((5, 5, 3), (3, 3, 3, 4), {}, "do not fit"),
        ((2, 5, 5, 3), (3, 3, 3, 4), {"stride": 0}, "stride=0"),
        ((2, 5, 5, 3), (3, 3, 3, 4), {"padding": "FULL"}, "padding='FULL'"),
        ((2, 2, 5, 3), (3, 3, 3, 4), {"padding": 0}, "larger than its padded input, 2 x 5"),
    ],
)
def test_what_does_not_fit_is_named(x, kernel, options, message):
    with pytest.raises(UserError, match=message):
        conv2d(jnp.zeros(x), jnp.zeros(kernel), **options)


@pytest.mark.parametrize("batch", [2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_by_blocks_of_images_are_those_of_all_at_once(batch, stride):
    """Also where the last block is not full, and of a transposed convolution."""
    with jax.enable_x64(True):
        x, w = arrays(7, 6, 3, jnp.float64, b=batch)
        for apply, image in ((conv2d, x), (conv_transpose2d, jnp.tile(x, 2))):

            def loss(x, w, block, f=apply):
                return jnp.sin(f(x, w, stride, block=block)).sum()

            grads = [jax.grad(loss, (0, 1))(image, w, n) for n in (0, 2)]
            assert float(jnp.abs(grads[0][1]).max()) > 0.1
            for a, b in zip(*grads, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-12)
