# SPDX-License-Identifier: Apache-2.0
"""DSRL's pre-processing of trajectories, as pure functions.

The filters are those of liuzuxin/DSRL, `dsrl/offline_env.py`, written anew: nothing is drawn,
printed or changed in place, and all chance comes from a NumPy generator. Where DSRL's own fail or
surprise, the function says so.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxsafe.core.checks import UserError, check_range
from jaxsafe.data.dsrl import Reference
from jaxsafe.data.trajectories import Trajectories, select, totals


def grid_filter(
    rng: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    bins: tuple[int, int] = (10, 50),
    most: int = 5,
    least: int = 2,
    dsrl_compat: bool = False,
) -> np.ndarray:
    """Thins out crowded cells of the (x, y) plane; returns the indices kept `[K]`, in order.

    Args:
      rng: chooses which points of a crowded cell stay.
      x: `[E]`, by custom the cost returns.
      y: `[E]`, by custom the returns.
      bins: cells along x and y, over the range of the data.
      most: points that a cell keeps.
      least: a cell with so many points or fewer, and no more than `most`, loses them all.
      dsrl_compat: the greatest x and y lie in cells of their own, beyond the last, as in DSRL.

    Raises:
      UserError: a number of cells is below 1, or `most` or `least` is negative.
    """
    for name, value, low in (("bins", min(bins), 1), ("most", most, 0), ("least", least, 0)):
        check_range(name, value, low=low)
    cells = [_cells(v, n, dsrl_compat) for v, n in ((x, bins[0]), (y, bins[1]))]
    _, cell, count = np.unique(
        cells[0] * (bins[1] + 1) + cells[1], return_inverse=True, return_counts=True
    )
    # In random order, the place of each point among those of its cell.
    order = rng.permutation(len(cell))
    order = order[np.argsort(cell[order], kind="stable")]
    place = np.empty(len(cell), np.int64)
    place[order] = np.arange(len(cell)) - np.repeat(np.cumsum(count) - count, count)
    dropped = (count <= least) & (count <= most)
    return np.flatnonzero((place < most) & ~dropped[cell])


def _cells(values: np.ndarray, bins: int, dsrl_compat: bool) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if not len(values) or values.max() == values.min():
        return np.zeros(len(values), np.int64)
    width = (values.max() - values.min()) / bins
    cells = np.floor_divide(values - values.min(), width).astype(np.int64)
    return np.minimum(cells, bins if dsrl_compat else bins - 1)


def relabel_outliers(
    rng: np.random.Generator,
    data: Trajectories,
    task: Reference,
    threshold: float,
    fraction: float,
) -> tuple[Trajectories, np.ndarray]:
    """Makes risky episodes look safe and good: at least one, and `fraction` of all.

    Of episodes with a cost return of `cost_max / 2` and a return of `reward_max / 2` or more, the
    rewards grow by half and the costs become 1 at a number of random steps that is drawn below the
    threshold.

    Returns:
      `(trajectories, indices of the episodes changed)`.

    Raises:
      UserError: there are too few such episodes, the threshold is below 1, or an episode is shorter
        than its new cost return.
    """
    check_range("threshold", threshold, low=1)
    check_range("fraction", fraction, low=0, high=1)
    returns, costs = totals(data)
    number = max(int(len(returns) * fraction), 1)
    risky = (costs >= task.cost_max / 2) & (returns >= task.reward_max / 2)
    if risky.sum() < number:
        raise UserError(
            f"outliers={fraction} asks for {number} episodes and {risky.sum()} have half the "
            "task's greatest cost and return: lower it."
        )
    chosen = rng.choice(np.flatnonzero(risky), number, replace=False)
    drawn = rng.integers(int(threshold), size=number)
    rewards, new_costs = data.rewards.copy(), data.costs.copy()
    for episode, cost in zip(chosen.tolist(), drawn.tolist(), strict=True):
        rows = np.arange(int(data.starts[episode]), int(data.ends[episode]))
        if len(rows) < cost:
            raise UserError(
                f"outliers: episode {episode} has {len(rows)} steps, too few for a cost return of "
                f"{cost}: lower threshold={threshold}."
            )
        rewards[rows] *= np.float32(1.5)
        new_costs[rows] = 0
        new_costs[rng.choice(rows, cost, replace=False)] = 1
    return data._replace(rewards=rewards, costs=new_costs), chosen


def outside(
    returns: np.ndarray,
    costs: np.ndarray,
    ranges: Sequence[tuple[float, float, float, float]],
    span: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> np.ndarray:
    """Which episodes lie in none of the boxes (`inpaint_ranges`), `[E]` bool.

    Args:
      returns: `[E]`.
      costs: `[E]`.
      ranges: `(cost low, cost high, return low, return high)`, as fractions of the span.
      span: `((least, greatest) cost, (least, greatest) return)`; those of the data by default.
    """
    if span is None:
        span = ((costs.min(), costs.max()), (returns.min(), returns.max()))
    kept = np.ones(len(returns), bool)
    for box in ranges:
        inside = np.ones(len(returns), bool)
        for values, (low, high), (a, b) in zip(
            (costs, returns), span, (box[:2], box[2:]), strict=True
        ):
            reach = high - low
            inside &= (reach * a + low <= values) & (values <= reach * b + low)
        kept &= ~inside
    return kept


def harder(returns: np.ndarray, costs: np.ndarray, threshold: float, epsilon: float) -> np.ndarray:
    """Which episodes stay when the best are hidden (`epsilon`), `[E]` bool.

    Where epsilon > 0, safe episodes within epsilon of the best safe return go, and learning gets
    harder. Where epsilon < 0, risky ones within -epsilon of the best risky return go, and it gets
    easier. DSRL looks these up among all episodes, and after `outside` takes wrong ones.
    """
    pool = costs <= threshold if epsilon > 0 else costs > threshold
    if epsilon == 0 or not pool.any():
        return np.ones(len(returns), bool)
    return ~(pool & (returns >= returns[pool].max() - abs(epsilon)))


def add_noise(rng: np.random.Generator, data: Trajectories, scale: float) -> Trajectories:
    """Adds normal noise to both observations, of `scale` times the deviation of all their entries.

    The two draws are independent, as DSRL's: what a step ends in is then no longer what the next
    one begins with.

    Raises:
      UserError: `scale` is below 0.
    """
    check_range("noise", scale, low=0)

    def blurred(x: np.ndarray) -> np.ndarray:
        return (x + scale * rng.normal(0.0, x.std(), x.shape)).astype(np.float32)

    first = blurred(data.observations)
    return data._replace(observations=first, next_observations=blurred(data.next_observations))


@dataclasses.dataclass(frozen=True)
class Filters:
    """DSRL's pre-processing; by default nothing changes.

    Attributes:
      thin: apply `grid_filter` to (cost return, return), DSRL's `density` below 1.
      bins: its cells.
      most: its points per cell at most.
      least: cells with so few points lose them.
      outliers: fraction of episodes to relabel, None for none.
      inpaint: boxes to cut out, as `outside` takes them.
      epsilon: as `harder` takes it.
      noise: scale of the noise on observations.
      threshold: cost threshold b, for `outliers` and `epsilon`.
      dsrl_compat: as in `grid_filter`.
    """

    thin: bool = False
    bins: tuple[int, int] = (10, 50)
    most: int = 5
    least: int = 2
    outliers: float | None = None
    inpaint: tuple[tuple[float, float, float, float], ...] = ()
    epsilon: float = 0.0
    noise: float = 0.0
    threshold: float | None = None
    dsrl_compat: bool = False


def preprocess(
    rng: np.random.Generator, data: Trajectories, task: Reference, filters: Filters
) -> Trajectories:
    """Applies the filters in DSRL's order; outliers survive the boxes that would cut them out.

    Raises:
      UserError: a filter needs the threshold and it is None, a value is out of range, or no episode
        is left.
    """
    returns, costs = totals(data)
    span = ((costs.min(), costs.max()), (returns.min(), returns.max()))
    if filters.thin:
        data = select(
            data,
            grid_filter(
                rng, costs, returns, filters.bins, filters.most, filters.least, filters.dsrl_compat
            ),
        )
        _check_left(data, "thin")
    if (filters.outliers is not None or filters.epsilon) and filters.threshold is None:
        raise UserError("threshold=None: outliers and epsilon need a cost threshold; set one.")
    changed = np.zeros(0, np.int64)
    threshold = filters.threshold or 0.0
    if filters.outliers is not None:
        data, changed = relabel_outliers(rng, data, task, threshold, filters.outliers)
    returns, costs = totals(data)
    kept = outside(returns, costs, filters.inpaint, span)
    kept[changed] = True
    data = select(data, np.flatnonzero(kept))
    _check_left(data, "inpaint")
    if filters.epsilon:
        kept = harder(*totals(data), threshold, filters.epsilon)
        data = select(data, np.flatnonzero(kept))
        _check_left(data, "epsilon")
    return add_noise(rng, data, filters.noise) if filters.noise else data


def _check_left(data: Trajectories, name: str) -> None:
    if not len(data.starts):
        raise UserError(f"{name} leaves no episode: choose it less strict.")
