# SPDX-License-Identifier: Apache-2.0
"""Is the seed set safe? Bounds that need no model, before a search trusts it.

Theorem 2 assumes a safe seed set (assumption 7); nothing later can notice that it was not, short
of an alarm. Costs lie in a known range, so a few episodes of a seed bound its expected cost.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from jaxsafe.core.checks import UserError, check_choice, check_range
from jaxsafe.pls.types import Problem

METHODS = ("hoeffding", "bernstein")


class SeedCheck(NamedTuple):
    """Upper limits of the expected costs, which hold together with probability 1 - delta."""

    mean: np.ndarray  # [P]
    upper: np.ndarray  # [P]
    safe: np.ndarray  # [P] bool, upper <= threshold


def check_seeds(
    costs: Any,
    threshold: float,
    low: float,
    high: float,
    delta: float = 0.05,
    method: str = "hoeffding",
) -> SeedCheck:
    """Bounds the expected cost return of P seed points from n episodes each.

    Hoeffding: `mean + (high - low) sqrt(ln(P / delta) / (2 n))`. Bernstein (Maurer and Pontil 2009,
    theorem 4): `mean + sqrt(2 V q / n) + 7 (high - low) q / (3 (n - 1))`, `q = ln(2 P / delta)` and
    V the sample variance; better for many episodes of small spread.

    Args:
      costs: `[P, n]` undiscounted cost returns, independent episodes.
      threshold: b.
      low: no cost return is below it, such as 0.
      high: none is above it, such as the episode's length.
      delta: probability that any of the P limits is wrong.
      method: one of `METHODS`; picking the lower of both would need half of delta for each.

    Raises:
      UserError: another shape, a cost outside of the range, or too few episodes.
    """
    check_choice("method", method, METHODS)
    check_range("delta", delta, low=1e-12, high=1 - 1e-12)
    costs = np.asarray(costs, np.float64)
    if costs.ndim != 2 or costs.shape[1] < 2:
        raise UserError(f"costs have shape {costs.shape}: give [P, n] with n >= 2 episodes each.")
    if not (low < high and (costs >= low).all() and (costs <= high).all()):
        raise UserError(
            f"costs reach from {costs.min():g} to {costs.max():g}, outside of [{low:g}, {high:g}]: "
            "give the range that holds for every episode."
        )
    points, episodes = costs.shape
    mean = costs.mean(1)
    if method == "hoeffding":
        upper = mean + (high - low) * math.sqrt(math.log(points / delta) / (2 * episodes))
    else:
        log = math.log(2 * points / delta)
        spread = np.sqrt(2 * costs.var(1, ddof=1) * log / episodes)
        upper = mean + spread + 7 * (high - low) * log / (3 * (episodes - 1))
    return SeedCheck(mean, upper, upper <= threshold)


def safe_seeds(
    problem: Problem, costs: np.ndarray, low: float, high: float, delta: float
) -> np.ndarray:
    """Returns the mask `[Z]` of those seeds that are shown to be safe, by Bernstein's bound.

    Args:
      problem: with P seeds; a seed has to be safe at each of its thresholds.
      costs: `[P, n, C]`, else as in `check_seeds`.
      low: as in `check_seeds`.
      high: as in `check_seeds`.
      delta: that any unsafe one passes; the constraints share it.

    Raises:
      UserError: as `check_seeds`.
    """
    places, (_, constraints) = np.flatnonzero(problem.seed), problem.thresholds.shape
    if costs.ndim != 3 or costs.shape[::2] != (len(places), constraints):
        raise UserError(
            f"costs have shape {costs.shape}: give [{len(places)}, episodes, {constraints}]."
        )
    least = np.asarray(problem.thresholds, np.float64).min(0)
    found = [
        check_seeds(costs[..., i], b, low, high, delta / constraints, "bernstein").safe
        for i, b in enumerate(least)
    ]
    mask = np.zeros(problem.seed.shape, bool)
    mask[places] = np.all(found, 0)
    return mask
