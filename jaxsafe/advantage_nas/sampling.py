# SPDX-License-Identifier: Apache-2.0
"""Drawing architectures from softmax(theta), exactly or as the authors' code does."""

import jax
import jax.numpy as jnp

# The authors' sampler: uniforms are clipped, and this is added to each probability.
_EDGE = 1e-3


def init_theta(num_edges: int, num_ops: int) -> jax.Array:
    """theta `[E, K]` at the start: 1, and 1 + 1e-6 in column 0, so that an argmax is never tied."""
    return jnp.ones((num_edges, num_ops)).at[:, 0].add(1e-6)


def gumbel_from_uniform(uniform: jax.Array) -> jax.Array:
    """Gumbel noise in [-1.93264, 6.90726]: that of uniforms clipped to [.001, .999]."""
    return -jnp.log(-jnp.log(jnp.clip(uniform, _EDGE, 1 - _EDGE)))


def sample(key: jax.Array, theta: jax.Array, sampler: str = "exact", count: int = 1) -> jax.Array:
    """Draws `count` architectures `[count, E]` int32, each edge by itself.

    Args:
      key: typed PRNG key, consumed.
      theta: logits `[E, K]`.
      sampler: `exact`, or `clipped`: argmax of log(p + .001) plus clipped Gumbel noise, under which
        frequencies are not softmax(theta) (authors' code, util.py). Where two clipped uniforms tie
        the first operation wins; theirs then opens both gates by half.
      count: how many.
    """
    shape = (count, theta.shape[0])
    if sampler == "exact":
        return jax.random.categorical(key, theta, shape=shape).astype(jnp.int32)
    uniform = jax.random.uniform(key, (count, *theta.shape), theta.dtype)
    scores = jnp.log(jax.nn.softmax(theta) + _EDGE) + gumbel_from_uniform(uniform)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


def one_hot(choice: jax.Array, theta: jax.Array) -> jax.Array:
    """Gates `[..., E, K]` of architectures `[..., E]`, in theta's dtype."""
    return jax.nn.one_hot(choice, theta.shape[1], dtype=theta.dtype)


def probability(choice: jax.Array, theta: jax.Array) -> jax.Array:
    """softmax(theta)'s probability `[...]` of architectures `[..., E]`."""
    logits = jax.nn.log_softmax(theta)
    return jnp.exp(jnp.sum(one_hot(choice, theta) * logits, axis=(-2, -1)))


def entropy(theta: jax.Array) -> jax.Array:
    """Entropy of each edge's distribution `[E]`, in nats."""
    logits = jax.nn.log_softmax(theta)
    return -jnp.sum(jnp.exp(logits) * logits, axis=-1)
