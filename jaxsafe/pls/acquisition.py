# SPDX-License-Identifier: Apache-2.0
"""Which point next: the widest safe expander, then the safe point of greatest reward bound.

Expanders are looked at from the widest down, and the first found is the answer, so a search never
pays for the expanders it does not visit.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from jaxsafe.gp.grid import AXES, Posterior, covariance
from jaxsafe.pls import bounds
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.types import Problem

_BLOCK = 8  # points tested for being an expander at once


class View(NamedTuple):
    """What one choice looks at."""

    problem: Problem
    posterior: Posterior  # leaves [O, K, ...], one count
    alpha: jax.Array  # [O]
    threshold: jax.Array  # [C]
    lower: jax.Array  # [C, Z] intervals of the costs
    upper: jax.Array  # [C, Z]
    safe: jax.Array  # [Z]


def widths(view: View) -> jax.Array:
    """Returns the widest of the costs' intervals `[Z]`, in prior deviations."""
    sd = jnp.sqrt(view.problem.prior_var[1:, None])
    return ((view.upper - view.lower) / sd).max(0)


def is_expander(view: View, index: jax.Array, config: SearchConfig) -> jax.Array:
    """Returns whether to evaluate point `index` `[]` could make another of `[Z]` safe, bool."""
    if config.expander == "none":
        return jnp.bool_(True)
    if config.expander == "gp":
        reached = (_lucky_upper(view, index, config) <= view.threshold[:, None]).all(0)
    else:
        # Optimistic: the least cost the point may have, plus what L allows on the way. As
        # printed the sign is minus, which makes every safe point an expander (trap 3).
        sign = -1.0 if config.expander == "literal" else 1.0
        reach = sign * config.lipschitz * bounds.distances(view.problem, index)
        low = view.lower[:, index][:, None]
        reached = (low + reach <= view.threshold[:, None]).all(0)
    return (reached & ~view.safe).any()


def _lucky_upper(view: View, index: jax.Array, config: SearchConfig) -> jax.Array:
    """Upper bounds `[C, Z]` had the lower bound been observed at a point (SafeOpt's expanders)."""
    problem, models = view.problem, view.posterior
    prior = bounds.cross(problem, index, config)
    # Of the reward as well: to leave its rows out would copy those of the costs.
    cov = bounds.over_models(covariance, models, prior, index, in_axes=(AXES, 0, None))[1:]
    mean, var = models.mean[1:], models.var[1:]
    noise = problem.episode_var[1:, None, None] / config.episodes
    total = var[:, :, index][..., None] + noise
    shift = view.lower[:, index][:, None] - mean[:, :, index]
    mean = mean + cov / total * shift[..., None]
    sd = jnp.sqrt(jnp.maximum(var - cov**2 / total, 0.0))
    upper = (mean + view.alpha[1:, None, None] * sd).max(1)
    return jnp.minimum(upper, view.upper) if config.intersect else upper


def argmax(score: jax.Array) -> jax.Array:
    """Returns the place of the first greatest score `[Z]`, int32; none may be NaN.

    Two plain reductions, which XLA vectorises on CPU; `jnp.argmax` is one that it does not.
    """
    size = score.shape[0]
    return jnp.where(score == score.max(), jnp.arange(size, dtype=jnp.int32), size - 1).min()


def first_expander(
    view: View, score: jax.Array, least: jax.Array | float, config: SearchConfig
) -> tuple[jax.Array, jax.Array]:
    """Returns the expander of the greatest score above `least`.

    Args:
      view: what is known.
      score: `[Z]`; -inf leaves a point out.
      least: `[]` scores must be above it.
      config: static.

    Returns:
      Whether there is one `[]`, and its place `[]` int32.
    """
    least = jnp.asarray(least, score.dtype)

    def unasked(carry):
        score, _, _, asked = carry
        return ~asked & (score.max() > least)

    def ask(carry):
        index = argmax(carry[0])
        left = jnp.where(jnp.arange(score.shape[0]) == index, -jnp.inf, carry[0])
        return left, is_expander(view, index, config), index, jnp.bool_(True)

    # Mostly the first is one. A loop, since mapped over searches it is skipped if none wants it;
    # what does not depend on its carry would be computed all the same.
    no = jnp.bool_(False)
    score, found, index, _ = lax.while_loop(unasked, ask, (score, no, jnp.int32(0), no))
    return _next_expander(config)(view, score, least, found, index)


def _next_expander(config: SearchConfig) -> Callable:
    """Goes down the scores by blocks until an expander is found.

    Few searches need many blocks. Mapped as a plain loop all would wait for them and compute along;
    instead those that are unsettled take turns, each at the cost of one search.
    """

    def unsettled(score, least, found):
        return ~found & (score.max(-1) > least)

    def block(view, score, least):
        values, places = lax.top_k(score, min(_BLOCK, score.shape[0]))
        expands = jax.vmap(lambda index: is_expander(view, index, config))(places)
        accepted = (values > least) & expands
        return score.at[places].set(-jnp.inf), accepted.any(), places[jnp.argmax(accepted)]

    @custom_vmap
    def search(view, score, least, found, index):
        def step(carry):
            return block(view, carry[0], least)

        carry = lax.while_loop(
            lambda carry: unsettled(carry[0], least, carry[1]), step, (score, found, index)
        )
        return carry[1:]

    @search.def_vmap
    def in_turn(size, mapped, view, *others):
        def whole(x, is_mapped):
            return x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))

        score, least, found, index = map(whole, others, mapped[1:])

        def step(carry):
            score, found = carry[:2]
            turn = jnp.argmax(unsettled(score, least, found))

            def mine(x, is_mapped):
                return lax.dynamic_index_in_dim(x, turn, 0, False) if is_mapped else x

            own = jax.tree.map(mine, view, mapped[0])
            results = block(own, mine(score, True), least[turn])
            return tuple(
                lax.dynamic_update_index_in_dim(x, new, turn, 0)
                for x, new in zip(carry, results, strict=True)
            )

        carry = lax.while_loop(
            lambda carry: unsettled(carry[0], least, carry[1]).any(), step, (score, found, index)
        )
        return carry[1:], (True, True)

    return search


def best(score: jax.Array, allowed: jax.Array) -> jax.Array:
    """Returns the place of the greatest score `[Z]` among allowed points, int32."""
    return argmax(jnp.where(allowed, score, -jnp.inf))


def expand(
    view: View, config: SearchConfig, wanted: jax.Array | bool = True
) -> tuple[jax.Array, jax.Array]:
    """Stage 1: whether any expander is wider than zeta `[]`, and the place `[]` of the widest.

    There is none where it is not `wanted`, `[]` bool or `[Z]` of the points that may be it.
    """
    score = jnp.where(view.safe & wanted, widths(view), -jnp.inf)
    if config.expander == "none":
        index = argmax(score)
        return score[index] > config.zeta, index
    # Nothing expands a safe set that is everything, so no point need be asked.
    score = jnp.where(view.safe.all(), -jnp.inf, score)
    return first_expander(view, score, config.zeta, config)


def exploit(view: View) -> jax.Array:
    """Stage 2: the safe one of `[Z]` points with the greatest upper reward bound, `[]` int32."""
    _, upper = bounds.confidence(view.posterior, view.alpha)
    return best(upper[0], view.safe)


def unsafe_ucb(view: View) -> jax.Array:
    """The one of all `[Z]` points with the greatest upper reward bound, `[]` int32."""
    _, upper = bounds.confidence(view.posterior, view.alpha)
    return argmax(upper[0])


def safeopt(view: View, config: SearchConfig) -> jax.Array:
    """SafeOpt's rule: the widest interval of any output among maximisers and expanders.

    Returns the place of its point among `[Z]`, `[]` int32.

    Sui et al., "Safe exploration for optimization with Gaussian processes", ICML 2015; several
    constraints as in Berkenkamp et al. 2016. Widths are in prior deviations.
    """
    low, high = bounds.confidence(view.posterior, view.alpha)
    top = jnp.where(view.safe, low[0], -jnp.inf).max()
    maximiser = view.safe & (high[0] >= top)
    reward = (high[0] - low[0]) / jnp.sqrt(view.problem.prior_var[0])
    score = jnp.where(view.safe, jnp.maximum(reward, widths(view)), -jnp.inf)
    widest = best(score, maximiser)
    if config.expander == "none":
        return best(score, view.safe)
    # Only an expander wider than the widest maximiser matters.
    others = jnp.where(maximiser, -jnp.inf, score)
    found, index = first_expander(view, others, score[widest], config)
    return jnp.where(found, index, widest)
