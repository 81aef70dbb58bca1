# SPDX-License-Identifier: Apache-2.0
"""Whether descent improves the expected loss: exact and estimated mean flows on small spaces.

With infinitely small steps and many samples an estimator moves theta along its mean field,
d theta / dt = -E[g]. Then d E[L] / dt = -<d E[L] / d theta, E[g]>, so E[L] falls for every theta
wherever the estimator is exact in mean, and may rise where it is not.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.advantage_nas import enumeration, estimators
from jaxsafe.advantage_nas.config import EstimatorConfig
from jaxsafe.advantage_nas.types import Losses

Field = Callable[[jax.Array], jax.Array]


class Flow(NamedTuple):
    """A path of T + 1 points, the start included."""

    theta: jax.Array  # [T + 1, E, K]
    expected: jax.Array  # [T + 1] E[L]


def exact_field(losses: Losses) -> Field:
    """theta -> -d E[L] / d theta."""
    return lambda theta: -enumeration.exact_gradient(losses, theta)


def mean_field(losses: Losses, config: EstimatorConfig) -> Field:
    """theta -> -E[g], by enumeration, with averages at their exact means.

    Raises:
      UserError: the method cannot be enumerated, or the space is too large.
    """

    def field(theta: jax.Array) -> jax.Array:
        drawn, weight = enumeration.draws(theta, config)
        state = enumeration.settled_state(losses, theta)
        grads = jax.vmap(lambda one: estimators.estimate_of(one, theta, losses, state, config)[0])(
            drawn
        )
        return -jnp.tensordot(weight, grads, axes=1)

    return field


def rate(losses: Losses, field: Field, theta: jax.Array) -> jax.Array:
    """d E[L] / dt `[]` along a field: below 0 where it improves."""
    return jnp.sum(enumeration.exact_gradient(losses, theta) * field(theta))


def integrate(
    losses: Losses, field: Field, theta: jax.Array, step: float = 0.1, num_steps: int = 200
) -> Flow:
    """Follows a field from theta by Runge-Kutta steps of fourth order."""

    # Where each slope is taken, along the last one, and what it counts for.
    stages = jnp.array([[0, 1 / 6], [1 / 2, 1 / 3], [1 / 2, 1 / 3], [1, 1 / 6]], theta.dtype)

    def one(at: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        del number

        def slope(carry: tuple[jax.Array, jax.Array], stage: jax.Array):
            last, total = carry
            now = field(at + step * stage[0] * last)
            return (now, total + stage[1] * now), None

        zeros = jnp.zeros_like(at)
        (_, total), _ = lax.scan(slope, (zeros, zeros), stages)
        return at + step * total, at + step * total

    _, path = lax.scan(one, theta, None, num_steps)
    path = jnp.concatenate([theta[None], path])
    return Flow(path, lax.map(lambda at: enumeration.expected_loss(losses, at), path))
