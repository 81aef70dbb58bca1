# SPDX-License-Identifier: Apache-2.0
"""Candidate operations of an edge: pure functions, with gradients by hand where that pays.

Letters in shapes: B batch, H and W rows and columns, C channels; `[...]` any shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.nn import conv
from jaxsafe.nn.mlp import fan_in_uniform

Weights = Any
_EPSILON = 1e-5  # of batch norms, as in NAS-Bench-201


def _no_weights(key: jax.Array, x: jax.Array) -> Weights:
    del key, x
    return ()


@dataclass(frozen=True, eq=False)
class Operation:
    """A candidate. Its output has the shape of its input.

    Attributes:
      name: in architecture strings and plots.
      apply: `(weights, x [...]) -> y [...]`, differentiable.
      init: `(key, x) -> weights`; consumes `key`.
      forward: `(weights, x) -> (y, statistics)` for `backward` and `frozen`; it is not
        differentiated. Operations of one space that have it return statistics of one shape.
      backward: `(weights, x, y, statistics, g, with_weights) -> (d weights or None, dx)` for a
        gradient `g` `[...]` of y; without it, `apply` is run again and differentiated.
      frozen: `(weights, x, statistics) -> y` with statistics from elsewhere.
      is_zero: it returns zeros.
    """

    name: str
    apply: Callable[[Weights, jax.Array], jax.Array]
    init: Callable[[jax.Array, jax.Array], Weights] = _no_weights
    forward: Callable[..., tuple[jax.Array, jax.Array]] | None = None
    backward: Callable[..., tuple[Weights, jax.Array]] | None = None
    frozen: Callable[..., jax.Array] | None = None
    is_zero: bool = False


def from_function(name: str, function: Callable[[jax.Array], jax.Array]) -> Operation:
    """An operation without weights, `[...] -> [...]`."""
    return Operation(name, lambda weights, x: function(x))


def from_flax(name: str, module: nn.Module) -> Operation:
    """A Flax module without mutable state or dropout, whose output has its input's shape."""
    return Operation(name, lambda weights, x: jnp.asarray(module.apply(weights, x)), module.init)


def zero(name: str) -> Operation:
    """No connection: zeros."""
    return Operation(name, lambda weights, x: jnp.zeros_like(x), is_zero=True)


def mean_pool(name: str, count_padding: bool = False) -> Operation:
    """Mean over 3x3 windows at stride 1, `[B, H, W, C]`.

    Args:
      name: of the operation.
      count_padding: divide by 9 at the border too.
    """

    def scale(x: jax.Array) -> jax.Array:
        sizes = [_window_sizes(size, count_padding) for size in x.shape[1:3]]
        return jnp.asarray((1 / np.outer(*sizes))[None, :, :, None], x.dtype)

    def apply(weights: Weights, x: jax.Array) -> jax.Array:
        return _sum_of_nine(x) * scale(x)

    def backward(weights, x, y, statistics, g, with_weights):
        return weights, _sum_of_nine(g * scale(g))

    return Operation(name, apply, backward=backward)


def _window_sizes(size: int, count_padding: bool) -> np.ndarray:
    if count_padding:
        return np.full(size, 3.0)
    at = np.arange(size)
    return 1.0 + (at > 0) + (at < size - 1)


def _sum_of_nine(x: jax.Array) -> jax.Array:
    """Sums over 3x3 windows, zeros around: slices and sums, 10 times faster than a window."""
    for axis in (1, 2):
        size = x.shape[axis]
        pads = [(0, 0)] * 4
        pads[axis] = (1, 1)
        padded = jnp.pad(x, pads)
        low, middle, high = (lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3))
        x = low + middle + high
    return x


def conv_norm(name: str, kernel: int, native: bool = False, relu: bool = True) -> Operation:
    """ReLU, convolution at stride 1, batch norm without scale and shift, `[B, H, W, C]`.

    Its output is the normalised convolution, so that the backward pass computes nothing twice.

    Args:
      name: of the operation.
      kernel: its size, 1 or another odd number.
      native: leave the convolution's gradients to JAX.
      relu: whether the ReLU is there.
    """
    half = kernel // 2
    pads = ((half, half), (half, half))

    def rectified(x: jax.Array) -> jax.Array:
        return jax.nn.relu(x) if relu else x

    def init(key: jax.Array, x: jax.Array) -> Weights:
        shape = (kernel, kernel, x.shape[-1], x.shape[-1])
        return fan_in_uniform()(key, shape, x.dtype)

    def apply(weights: Weights, x: jax.Array) -> jax.Array:
        out = conv.conv2d(rectified(x), weights, padding=pads, native=native)
        return normalise(out, moments(out))

    def forward(weights: Weights, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = _plain(rectified(x), weights, pads)
        statistics = moments(out)
        return normalise(out, statistics), statistics

    def backward(weights, x, y, statistics, g, with_weights):
        g = normalise_backward(y, statistics, g)
        z = rectified(x)
        if native:
            _, vjp = jax.vjp(lambda z, w: _plain(z, w, pads), z, weights)
            dz, dweights = vjp(g)
        else:
            dz = conv.input_gradient(g, weights, 1, pads, x.shape)
            dweights = conv.kernel_gradient(z, g, 1, pads, weights.shape) if with_weights else None
        return dweights, jnp.where(x > 0, dz, 0) if relu else dz

    def frozen(weights: Weights, x: jax.Array, statistics: jax.Array) -> jax.Array:
        return normalise(_plain(rectified(x), weights, pads), statistics)

    return Operation(name, apply, init, forward, backward, frozen)


def _plain(x: jax.Array, weights: jax.Array, pads: conv.Pads) -> jax.Array:
    if weights.shape[:2] == (1, 1):
        return x @ weights[0, 0]
    return conv.plain_conv(x, weights, 1, pads)


def moments(x: jax.Array) -> jax.Array:
    """Mean and variance of each channel of `x` `[B, H, W, C]` over the rest, `[2, C]`."""
    mean = jnp.mean(x, (0, 1, 2))
    return jnp.stack([mean, jnp.mean(jnp.square(x - mean), (0, 1, 2))])


def normalise(x: jax.Array, statistics: jax.Array) -> jax.Array:
    """`x` `[B, H, W, C]` less the mean, over the standard deviation; `statistics` `[2, C]`."""
    mean, variance = statistics
    return (x - mean) * lax.rsqrt(variance + _EPSILON)


def normalise_backward(y: jax.Array, statistics: jax.Array, g: jax.Array) -> jax.Array:
    """Gradient of `y = normalise(x, moments(x))` with respect to x, given `g` of y."""
    along = jnp.mean(g * y, (0, 1, 2))
    return (g - jnp.mean(g, (0, 1, 2)) - y * along) * lax.rsqrt(statistics[1] + _EPSILON)


@jax.custom_vjp
def batch_norm(x: jax.Array) -> jax.Array:
    """`x` `[B, H, W, C]` normalised by its own moments; keeps its output only."""
    return normalise(x, moments(x))


def _batch_norm_forward(x):
    statistics = moments(x)
    y = normalise(x, statistics)
    return y, (y, statistics)


def _batch_norm_backward(saved, g):
    y, statistics = saved
    return (normalise_backward(y, statistics, g),)


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)
