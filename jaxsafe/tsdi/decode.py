# SPDX-License-Identifier: Apache-2.0
"""The bias taken off while decoding: pure functions of logits, for `lm.generate`'s hook or another.

They act on the model's own logits, ahead of temperature, top-k and top-p: taken off after a
division by T, the bias would count T times as much.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsafe.core.checks import UserError
from jaxsafe.tsdi.types import Correction, Table

_LEAST = 1e-30  # a clipped probability, so that its logarithm is finite


def correct(
    logits: jax.Array, step: jax.Array, correction: Correction, space: str = "logprob"
) -> jax.Array:
    """Logits `[B, V]` less alpha times the bias of this position; unchanged beyond `length`.

    In log spaces `log pi_safe - alpha b_i`. In `prob` space `pi_safe - alpha b_i`, what falls below
    0 clipped, made to sum to 1 again.

    Args:
      logits: `[B, V]` of the safe model.
      step: tokens of the answer so far, `[]` or `[B]`.
      correction: the table at work.
      space: the table's, static.
    """
    logits = logits.astype(jnp.float32)
    row, alpha, active = _row(logits, step, correction)
    if space == "prob":
        left = jnp.maximum(jax.nn.softmax(logits) - alpha * row, 0.0)
        other = jnp.log(jnp.maximum(left / left.sum(-1, keepdims=True), _LEAST))
    else:
        other = logits - alpha * row
    return jnp.where(active & (alpha != 0), other, logits)


def clipped_mass(logits: jax.Array, step: jax.Array, correction: Correction) -> jax.Array:
    """Probability `[B]` that `prob` space clips at 0 for logits `[B, V]`."""
    row, alpha, active = _row(logits, step, correction)
    below = jnp.minimum(jax.nn.softmax(logits.astype(jnp.float32)) - alpha * row, 0.0)
    return -jnp.where(active, below, 0.0).sum(-1)


def _row(
    logits: jax.Array, step: jax.Array, correction: Correction
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The bias `[B, V]` or `[1, V]` of this position, alpha, and whether it is corrected."""
    positions = correction.bias.shape[0]
    step = jnp.atleast_1d(step)[:, None]
    alpha = jnp.atleast_1d(correction.alpha)[:, None]
    if not positions:
        return jnp.zeros_like(logits[:1]), alpha, jnp.zeros_like(step, bool)
    row = correction.bias[jnp.minimum(step[:, 0], positions - 1)]
    return row, alpha, step < correction.length


@functools.cache
def processor(space: str = "logprob") -> Callable[[jax.Array, jax.Array, Correction], jax.Array]:
    """`correct` as a hook `(logits, step, correction) -> logits`; one function for each space.

    Another function would be another program.
    """
    return lambda logits, step, correction: correct(logits, step, correction, space)


def raised(table: Table, count: int) -> Table:
    """A table that lowers alone what safety training raised most, and raises nothing.

    Of each row the `count` largest entries stay where they are above 0; all others become 0. What
    safety training made rarer, such as the words of a hazard, then stays rare. Ours; the published
    method takes off the whole table.

    Raises:
      UserError: `count` is no number of tokens.
    """
    size = table.bias.shape[1]
    if not 1 <= count <= size:
        raise UserError(f"count={count} is out of range: give 1 to {size} tokens.")
    least = jax.lax.top_k(table.bias, count)[0][:, -1:]
    kept = (table.bias >= least) & (table.bias > 0)
    return table.replace(bias=jnp.where(kept, table.bias, 0.0))


def gate(score: jax.Array, low: float, high: float, alpha: float = 1.0) -> jax.Array:
    """Alpha per prompt `[B]`: all of it where a prompt's harm score is low, none where it is high.

    An answer to reviewers who found one bias for all prompts too little; not in the paper.

    Args:
      score: `[B]`, larger is more harmful.
      low: up to here alpha is whole.
      high: from here on it is 0, linear between.
      alpha: the whole.
    """
    return alpha * jnp.clip((high - score) / max(high - low, 1e-9), 0.0, 1.0)
