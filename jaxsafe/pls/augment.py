# SPDX-License-Identifier: Apache-2.0
"""CDT's augmentation: good episodes relabelled with targets just out of reach.

As in OSRL `common/dataset.py`: targets are spread over the data's costs, each with a return above
the Pareto frontier, and a near episode that costs no more than its target takes that target's
place, so that asking for too much leads to what is safe. No trajectory is copied: a relabelled
episode is one of the data with another line for its curves of to-go.
"""

from typing import NamedTuple

import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.data import filters
from jaxsafe.pls.policy_config import PolicyConfig


class Relabelled(NamedTuple):
    """M relabelled episodes.

    Attributes:
      episode: which of the data each is, `[M]`.
      cost: its new cost return, `[M]`.
      reward: its new return, `[M]`.
    """

    episode: np.ndarray
    cost: np.ndarray
    reward: np.ndarray


def frontier(costs: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Indices of episodes `[E]` that no other beats in both, by cost; of equal ones the first."""
    order = np.lexsort((np.arange(len(costs)), -returns, costs))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], returns[order][:-1]]))
    return order[returns[order] > best]


def fit(costs: np.ndarray, returns: np.ndarray, degree: int, guard: bool = True) -> np.ndarray:
    """Coefficients of a polynomial through a frontier, highest power first, for `np.polyval`.

    Args:
      costs: of the frontier's points, `[P]`.
      returns: of them, `[P]`.
      degree: of the polynomial.
      guard: lower the degree where there are too few points to tell it.

    Raises:
      UserError: the points do not determine the polynomial, which OSRL's fit answers with NaN or
        with large swings.
    """
    known = len(np.unique(costs)) - 1
    if degree > known:
        if not guard:
            raise UserError(
                f"policy.augment_degree={degree} has no fit through a Pareto frontier of "
                f"{known + 1} points: set it to {known}, or policy.guard_degree."
            )
        degree = known
    return np.polyfit(costs, returns, degree)


def nearest(
    rng: np.random.Generator,
    points: np.ndarray,
    targets: np.ndarray,
    decrease: float,
    beta: float,
    pairing: str = "paired",
) -> np.ndarray:
    """Chooses an episode for each target, and stand-ins for those chosen again.

    The nearest episode of those that cost no more than the target. Where one is nearest to several
    targets it serves the first, and the others get one that costs no more than it and whose return
    is at most `decrease` lower, by probability 1 / (distance + beta).

    Args:
      rng: draws the stand-ins.
      points: `[E, 2]` cost and return.
      targets: `[M, 2]`, likewise; none costs less than every episode.
      decrease: see above.
      beta: see above.
      pairing: `"grouped"` gives OSRL's order: all of one nearest episode's after each other, as if
        the targets stood in that order too, which they do not (trap c of the notes).

    Returns:
      indices `[M]`.
    """
    first = np.array([_closest(points, target) for target in targets], np.int64)
    unique, start, group = np.unique(first, return_index=True, return_inverse=True)
    chosen = first.copy()
    for i in np.argsort(start):
        place = np.flatnonzero(group == i)[1:]
        if not len(place):
            continue
        point = points[unique[i]]
        near = np.flatnonzero((points[:, 0] <= point[0]) & (points[:, 1] >= point[1] - decrease))
        weight = 1 / (np.hypot(*(points[near] - point).T) + beta)
        chosen[place] = rng.choice(near, len(place), p=weight / weight.sum())
    if pairing == "grouped":
        # In the order in which each nearest episode was met first; a stable sort keeps the rest.
        return chosen[np.argsort(start[group], kind="stable")]
    return chosen


def _closest(points: np.ndarray, target: np.ndarray) -> int:
    allowed = np.flatnonzero(points[:, 0] <= target[0])
    return int(allowed[np.argmin(np.hypot(*(points[allowed] - target).T))])


def relabel(
    rng: np.random.Generator, returns: np.ndarray, costs: np.ndarray, config: PolicyConfig
) -> Relabelled:
    """Makes `augment` times as many relabelled episodes as there are episodes.

    Args:
      rng: of the thinning, the targets' returns and the stand-ins.
      returns: of the data's episodes, `[E]`.
      costs: their cost returns, `[E]`.
      config: the fields `augment*` and `guard_degree`.

    Raises:
      UserError: the frontier does not determine the polynomial and `guard_degree` is off, or
        `augment_max_reward` lies below the frontier.
    """
    returns, costs = np.asarray(returns, np.float64), np.asarray(costs, np.float64)
    number = int(config.augment * len(returns))
    if not number:
        return Relabelled(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    kept = np.arange(len(returns))
    if config.augment_thin:
        thinned = filters.grid_filter(rng, costs, returns, most=10, least=2)
        kept = thinned if len(thinned) else kept  # few episodes are all rare
    best = kept[frontier(costs[kept], returns[kept])]
    curve = fit(costs[best], returns[best], config.augment_degree, config.guard_degree)
    target_costs = np.linspace(costs.min(), costs.max(), number)
    low = np.polyval(curve, target_costs) + config.augment_min_reward
    span = np.ptp(returns)
    high = config.augment_max_reward
    high = max(returns.max() + 0.1 * span, low.max()) if high is None else high
    if high < low.max():
        raise UserError(
            f"policy.augment_max_reward={high:g} lies below the Pareto frontier's {low.max():g}: "
            "set it above that, or to none."
        )
    target_rewards = rng.uniform(low, high)
    decrease = 0.1 * span if config.augment_decrease is None else config.augment_decrease
    episode = nearest(
        rng,
        np.stack([costs, returns], 1),
        np.stack([target_costs, target_rewards], 1),
        decrease,
        config.augment_beta,
        config.augment_pairing,
    )
    return Relabelled(episode, target_costs, target_rewards)


def line(old: np.ndarray, new: np.ndarray, curve: str) -> np.ndarray:
    """Factor and shift `[M, 2]` that bring curves of to-go from `old` `[M]` to `new` `[M]`.

    A shift leaves an offset to the episode's end, where nothing is left to obtain (trap d). A
    factor does not, but cannot move a curve that begins at 0, nor keep its direction where the
    signs differ: these are shifted.
    """
    shift = np.stack([np.ones_like(old), new - old], 1)
    if curve == "shift":
        return shift
    possible = old * new > 0
    factor = np.divide(new, old, out=np.ones_like(old), where=possible)
    scaled = np.stack([factor, np.zeros_like(old)], 1)
    return np.where(possible[:, None], scaled, shift)
