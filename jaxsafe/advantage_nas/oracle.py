# SPDX-License-Identifier: Apache-2.0
"""What random search reaches on a table, exactly, by order statistics.

A search of k queries draws k distinct architectures, keeps the one of best selection score (say,
validation accuracy), and reports another score of it (test accuracy). With the n architectures in
order of selection, best first, rank r is the one kept with probability

  P(r) = C(n - 1 - r, k - 1) / C(n, k);

ties on selection share theirs equally. A search method must beat this at equal queries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxsafe.core.checks import UserError


class Curve(NamedTuple):
    """Random search after each number of queries."""

    queries: np.ndarray  # [Q] k
    mean: np.ndarray  # [Q] of the reported score
    sd: np.ndarray  # [Q] of one search


def kept_probability(n: int, k: int, replacement: bool = False) -> np.ndarray:
    """The probability `[n]` that each rank, best first, is the best of k draws."""
    if replacement:
        above = np.arange(n + 1) / n  # share of ranks better than r
        return np.diff(1 - (1 - above) ** k)
    rank = np.arange(n - 1)
    ratio = np.clip((n - k - rank) / (n - 1 - rank), 0, None)
    return k / n * np.concatenate([[1.0], np.cumprod(ratio)])


def random_search(
    selection: ArrayLike, score: ArrayLike, queries: Sequence[int], replacement: bool = False
) -> Curve:
    """The exact curve of random search, in float64.

    Args:
      selection: `[A]`, by which a search keeps its best; greater is better.
      score: `[A]`, what is reported of the one kept.
      queries: numbers of queries k.
      replacement: architectures are drawn with replacement.

    Raises:
      UserError: the two are of different sizes, or a k is not in [1, A].
    """
    by, score = np.asarray(selection, np.float64), np.asarray(score, np.float64)
    if by.shape != score.shape or by.ndim != 1:
        raise UserError(f"selection {by.shape} and score {score.shape}: give two of one size [A].")
    for k in queries:
        if not 1 <= k <= len(by):
            raise UserError(f"queries={k} is out of range: give 1 to {len(by)} architectures.")
    order = np.argsort(-by, kind="stable")
    # Ties as one group: the mean of the score and of its square over the group.
    _, group, counts = np.unique(-by[order], return_inverse=True, return_counts=True)
    first = np.bincount(group, score[order]) / counts
    second = np.bincount(group, score[order] ** 2) / counts
    mean, sd = [], []
    for k in queries:
        weight = np.bincount(group, kept_probability(len(by), k, replacement))
        mean.append(float(weight @ first))
        sd.append(max(float(weight @ second) - mean[-1] ** 2, 0.0) ** 0.5)
    return Curve(np.asarray(queries), np.array(mean), np.array(sd))
