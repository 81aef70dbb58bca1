# SPDX-License-Identifier: Apache-2.0
"""What TSDI's functions pass to each other.

Letters in shapes: B prompts, P tokens of a prompt with its template, L corrected positions,
V vocabulary, H width. Positions of an answer count from 0, the first token after the template.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxsafe.core.checks import UserError

Params = Any


class Model(NamedTuple):
    """A language model in two parts, so that logits are made only where they are wanted."""

    hidden: Callable[[Params, jax.Array, jax.Array], jax.Array]  # ids, mask [B, T] -> [B, T, H]
    head: Callable[[Params, jax.Array], jax.Array]  # [..., H] -> logits [..., V]


class Pair(NamedTuple):
    """The parameters of the model that was made safe, and of the one it is held against."""

    safe: Params
    reference: Params


class Batch(NamedTuple):
    """Prompts and what stands in the place of their answers."""

    ids: jax.Array  # [B, P + L]
    mask: jax.Array  # [B, P + L] bool, false at padding on the left


class State(struct.PyTreeNode):
    """Running moments over prompts of the difference d of the two models."""

    count: jax.Array  # [] prompts so far
    mean: jax.Array  # [L, V]
    squares: jax.Array  # [L, V] sum of squared deviations from the mean
    reference: jax.Array  # [L, V] mean probabilities of the reference
    halves: jax.Array  # [2, L, V] means of d over two halves of the prompts, drawn by chance
    half_counts: jax.Array  # [2] prompts in them
    divergence: jax.Array  # [L] mean KL(safe, reference), nats
    key: jax.Array


class Table(struct.PyTreeNode):
    """A bias, as it is stored and taken off."""

    bias: jax.Array  # [L, V]; centred so that the reference's mean of each row is 0
    error: jax.Array  # [L, V] standard error of d's mean
    space: str = struct.field(pytree_node=False, default="logprob")


class Correction(struct.PyTreeNode):
    """A table at work; every number of it may change without a retrace."""

    bias: jax.Array  # [L, V]
    alpha: jax.Array  # [] or [B], how much of it is taken off
    length: jax.Array  # [] int32, positions that are corrected, at most L


def of_apply(apply: Callable[[Params, jax.Array, jax.Array], jax.Array]) -> Model:
    """A `Model` of any `apply(params, ids, mask) -> logits`, which then makes all of them."""
    return Model(apply, lambda params, logits: logits)


def correction(table: Table, alpha: float = 1.0, length: int | None = None) -> Correction:
    """A table at work.

    Args:
      table: the bias.
      alpha: how much of it is taken off, one number or one per prompt `[B]`.
      length: positions corrected; None for all of the table's.

    Raises:
      UserError: `length` is beyond the table.
    """
    positions = table.bias.shape[0]
    length = positions if length is None else length
    if not 0 <= length <= positions:
        raise UserError(
            f"length={length} is beyond the table's {positions} positions: give 0 to {positions}, "
            "or estimate a longer table."
        )
    return Correction(table.bias, jnp.asarray(alpha, jnp.float32), jnp.int32(length))
