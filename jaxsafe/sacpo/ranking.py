# SPDX-License-Identifier: Apache-2.0
"""Win rates with intervals over prompts, Elo as the paper computes it, and Bradley-Terry's fit."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from jaxsafe.core import stats
from jaxsafe.core.checks import UserError

_SCALE = 400 / np.log(10)  # Elo points for each unit of log odds


class WinRate(NamedTuple):
    """Wins of one policy over another: win 1, tie 0.5, unknown left out.

    `low` and `high` are the 95% bootstrap interval over prompts.
    """

    rate: float
    low: float
    high: float
    known: int
    unknown: int


class Game(NamedTuple):
    """One comparison: names, and 1, 0 or anything between for the first."""

    one: str
    other: str
    outcome: float


def win_rate(outcomes: Sequence[float] | np.ndarray) -> WinRate:
    """Of outcomes `[N]` from `judge.compare`, NaN where unknown.

    Raises:
      UserError: none is known.
    """
    values = np.asarray(outcomes, np.float64)
    known = values[~np.isnan(values)]
    if not known.size:
        raise UserError(f"of {values.size} outcomes none is known: look at the judge's replies.")
    low, high = stats.stratified_bootstrap_ci(known, np.mean)
    return WinRate(float(known.mean()), low, high, known.size, int(values.size - known.size))


def elo(
    games: Sequence[Game],
    anchor: str,
    literal: bool = False,
    epochs: int = 10,
    shuffles: int = 50,
    k: float = 32.0,
    seed: int = 0,
) -> dict[str, float]:
    """Elo ratings, the anchor's being 1000 (line/sacpo src/evaluate).

    Each shuffle plays all games `epochs` times from 1200; ratings are means over shuffles. Elo
    knows differences only, so they are shifted to the anchor; `literal` multiplies instead, as the
    authors do, which stretches differences by 1000 / R_anchor (papers/sacpo trap 14).

    Raises:
      UserError: there is no game, one is unknown, or the anchor plays in none.
    """
    names = _names(games, anchor)
    order = np.arange(len(games))
    rng = np.random.default_rng(seed)
    total = dict.fromkeys(names, 0.0)
    for _ in range(shuffles):
        rating = dict.fromkeys(names, 1200.0)
        for _ in range(epochs):
            rng.shuffle(order)
            for n in order.tolist():
                game = games[n]
                gap = rating[game.other] - rating[game.one]
                change = k * (game.outcome - 1 / (1 + 10 ** (gap / 400)))
                rating[game.one] += change
                rating[game.other] -= change
        for name in names:
            total[name] += rating[name] / shuffles
    if literal:
        return {name: value * 1000 / total[anchor] for name, value in total.items()}
    return {name: value + 1000 - total[anchor] for name, value in total.items()}


def bradley_terry(
    games: Sequence[Game], anchor: str, num_samples: int = 200, seed: int = 0, prior: float = 0.1
) -> dict[str, tuple[float, float, float]]:
    """Maximum-likelihood ratings on Elo's scale, the anchor's being 1000, with 95% intervals.

    Args:
      games: outcomes between 0 and 1.
      anchor: whose rating is fixed.
      num_samples: bootstrap resamples of the games.
      seed: of the resampling.
      prior: ties that each policy has had against an average one, so that a policy that never lost
        has a rating.

    Returns:
      Name -> (rating, low, high).

    Raises:
      UserError: as `elo`.
    """
    names = _names(games, anchor)
    index = {name: i for i, name in enumerate(names)}
    one, other = (np.array([index[getattr(g, n)] for g in games]) for n in ("one", "other"))
    outcome = np.array([g.outcome for g in games])
    rng = np.random.default_rng(seed)

    def fit(weight: np.ndarray) -> np.ndarray:
        def loss(skill: np.ndarray) -> tuple[float, np.ndarray]:
            gap = skill[one] - skill[other]
            value = weight @ (np.logaddexp(0, gap) - outcome * gap)
            pull = weight * (1 / (1 + np.exp(-gap)) - outcome)
            gradient = np.zeros(len(names))
            np.add.at(gradient, one, pull)
            np.add.at(gradient, other, -pull)
            value += prior * (2 * np.logaddexp(0, skill) - skill).sum()
            return value, gradient + prior * (2 / (1 + np.exp(-skill)) - 1)

        found = optimize.minimize(loss, np.zeros(len(names)), jac=True, method="L-BFGS-B").x
        return 1000 + _SCALE * (found - found[index[anchor]])

    middle = fit(np.ones(len(games)))
    counts = rng.multinomial(len(games), np.full(len(games), 1 / len(games)), num_samples)
    low, high = np.quantile([fit(c.astype(np.float64)) for c in counts], [0.025, 0.975], axis=0)
    return {n: (float(middle[i]), float(low[i]), float(high[i])) for n, i in index.items()}


def _names(games: Sequence[Game], anchor: str) -> list[str]:
    if not games:
        raise UserError("there is no game: give one at least.")
    if any(np.isnan(game.outcome) for game in games):
        raise UserError("a game's outcome is not known: leave it out, it is no tie.")
    names = list(dict.fromkeys(name for game in games for name in (game.one, game.other)))
    if anchor not in names:
        raise UserError(f"anchor={anchor!r} plays in no game: name one of {', '.join(names)}.")
    return names


def rows(verdicts: Mapping[str, np.ndarray], anchor: str) -> list[dict[str, Any]]:
    """One row per policy of its outcomes against the anchor: win rate, Elo, Bradley-Terry rating.

    Unknown outcomes are left out; where all are unknown, numbers are None.
    """
    games = [
        Game(name, anchor, float(x))
        for name, outcomes in verdicts.items()
        for x in outcomes
        if not np.isnan(x)
    ]
    ratings = bradley_terry(games, anchor) if games else {}
    points = elo(games, anchor) if games else {}
    found: list[dict[str, Any]] = []
    for name, outcomes in verdicts.items():
        if name not in ratings:
            found.append({"policy": name, "win_rate": None, "elo": None, "rating": None})
            continue
        rate, (middle, low, high) = win_rate(outcomes), ratings[name]
        found.append(
            {"policy": name, "win_rate": rate.rate}
            | {"win_rate_low": rate.low, "win_rate_high": rate.high, "elo": points[name]}
            | {"rating": middle, "rating_low": low, "rating_high": high}
        )
    return found
