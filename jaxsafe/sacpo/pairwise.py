# SPDX-License-Identifier: Apache-2.0
"""One stage on tables: what pairs tell of a score, and the policy that the library's loss makes of
them.

Letters in shapes: X prompts, Y responses.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from jaxsafe.sacpo import losses


def preferences(score: ArrayLike) -> np.ndarray:
    """Bradley-Terry's law over all pairs, `[X, Y, Y]`: entry i, j is P(i is preferred to j)."""
    score = np.asarray(score, np.float64)
    law = 1 / (1 + np.exp(score[:, None, :] - score[:, :, None]))
    return law * (1 - np.eye(score.shape[1]))


def align(
    log_start: jax.Array,
    wins: jax.Array,
    temperature: jax.Array,
    num_steps: int = 400,
    tolerance: float = 1e-13,
) -> jax.Array:
    """One stage: minimises `losses.dpo` by L-BFGS, from the reference and against it.

    Pure; jit and vmap it. For more than seven digits call it under `jax.enable_x64`.

    Args:
      log_start: log pi of the policy that the stage starts from, `[X, Y]`.
      wins: weight of the pairs in which i was preferred to j, `[X, Y, Y]`.
      temperature: t, `[]`.
      num_steps: iterations at most.
      tolerance: norm of the gradient, in units of the loss over the score's, at which it ends.

    Returns:
      log pi, `[X, Y]`.
    """
    share = wins / jnp.sum(wins)

    def policy(implicit: jax.Array) -> jax.Array:
        # In units of the score, whose scale does not depend on the temperature.
        return jax.nn.log_softmax(log_start + implicit / temperature)

    def loss(implicit: jax.Array) -> jax.Array:
        new = policy(implicit)
        sums = new[:, :, None], new[:, None, :], log_start[:, :, None], log_start[:, None, :]
        return jnp.sum(share * losses.dpo(losses.margin(*sums), temperature))

    optimizer = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def go_on(carry: Any) -> jax.Array:
        _, opt_state, step = carry
        size = optax.tree.norm(optax.tree.get(opt_state, "grad"))
        return (step == 0) | ((step < num_steps) & (size > tolerance))

    def one(carry: Any) -> Any:
        implicit, opt_state, step = carry
        value, grad = value_and_grad(implicit, state=opt_state)
        updates, opt_state = optimizer.update(
            grad, opt_state, implicit, value=value, grad=grad, value_fn=loss
        )
        return optax.apply_updates(implicit, updates), opt_state, step + 1

    start = jnp.zeros_like(log_start)
    implicit, _, _ = jax.lax.while_loop(go_on, one, (start, optimizer.init(start), jnp.int32(0)))
    return policy(implicit)
