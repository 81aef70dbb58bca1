# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution whose gradients stay fast inside of control flow, as `nn.conv`'s do."""

from functools import partial

import jax

from jaxsafe.core.checks import UserError
from jaxsafe.nn.conv import input_gradient, kernel_gradient, plain_conv

_NONE = ((0, 0), (0, 0))


def conv_transpose2d(x: jax.Array, kernel: jax.Array, stride: int = 1, block: int = 0) -> jax.Array:
    """The adjoint of an unpadded convolution from the output to `x`, without a bias.

    Args:
      x: `[B, H, W, I]`.
      kernel: `[K, K, O, I]`: that of the convolution it transposes.
      stride: by which rows and columns grow.
      block: as `conv2d`'s.

    Returns:
      `[B, (H - 1) stride + K, (W - 1) stride + K, O]`.

    Raises:
      UserError: shapes or stride do not fit.
    """
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[3] or stride < 1:
        raise UserError(
            f"an input {x.shape}, a kernel {kernel.shape} and stride={stride} do not fit: give "
            "[B, H, W, I], [K, K, O, I] and a stride of 1 or more."
        )
    return _transposed(stride, block, x, kernel)


def _shape(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[int, int, int, int]:
    rows, columns = ((n - 1) * stride + k for n, k in zip(x.shape[1:3], kernel.shape, strict=False))
    return x.shape[0], rows, columns, kernel.shape[2]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _transposed(stride: int, block: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    del block
    return input_gradient(x, kernel, stride, _NONE, _shape(x, kernel, stride))


def _forward(stride, block, x, kernel):
    return _transposed(stride, block, x, kernel), (x, kernel)


def _backward(stride, block, saved, g):
    x, kernel = saved
    return (
        plain_conv(g, kernel, stride, _NONE),
        kernel_gradient(g, x, stride, _NONE, kernel.shape, block),
    )


_transposed.defvjp(_forward, _backward)
