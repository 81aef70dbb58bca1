# SPDX-License-Identifier: Apache-2.0
"""What a bias looks like, and whether an effect of taking it off is more than chance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jaxsafe.core.checks import UserError
from jaxsafe.tsdi import bias
from jaxsafe.tsdi.config import Config
from jaxsafe.tsdi.types import State

RESAMPLES = 10_000


class Effect(NamedTuple):
    """A paired difference."""

    mean: float
    low: float  # 95 % interval
    high: float
    p: float  # two-sided


def by_position(state: State, config: Config) -> list[dict[str, float]]:
    """One row per position: size of the bias, its error, and how far it is free of context.

    `explained` is the share of d's variance, over tokens and draws, that the bias explains;
    `beyond` the share of tokens more than two standard errors from 0, where chance alone has .0455.
    """
    table = bias.table(state, config)
    halves = np.asarray(bias.split_half(state, config))
    mean, error = np.asarray(table.bias), np.asarray(table.error)
    within = np.asarray(state.squares) / max(float(state.count) - 1, 1)
    rows = []
    for i in range(config.positions):
        between = mean[i].var()
        rows.append(
            {
                "position": i,
                "divergence": float(state.divergence[i]),
                "mean_abs": float(np.abs(mean[i]).mean()),
                "max_abs": float(np.abs(mean[i]).max()),
                "error": float(error[i].mean()),
                "split_half": float(halves[i]),
                "explained": float(between / max(between + within[i].mean(), 1e-30)),
                "beyond": float((np.abs(mean[i]) > 2 * error[i]).mean()),
            }
        )
    return rows


def top_tokens(
    state: State, config: Config, position: int, name: Callable[[int], str], count: int = 20
) -> list[dict[str, Any]]:
    """The tokens most and least preferred by the safe model, largest bias first.

    Args:
      state: moments.
      config: of the estimate.
      position: of the answer, from 0.
      name: a token's text.
      count: tokens of each sign at most.

    Raises:
      UserError: the table has no such position.
    """
    if not 0 <= position < config.positions:
        raise UserError(
            f"position={position} is out of range: give one in [0, {config.positions - 1}]."
        )
    table = bias.table(state, config)
    row, error = np.asarray(table.bias[position]), np.asarray(table.error[position])
    order = np.argsort(-row, kind="stable")
    chosen = [i for i in order[:count] if row[i] > 0] + [i for i in order[-count:] if row[i] < 0]
    return [
        {
            "token": name(int(i)),
            "id": int(i),
            "bias": float(row[i]),
            "low": float(row[i] - 1.96 * error[i]),
            "high": float(row[i] + 1.96 * error[i]),
            "reference": float(state.reference[position, i]),
        }
        for i in chosen
    ]


def paired_bootstrap(
    before: ArrayLike, after: ArrayLike, num_samples: int = RESAMPLES, seed: int = 0
) -> Effect:
    """Mean of `after - before` with a percentile interval.

    Prompts are drawn with replacement, and so are training seeds where there are several, each by
    itself (the crossed bootstrap); scores of one prompt under one seed stay together. The p value
    is twice the smaller share of resampled means on either side of 0. With five seeds intervals are
    too narrow, and with one they are of that one seed's models.

    Args:
      before: `[N]` scores by prompt, or `[seeds, N]`.
      after: the same.
      num_samples: resampled means.
      seed: of the resampling.

    Raises:
      UserError: shapes differ, or there is no prompt.
    """
    before, after = np.asarray(before, float), np.asarray(after, float)
    if before.shape != after.shape or before.ndim not in (1, 2) or not before.size:
        raise UserError(
            f"scores have shapes {before.shape} and {after.shape}: give one number per prompt, or "
            "[seeds, prompts]."
        )
    difference = np.atleast_2d(after - before)
    rng = np.random.default_rng(seed)
    # How often each seed and each prompt is drawn.
    seeds, prompts = (rng.multinomial(n, np.full(n, 1 / n), num_samples) for n in difference.shape)
    means = ((seeds @ difference) * prompts).sum(1) / difference.size
    low, high = np.quantile(means, [0.025, 0.975])
    side = min((means <= 0).mean(), (means >= 0).mean())
    return Effect(float(difference.mean()), float(low), float(high), float(min(1.0, 2 * side)))


def mcnemar(before: ArrayLike, after: ArrayLike) -> Effect:
    """Exact test of paired yes-or-no outcomes `[N]`: do as many turn to yes as turn to no?

    McNemar 1947 in its binomial form. The interval is of the share of all prompts, from
    Clopper and Pearson's of the share among those that turned.

    Raises:
      UserError: lengths differ, or there is no prompt.
    """
    before, after = np.asarray(before, bool), np.asarray(after, bool)
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise UserError(
            f"outcomes have shapes {before.shape} and {after.shape}: give one per prompt."
        )
    gained, lost = int((~before & after).sum()), int((before & ~after).sum())
    turned, size = gained + lost, before.size
    if not turned:
        return Effect(0.0, 0.0, 0.0, 1.0)
    test = stats.binomtest(gained, turned, 0.5)
    interval = test.proportion_ci(0.95, "exact")
    low, high = ((2 * share - 1) * turned / size for share in (interval.low, interval.high))
    return Effect((gained - lost) / size, float(low), float(high), float(test.pvalue))


def holm(p_values: ArrayLike) -> np.ndarray:
    """P values `[N]` adjusted so that no test of several errs with more than their level.

    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted
