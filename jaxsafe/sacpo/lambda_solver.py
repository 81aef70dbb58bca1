# SPDX-License-Identifier: Apache-2.0
"""Chooses lambda for a level of safety from scored samples, without a sweep of training runs.

Of answers y_1..y_K to each prompt from the reference, the optimum at lambda weighs them by

  w_k proportional to exp((r_k + lambda g_k) / beta)

so that E[label](lambda) is a weighted mean (self-normalised importance sampling), known for every
lambda from one set of samples. Scores r and g may come from reward models, from programs, or from
two aligned policies themselves: `implicit_scores` gives r = beta log(pi_H / pi_ref) and
g = beta' log(pi_HS / pi_H). Preferences fix g only up to a constant per prompt, which leaves the
weights alone; so what is asked of E[label] needs labels of its own, such as whether it is safe.

The weights are trusted as far as they rest on many samples: the solver refuses where their
effective sample size collapses.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxsafe.core.checks import UserError, check_range


class Point(NamedTuple):
    """What the samples say of one lambda.

    Attributes:
      multiplier: lambda.
      safety: E[label].
      standard_error: of that, over prompts; 0 where there is one prompt only.
      reward: E[r].
      effective_samples: mean over prompts of 1 / sum of w^2, between 1 and K.
    """

    multiplier: float
    safety: float
    standard_error: float
    reward: float
    effective_samples: float


class Choice(NamedTuple):
    """What `choose` found.

    Attributes:
      multiplier: the least lambda that reaches the level.
      temperature: beta / lambda, of the safety stage; infinite where none is needed.
      point: what is expected there.
    """

    multiplier: float
    temperature: float
    point: Point


def implicit_scores(
    log_policy: ArrayLike, log_reference: ArrayLike, temperature: float
) -> np.ndarray:
    """t log(pi / pi_ref) of answers `[...]`: the score that a DPO stage has learnt."""
    return temperature * (np.asarray(log_policy, np.float64) - np.asarray(log_reference))


def expect(
    reward: ArrayLike,
    safety: ArrayLike,
    beta: float,
    multiplier: float,
    labels: ArrayLike | None = None,
) -> Point:
    """What the optimum at a multiplier comes to.

    Args:
      reward: r `[X, K]` of K answers from the reference to each of X prompts.
      safety: g `[X, K]`, the score that the safety stage aligns to.
      beta: weight of the KL divergence.
      multiplier: lambda.
      labels: `[X, K]`, what the level is asked of; None: g.

    Raises:
      UserError: arrays of other shapes, or values that are not finite.
    """
    r, g, wanted = _checked(reward, safety, labels, beta)
    return _point(r, g, wanted, beta, multiplier)


def _point(
    r: np.ndarray, g: np.ndarray, wanted: np.ndarray, beta: float, multiplier: float
) -> Point:
    logits = (r + multiplier * g) / beta
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    each = (weights * wanted).sum(1)
    spread = each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else 0.0
    effective = float(np.mean(1 / np.square(weights).sum(1)))
    return Point(
        multiplier, float(each.mean()), float(spread), float((weights * r).sum(1).mean()), effective
    )


def choose(
    reward: ArrayLike,
    safety: ArrayLike,
    beta: float,
    level: float,
    labels: ArrayLike | None = None,
    most: float = 100.0,
    least_effective: float = 2.0,
) -> Choice:
    """Returns the least lambda whose optimum is expected to have E[label] of `level`.

    Args:
      reward: as in `expect`, like the next two.
      safety: g.
      beta: weight of the KL divergence.
      level: b.
      labels: what the level is asked of; None: g, whose expectation grows with lambda. Labels that
        g does not predict may not; then the first crossing of a grid of 200 is refined.
      most: the largest lambda to consider.
      least_effective: effective samples per prompt below which the answer is refused.

    Raises:
      UserError: malformed arrays; a level that no lambda up to `most` reaches; or weights that rest
        on too few samples.
    """
    r, g, wanted = _checked(reward, safety, labels, beta)

    def at(multiplier: float) -> Point:
        return _point(r, g, wanted, beta, multiplier)

    # Dense near 0, where most of the change is.
    grid = most * np.linspace(0, 1, 200) ** 3
    reached = next((i for i, x in enumerate(grid) if at(x).safety >= level), None)
    if reached is None:
        best = max((at(x) for x in grid), key=lambda point: point.safety)
        raise UserError(
            f"level={level:g} is not reached up to lambda={most:g}: the samples give "
            f"{best.safety:.4g} at most, at lambda={best.multiplier:.4g}. Lower the level, raise "
            "most, or sample more answers."
        )
    high = float(grid[reached])
    if reached:
        high = least(lambda x: at(x).safety >= level, float(grid[reached - 1]), high)
    point = at(high)
    # Equal weights come to the number of samples but for rounding.
    if point.effective_samples < least_effective * (1 - 1e-6):
        raise UserError(
            f"lambda={high:.4g} reaches level={level:g} by {point.effective_samples:.2f} effective "
            f"samples per prompt of {r.shape[1]}, fewer than least_effective={least_effective:g}: "
            "sample more answers, or lower the level."
        )
    return Choice(high, beta / high if high else np.inf, point)


def least(reached: Callable[[float], bool], low: float, high: float) -> float:
    """Returns where `reached` turns true, by bisection to the last bit.

    Args:
      reached: false at `low`, true at `high`.
      low: below the answer.
      high: the answer, or above it.
    """
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def curve(
    reward: ArrayLike,
    safety: ArrayLike,
    beta: float,
    multipliers: ArrayLike,
    labels: ArrayLike | None = None,
) -> list[Point]:
    """`expect` at every multiplier, for a plot of what a sweep would find."""
    r, g, wanted = _checked(reward, safety, labels, beta)
    return [_point(r, g, wanted, beta, float(x)) for x in np.asarray(multipliers)]


def _checked(
    reward: ArrayLike, safety: ArrayLike, labels: ArrayLike | None, beta: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    check_range("beta", beta, 1e-12)
    given = {"reward": reward, "safety": safety, "labels": safety if labels is None else labels}
    arrays = {name: np.asarray(x, np.float64) for name, x in given.items()}
    shape = arrays["reward"].shape
    for name, array in arrays.items():
        if array.ndim != 2 or array.shape != shape or not array.size:
            raise UserError(
                f"{name} has shape {array.shape}, reward {shape}: give [X, K] for each."
            )
        if not np.isfinite(array).all():
            raise UserError(f"{name} holds a value that is not finite: leave that answer out.")
    return arrays["reward"], arrays["safety"], arrays["labels"]
