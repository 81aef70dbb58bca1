# SPDX-License-Identifier: Apache-2.0
"""Convolution whose gradients stay fast inside `lax.switch` and `lax.scan` on CPUs.

XLA brings convolutions to the layout of its fast CPU path in a program's entry computation only;
the weight gradient that autodiff writes has another layout, and runs some 50 times slower inside
control flow. Here both gradients are written as convolutions in that layout.

Letters in shapes: B batch, H and W rows and columns, I and O channels in and out, K kernel size.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.core.checks import UserError

Pads = tuple[tuple[int, int], tuple[int, int]]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    native: bool = False,
    block: int = 0,
) -> jax.Array:
    """Convolves `x` `[B, H, W, I]` with `kernel` `[K, K, I, O]`, without a bias.

    Reverse mode of any order, and forward over reverse, can be taken of it. A 1x1 kernel becomes a
    product of matrices.

    Args:
      x: images or feature maps.
      kernel: may be K x K' as well.
      stride: of rows and of columns.
      padding: "SAME", "VALID", zeros around every side, or ((top, bottom), (left, right)).
      native: leave the gradients to JAX: as fast on GPUs and outside of control flow.
      block: images over which the kernel's gradient is summed at a time; 0: all.

    Returns:
      `[B, H', W', O]`.

    Raises:
      UserError: shapes, stride or padding do not fit.
    """
    pads = explicit_pads(x.shape, kernel.shape, stride, padding)
    if kernel.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0)):
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    return plain_conv(x, kernel, stride, pads) if native else _conv(stride, pads, block, x, kernel)


def explicit_pads(
    shape: Sequence[int],
    kernel_shape: Sequence[int],
    stride: int,
    padding: str | int | Sequence[tuple[int, int]],
) -> Pads:
    """Returns the zeros before and after rows and columns that `padding` stands for.

    Raises:
      UserError: shapes, stride or padding do not fit.
    """
    if len(shape) != 4 or len(kernel_shape) != 4 or shape[3] != kernel_shape[2]:
        raise UserError(
            f"an input {tuple(shape)} and a kernel {tuple(kernel_shape)} do not fit: "
            "give [B, H, W, I] and [K, K, I, O]."
        )
    if stride < 1:
        raise UserError(f"stride={stride} is out of range: give a value in [1, inf].")
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise UserError(f"padding={padding!r} is unknown: give 'SAME', 'VALID' or numbers.")
        pads = lax.padtype_to_pads(shape[1:3], kernel_shape[:2], (stride, stride), padding)
    else:
        pads = [(padding, padding)] * 2 if isinstance(padding, int) else list(padding)
    (top, bottom), (left, right) = pads
    rows, columns = shape[1] + top + bottom, shape[2] + left + right
    if rows < kernel_shape[0] or columns < kernel_shape[1]:
        raise UserError(
            f"a kernel {tuple(kernel_shape)} is larger than its padded input, {rows} x {columns}: "
            "pad more, or give larger images."
        )
    return (top, bottom), (left, right)


def plain_conv(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """The convolution with JAX's own gradients."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT)


def input_gradient(
    g: jax.Array, kernel: jax.Array, stride: int, pads: Pads, shape: Sequence[int]
) -> jax.Array:
    """Gradient with respect to the input, of `shape` `[B, H, W, I]`, given that of the output."""
    if kernel.shape[:2] == (1, 1) and stride == 1 and pads == ((0, 0), (0, 0)):
        return g @ kernel[0, 0].T
    around = [
        _outer_pads(size, k, low, out, stride)
        for size, k, (low, _), out in zip(
            shape[1:3], kernel.shape[:2], pads, g.shape[1:3], strict=True
        )
    ]
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return lax.conv_general_dilated(
        g, turned, (1, 1), around, lhs_dilation=(stride, stride), dimension_numbers=_LAYOUT
    )


def _outer_pads(size: int, k: int, low: int, out: int, stride: int) -> tuple[int, int]:
    before = k - 1 - low
    return before, size + k - 1 - before - ((out - 1) * stride + 1)


def kernel_gradient(
    x: jax.Array,
    g: jax.Array,
    stride: int,
    pads: Pads,
    kernel_shape: Sequence[int],
    block: int = 0,
) -> jax.Array:
    """Gradient with respect to the kernel, of `kernel_shape` `[K, K, I, O]`.

    Channels of `x` play the batch, the batch plays the channels, and `g` the kernel. Of large maps
    blocks of 8 images are up to four times faster, as a processor's cache holds their patches; of
    small ones they are not.
    """
    if 0 < block < len(x):
        shape = (-(-len(x) // block), block)
        xs, gs = (_filled(a, shape) for a in (x, g))

        def add(total, part):
            return total + kernel_gradient(part[0], part[1], stride, pads, kernel_shape), None

        return lax.scan(add, jnp.zeros(tuple(kernel_shape), x.dtype), (xs, gs))[0]
    if tuple(kernel_shape[:2]) == (1, 1) and stride == 1 and pads == ((0, 0), (0, 0)):
        rows = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        return (rows[0].T @ rows[1])[None, None]
    around = [
        (low, k - 1 - size - low + (out - 1) * stride + 1)
        for size, k, (low, _), out in zip(
            x.shape[1:3], kernel_shape[:2], pads, g.shape[1:3], strict=True
        )
    ]
    out = lax.conv_general_dilated(
        jnp.transpose(x, (3, 1, 2, 0)),
        jnp.transpose(g, (1, 2, 0, 3)),
        (1, 1),
        around,
        rhs_dilation=(stride, stride),
        dimension_numbers=_LAYOUT,
    )
    return jnp.transpose(out, (1, 2, 0, 3))


def _filled(x: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Lays images out as blocks `[shape[0], shape[1], ...]`, the last filled up with zeros."""
    rest = [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, ((0, shape[0] * shape[1] - len(x)), *rest)).reshape(*shape, *x.shape[1:])


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _conv(stride: int, pads: Pads, block: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    del block
    return plain_conv(x, kernel, stride, pads)


def _forward(stride, pads, block, x, kernel):
    del block
    return plain_conv(x, kernel, stride, pads), (x, kernel)


def _backward(stride, pads, block, saved, g):
    x, kernel = saved
    return (
        input_gradient(g, kernel, stride, pads, x.shape),
        kernel_gradient(x, g, stride, pads, kernel.shape, block),
    )


_conv.defvjp(_forward, _backward)
