# SPDX-License-Identifier: Apache-2.0
"""System identification from a few annotations: which physics make replayed labels meet them.

Beyond the paper, which asks for a simulator that is right (its section on limits). Replays start at
annotated images; where they miss later annotated images of the same episodes, factors on the
simulator's physics are fitted. Letters in shapes: E annotated episodes, T their steps, S semantics,
P factors.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.image_to_semantics import augment
from jaxsafe.image_to_semantics.augment import Simulator


class Annotated(NamedTuple):
    """Two annotations of each episode and what was done in between.

    Attributes:
      starts: `[E, S]`, of first images.
      later: `[E, S]`, of one more image.
      step: `[E]` int32, the later image's step.
      actions: `[E, T, A]` as logged.
    """

    starts: jax.Array
    later: jax.Array
    step: jax.Array
    actions: jax.Array


class Fit(NamedTuple):
    """What was found.

    Attributes:
      factors: `[P]`, on the nominal physics.
      error: `[]`, mean squared miss of the later annotations, in variances of semantics.
      before: `[]`, the same at factors of 1.
    """

    factors: jax.Array
    error: jax.Array
    before: jax.Array


def fit(
    simulator: Callable[[jax.Array], Simulator],
    seen: Annotated,
    std: jax.Array,
    factors: int,
    iterations: int = 12,
    prior: float = 1e-3,
    used: jax.Array | None = None,
) -> Fit:
    """Fits factors by Levenberg and Marquardt's method on their logarithms.

    Minimises the mean of ((s_step - later) / std)^2 + prior * mean of log(factor)^2. Derivatives go
    forward through the simulator, one direction for each factor. The prior settles combinations
    that no motion shows, such as one factor common to masses, damping and gears.

    Args:
      simulator: `factors [P] -> Simulator`.
      seen: the annotations.
      std: `[S]`, standard deviations of semantics; infinite for those that are not compared.
      factors: P.
      iterations: tried steps; one that does not lower the error is taken back.
      prior: weight.
      used: `[E]` bool, which episodes count; all of them by default. At least one must.
    """
    episodes, size = seen.starts.shape
    rows = jnp.arange(episodes)
    lengths = jnp.full(episodes, seen.actions.shape[1])
    counts = jnp.ones(episodes, bool) if used is None else used

    def misses(log: jax.Array) -> jax.Array:
        world = simulator(jnp.exp(log))
        rolled = augment.roll_out(world, seen.starts, seen.actions, lengths, lengths[0])
        gap = (rolled.semantics[rows, seen.step] - seen.later) / std
        return jnp.where(counts[:, None], gap, 0.0).reshape(-1) / jnp.sqrt(counts.sum() * size)

    def residuals(log: jax.Array) -> tuple[jax.Array, jax.Array]:
        both = jnp.concatenate([misses(log), jnp.sqrt(prior / factors) * log])
        return both, both

    def one(_, carry):
        log, loss, damping = carry
        slope, miss = jax.jacfwd(residuals, has_aux=True)(log)
        curve = slope.T @ slope
        step = jnp.linalg.solve(curve + damping * jnp.eye(factors), -slope.T @ miss)
        tried = log + jnp.clip(step, -0.5, 0.5)
        new = (residuals(tried)[0] ** 2).sum()
        good = new < loss  # false for NaN
        return (
            jnp.where(good, tried, log),
            jnp.where(good, new, loss),
            jnp.where(good, damping / 5, damping * 5),
        )

    none = jnp.zeros(factors)
    start = (none, (residuals(none)[0] ** 2).sum(), jnp.float32(1e-2))
    log, *_ = lax.fori_loop(0, iterations, one, start)
    return Fit(jnp.exp(log), (misses(log) ** 2).sum(), (misses(none) ** 2).sum())
