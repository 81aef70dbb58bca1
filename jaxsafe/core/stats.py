# SPDX-License-Identifier: Apache-2.0
"""Statistics of a few seeds: IQM, stratified bootstrap, exact binomial intervals.

References:
  Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS
    2021, arXiv 2108.13264 (interquartile mean and stratified bootstrap).
  Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26, 1934.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jaxsafe.core.checks import UserError


def iqm(x: ArrayLike, axis: int | None = None) -> Any:
    """Returns the interquartile mean: the mean without the lowest and the highest quarter.

    Args:
      x: values of any shape; `floor(n / 4)` of them are cut at each end, so fewer than four give
        the plain mean.
      axis: the axis to reduce; `None` takes all values together.

    Returns:
      A scalar, or the shape of `x` without `axis`.
    """
    values = np.asarray(x)
    if axis is None:
        values, axis = values.ravel(), 0
    return stats.trim_mean(values, 0.25, axis=axis)


def stratified_bootstrap_ci(
    scores: ArrayLike,
    statistic: Callable[..., Any] = iqm,
    level: float = 0.95,
    num_samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns a percentile bootstrap interval of a statistic over seeds and tasks.

    Seeds are drawn with replacement within each task by itself, so every resample keeps all tasks
    (arXiv 2108.13264, section 4.2). With few seeds such intervals are too narrow; with one seed
    the interval is a point.

    Args:
      scores: `[num_seeds]` or `[num_seeds, num_tasks]`, finite.
      statistic: `statistic(x, axis=1)` maps `[num_samples, n]` to `[num_samples]`.
      level: the share of repetitions that the interval should cover, in (0, 1).
      num_samples: how many resamples.
      seed: of the resampling; equal arguments give equal intervals.

    Returns:
      The low and the high end.

    Raises:
      UserError: no scores, scores that are not finite, another rank, or a level outside (0, 1).
    """
    table = _scores(scores)
    _check_level(level)
    if num_samples < 1:
        raise UserError(f"num_samples={num_samples} is out of range: give 1 or more.")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, table.shape[0], size=(num_samples, *table.shape))
    resampled = np.take_along_axis(table[None], picks, axis=1).reshape(num_samples, -1)
    tail = (1 - level) / 2
    low, high = np.quantile(statistic(resampled, axis=1), [tail, 1 - tail])
    return float(low), float(high)


def band(y: ArrayLike, num_samples: int = 1000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the IQM `[T]` over the seeds of `y` `[num_seeds, T]` with its 95% interval.

    Each step is taken by itself, over its finite values; where there are none all three are NaN.
    """
    y = np.asarray(y, dtype=np.float64)
    rows = np.full((3, y.shape[1]), np.nan)
    whole = np.isfinite(y).all(axis=0)
    if whole.any() and len(y):
        # Every step is resampled alike, so those with all their seeds are done together.
        picks = np.random.default_rng(0).integers(0, len(y), size=(num_samples, len(y)))
        resampled = iqm(y[:, whole][picks], axis=1)
        rows[0, whole] = iqm(y[:, whole], axis=0)
        tail = (1 - 0.95) / 2
        rows[1:, whole] = np.quantile(resampled, [tail, 1 - tail], axis=0)
    for t in np.flatnonzero(~whole):
        seen = y[np.isfinite(y[:, t]), t]
        if seen.size:
            rows[:, t] = (iqm(seen), *stratified_bootstrap_ci(seen, num_samples=num_samples))
    return rows[0], rows[1], rows[2]


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the exact two-sided interval of a probability after `k` successes in `n` trials.

    Raises:
      UserError: unless `0 <= k <= n`, `n >= 1` and `0 < level < 1`.
    """
    _check_level(level)
    if n < 1 or not 0 <= k <= n:
        raise UserError(f"k={k}, n={n} is out of range: give n >= 1 trials and 0 <= k <= n.")
    interval = stats.binomtest(int(k), int(n)).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def summarise(scores: ArrayLike) -> dict[str, float]:
    """Returns the numbers of a result table as plain floats.

    Args:
      scores: `[num_seeds]` or `[num_seeds, num_tasks]`, finite.

    Returns:
      `mean std iqm min max` over all scores (`std` with n - 1, and 0 for one score), `ci_low` and
      `ci_high` of the IQM at 95% by `stratified_bootstrap_ci`, and `n`, the number of seeds.

    Raises:
      UserError: as `stratified_bootstrap_ci`.
    """
    table = _scores(scores)
    low, high = stratified_bootstrap_ci(table)
    return {
        "mean": float(table.mean()),
        "std": float(table.std(ddof=1)) if table.size > 1 else 0.0,
        "iqm": float(iqm(table)),
        "ci_low": low,
        "ci_high": high,
        "min": float(table.min()),
        "max": float(table.max()),
        "n": table.shape[0],
    }


def _scores(scores: ArrayLike) -> np.ndarray:
    """Returns scores as float64 `[num_seeds, num_tasks]`."""
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim not in (1, 2):
        raise UserError(
            f"scores have shape {table.shape}: give [num_seeds] or [num_seeds, num_tasks]."
        )
    if table.size == 0:
        raise UserError(f"scores have shape {table.shape}: give at least one score.")
    bad = int((~np.isfinite(table)).sum())
    if bad:
        raise UserError(f"scores hold {bad} of {table.size} values that are not finite: drop them.")
    return table.reshape(table.shape[0], -1)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"level={level} is out of range: give a value between 0 and 1.")
