# SPDX-License-Identifier: Apache-2.0
"""What is known of every target: the model's posterior, intervals of the costs, the safe set."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsafe import gp
from jaxsafe.gp.grid import AXES, Posterior
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.types import Problem, State

# An empty interval is one whose ends cross by more than rounding, in prior deviations.
_ROUNDING = 1e-3
_LEAST_NOISE = 1e-6  # variance, as a share of the prior's, that 32 bits can carry


def over_models(fn: Callable, *args, in_axes: Any = 0, out_axes: Any = 0):
    """Maps over the leading axes `[O, K]`."""
    return jax.vmap(jax.vmap(fn, in_axes, out_axes), in_axes, out_axes)(*args)


def prior(problem: Problem, capacity: int) -> Posterior:
    """Returns the posterior before any observation, leaves `[O, K, ...]` but for its count."""
    outputs, size = problem.prior_mean.shape
    shape = (outputs, problem.factors.shape[0], size)
    mean = jnp.broadcast_to(problem.prior_mean[:, None], shape)
    var = jnp.broadcast_to(problem.prior_var[:, None, None], shape)
    return over_models(lambda m, v: gp.init(m, v, capacity), mean, var, out_axes=AXES)


def cross(problem: Problem, index: jax.Array, config: SearchConfig) -> jax.Array:
    """Returns the prior covariance `[O, K, Z]` of one grid point with all."""

    def one(lengthscale, factor, variance):
        point = problem.grid[index]
        return gp.cross(config.kernel, lengthscale * factor, variance, point, problem.grid)

    over_factors = jax.vmap(one, in_axes=(None, 0, None))
    over_outputs = jax.vmap(over_factors, in_axes=(0, None, 0))
    return over_outputs(problem.lengthscale, problem.factors, problem.prior_var)


def evaluation_noise(returns: jax.Array, problem: Problem, config: SearchConfig) -> jax.Array:
    """Returns the noise variance `[O]` of the mean of W episodes' returns `[W, O]`.

    Theorem 2 needs the noise of that mean, an episode's by W. Where it is taken from the episodes'
    own spread it is shrunk to the model's: a few episodes without any cost show no spread.
    """
    episodes = returns.shape[0]
    variance = problem.episode_var
    if config.noise == "episodes" and episodes > 1:
        weight = config.noise_weight
        spread = ((returns - returns.mean(0)) ** 2).sum(0)
        variance = (weight * variance + spread) / (weight + episodes - 1)
    return jnp.maximum(variance / episodes, _LEAST_NOISE * problem.prior_var)


def observe(
    posterior: Posterior,
    problem: Problem,
    index: jax.Array,
    value: jax.Array,
    noise_var: jax.Array,
    config: SearchConfig,
) -> Posterior:
    """Returns all models after values `[O, K]` with noise `[O]` at one grid point."""
    noise = jnp.broadcast_to(noise_var[:, None], value.shape)
    rows = cross(problem, index, config)
    in_axes = (AXES, 0, None, 0, 0)
    return over_models(gp.add, posterior, rows, index, value, noise, in_axes=in_axes, out_axes=AXES)


def confidence(posterior: Posterior, alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the lowest lower and the highest upper bound `[O, Z]` over the K models.

    `mu -+ alpha sigma` with alpha `[O]` (paper, Omega in algorithm 1); over several lengthscales
    the bounds hold if those of any one do.
    """
    spread = alpha[:, None, None] * gp.std(posterior)
    return (posterior.mean - spread).min(1), (posterior.mean + spread).max(1)


def intervals(
    lower: jax.Array, upper: jax.Array, threshold: jax.Array, problem: Problem, config: SearchConfig
) -> tuple[jax.Array, jax.Array]:
    """Returns the costs' intervals `[C, Z]` with what is known from the start: [floor, b] on seeds.

    Kept apart from the state's, so that one model serves thresholds `[C]` of any value. As
    printed, [0, b] holds everywhere, and then no bound is ever above b (trap 2).
    """
    if not config.intersect:
        return lower, upper
    everywhere = config.initial_intervals == "everywhere"
    known = jnp.ones_like(problem.seed) if everywhere else problem.seed
    upper = jnp.where(known, jnp.minimum(upper, threshold[:, None]), upper)
    lower = jnp.where(known, jnp.maximum(lower, problem.floor[:, None]), lower)
    return jnp.minimum(lower, upper), upper


def distances(problem: Problem, index: jax.Array) -> jax.Array:
    """Returns Euclidean distances `[Z]` from one grid point, in the grid's units."""
    return jnp.sqrt(((problem.grid - problem.grid[index]) ** 2).sum(-1))


def safe_set(
    upper: jax.Array,
    threshold: jax.Array,
    before: jax.Array,
    problem: Problem,
    config: SearchConfig,
) -> jax.Array:
    """Returns which points are safe `[Z]`: those whose upper bounds `[C, Z]` are, and the seeds.

    As printed, a point is safe if `u(z) + L d(z, z') <= b` for any z that was safe `before` `[Z]`;
    with the paper's L = 0 that does not depend on the point at all (trap 1).
    """
    excess = (upper - threshold[:, None]).max(0)
    if config.safe_rule == "bounds":
        return (excess <= 0) | problem.seed
    if config.lipschitz <= 0:
        return (before & (excess <= 0)).any() | problem.seed

    def reached(index):
        reach = excess + config.lipschitz * distances(problem, index)
        return (before & (reach <= 0)).any()

    return jax.lax.map(reached, jnp.arange(upper.shape[1]), batch_size=64) | problem.seed


def refresh(state: State, config: SearchConfig) -> tuple[State, jax.Array]:
    """Brings intervals, safe sets and alarms up to the posterior; also returns the empty intervals.

    Where an interval is empty the model is wrong, and its higher end counts: the pessimistic one.
    A seed whose lower bound is above its threshold raises the same alarm.

    Returns:
      The state, and how many points have an empty interval `[]` int32.
    """
    problem = state.problem
    low, high = confidence(state.posterior, problem.alpha[state.step])
    lower, upper = low[1:], high[1:]
    if config.intersect:
        lower, upper = jnp.maximum(lower, state.lower), jnp.minimum(upper, state.upper)
    slack = _ROUNDING * jnp.sqrt(problem.prior_var[1:, None])
    empty = (lower > upper + slack).any(0)
    upper = jnp.maximum(lower, upper)
    over = (lower[None] > problem.thresholds[:, :, None] + slack).any((0, 1))
    empty = empty | (problem.seed & over)
    state = state.replace(
        lower=lower, upper=upper, alarms=state.alarms + empty.any().astype(jnp.int32)
    )
    return state.replace(safe=safe_sets(state, config)), empty.sum()


def safe_sets(state: State, config: SearchConfig) -> jax.Array:
    """Returns the safe set of each threshold `[B, Z]`; after an alarm, the seeds alone."""
    problem = state.problem

    def one(threshold, before):
        _, upper = intervals(state.lower, state.upper, threshold, problem, config)
        return safe_set(upper, threshold, before, problem, config)

    safe = jax.vmap(one)(problem.thresholds, state.safe)
    if config.retreat:
        safe = jnp.where(state.alarms > 0, problem.seed, safe)
    return safe
