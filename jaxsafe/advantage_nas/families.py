# SPDX-License-Identifier: Apache-2.0
"""Random losses of small spaces, on which estimators can be enumerated, and one with a wrong sign.

Outputs of operations are vectors V[e, k] ~ N(0, 1) in R^6; what follows them differs.
"""

import jax
import jax.numpy as jnp

from jaxsafe.advantage_nas.losses import from_dense
from jaxsafe.advantage_nas.types import Losses

FAMILIES = ("affine", "mse", "mlp")
_WIDTH = 6


def make(
    key: jax.Array,
    family: str,
    num_edges: int = 3,
    num_ops: int = 4,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> tuple[Losses, jax.Array]:
    """Draws a loss and logits `[E, K]` ~ .5 N(0, 1). `key` is consumed.

    affine: a random tensor over all edges plus a linear term, affine in every edge's gate; mse: the
    mean squared error of the sum of V over E against N(0, 1); mlp: the cross-entropy of logits
    tanh(W sum V) and label 0.

    Raises:
      ValueError: an unknown family.
    """
    keys = jax.random.split(key, 4)
    theta = 0.5 * jax.random.normal(keys[0], (num_edges, num_ops), dtype)
    values = jax.random.normal(keys[1], (num_edges, num_ops, _WIDTH), dtype)
    if family == "affine":
        tensor = jax.random.normal(keys[2], (num_ops,) * num_edges, dtype)
        linear = jax.random.normal(keys[3], (num_edges, num_ops), dtype)

        def loss(mixture: jax.Array) -> jax.Array:
            product = tensor
            for row in mixture[::-1]:
                product = product @ row
            return product + jnp.sum(linear * mixture)

    elif family == "mse":
        target = jax.random.normal(keys[2], (_WIDTH,), dtype)

        def loss(mixture: jax.Array) -> jax.Array:
            out = jnp.einsum("ek,ekd->d", mixture, values) / num_edges
            return jnp.mean(jnp.square(out - target))

    elif family == "mlp":
        matrix = jax.random.normal(keys[2], (_WIDTH, _WIDTH), dtype) / _WIDTH**0.5

        def loss(mixture: jax.Array) -> jax.Array:
            logits = jnp.tanh(matrix @ jnp.einsum("ek,ekd->d", mixture, values))
            return jax.nn.logsumexp(logits) - logits[0]

    else:
        raise ValueError(f"family={family!r} is unknown: give one of {', '.join(FAMILIES)}.")
    return from_dense(loss, num_ops), theta


def wrong_sign(dtype: jax.typing.DTypeLike = jnp.float32) -> tuple[Losses, jax.Array]:
    """One edge, outputs 1.2 and .5, loss (h - 1)^2, p = (.5, .5).

    The losses are .04 and .25, so the first operation is better; the gate gradients are .48 and
    -.5, so `advantage` descends towards the second.
    """
    outputs = jnp.array([1.2, 0.5], dtype)

    def loss(mixture: jax.Array) -> jax.Array:
        return jnp.square(mixture[0] @ outputs - 1)

    return from_dense(loss, 2), jnp.zeros((1, 2), dtype)
