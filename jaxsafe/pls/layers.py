# SPDX-License-Identifier: Apache-2.0
"""Layers of the transformer, in the forms that XLA compiles well for a CPU.

The mathematics is the textbook's. What differs is how gradients are written down, and where
dropout's random bits come from.
"""

import itertools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Drop = Callable[[jax.Array, float], jax.Array]


@jax.custom_vjp
def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`x @ kernel + bias` of `[N, I]`, `[I, O]` and `[O]`.

    JAX's own gradient by the kernel, (dy^T x)^T, copies the wider of the two into another order
    and multiplies slower: 8 ms against 2.4 for 2560 x 128 x 512. That by the bias is a product too,
    whose sums have one order whatever XLA fuses around them.
    """
    return x @ kernel + bias


def _affine_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array):
    return affine(x, kernel, bias), (x, kernel)


def _affine_backward(saved, grad: jax.Array):
    x, kernel = saved
    return grad @ kernel.T, x.T @ grad, jnp.ones(len(grad)) @ grad


affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x) with the exact error function; the gradient keeps x alone."""
    return 0.5 * x * (1 + lax.erf(x * np.float32(0.5**0.5)))


def _gelu_forward(x: jax.Array):
    return gelu(x), x


def _gelu_backward(x: jax.Array, grad: jax.Array):
    below = 0.5 * (1 + lax.erf(x * np.float32(0.5**0.5)))
    density = jnp.exp(-0.5 * x * x) * np.float32((2 * np.pi) ** -0.5)
    return (grad * (below + x * density),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@jax.custom_vjp
def softmax(x: jax.Array) -> jax.Array:
    """Softmax over the last axis, with its gradient p (g - sum p g) written out.

    JAX's own goes through the exponentials, and rounds in ways that depend on what is compiled
    around it, which Adam makes visible in the keys' biases, whose true gradient is 0.
    """
    return jax.nn.softmax(x)


def _softmax_forward(x: jax.Array):
    p = jax.nn.softmax(x)
    return p, p


def _softmax_backward(p: jax.Array, grad: jax.Array):
    pulled = lax.optimization_barrier(p * grad)
    return (pulled - p * jnp.sum(pulled, axis=-1, keepdims=True),)


softmax.defvjp(_softmax_forward, _softmax_backward)


class Dense(nn.Module):
    """`[..., I] -> [..., size]`, weights N(0, 0.02^2) and biases 0 at first, as OSRL's."""

    size: int

    @nn.compact
    def __call__(self, x: jax.Array, first: int = 0) -> jax.Array:
        """Applies the layer to `x` `[..., I]`; outputs from `first` on."""
        kernel = self.param("kernel", nn.initializers.normal(0.02), (x.shape[-1], self.size))
        bias = self.param("bias", nn.initializers.zeros, (self.size,))
        flat = affine(x.reshape(-1, x.shape[-1]), kernel[:, first:], bias[first:])
        return flat.reshape(*x.shape[:-1], self.size - first)


def no_drop(x: jax.Array, rate: float) -> jax.Array:
    """Dropout of a network that is not being trained."""
    del rate
    return x


def dropper(key: jax.Array, sites: int) -> Drop:
    """Returns dropout for at most that many calls in one network; consumes `key`.

    A call hashes each element's place with two random words of its own (MurmurHash3's last rounds).
    Threefry's bits for all masks of a training step take longer than its largest products; these
    are made inside the loop that uses them.
    """
    words = jax.random.bits(key, (sites, 2), jnp.uint32)
    count = itertools.count()

    def drop(x: jax.Array, rate: float) -> jax.Array:
        site = next(count)
        if not rate:
            return x
        first, second = words[site]
        place = lax.iota(jnp.uint32, x.size).reshape(x.shape)
        bits = place * jnp.uint32(0x9E3779B9) + first
        bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B) ^ second
        bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
        kept = (bits ^ (bits >> 16)) >= jnp.uint32(rate * 2**32)
        return jnp.where(kept, x / (1 - rate), 0.0)

    return drop
