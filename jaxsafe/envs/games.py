# SPDX-License-Identifier: Apache-2.0
"""Two robust decision problems whose answers are known in closed form; `game_tasks` plays them.

Each has one policy number x and one uncertain number w in [low, high]. `closed_form` gives the x of
the best worst case, of the best mean over uniform w, and of the best return at one nominal w.

Source: own derivations. The quadratic game needs two candidates at once, as its minimax policy is
worst at two w; in the linear-quadratic regulator a wrong x has an infinite cost.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field


@dataclasses.dataclass(frozen=True)
class QuadraticGame:
    """One step: play a in [low, high], pay (base + slope w)(a - w)^2; the policy number is a."""

    base: float = field(1.0, "Weight of the cost at w = 0.")
    slope: float = field(8.0, "Its growth with w.")
    low: float = field(0.0, "Least w and a.")
    high: float = field(1.0, "Greatest w and a.")
    nominal: float = field(0.5, "The w that td3 trains on.")


@dataclasses.dataclass(frozen=True)
class ScalarRegulator:
    """x' = a x + w u from x = start, stage cost x^2 + rho u^2, discount gamma; u = -k x, of k.

    The gain w of the actuator is uncertain; `low` is above 0.
    """

    a: float = field(1.2, "Growth of x by itself.")
    rho: float = field(0.1, "Cost of u^2.", low=0.0)
    gamma: float = field(0.99, "Discount; algo.gamma has to be the same.", low=0.0, high=1.0)
    start: float = field(1.0, "x at the start.")
    low: float = field(0.3, "Least w.")
    high: float = field(1.7, "Greatest w.")
    nominal: float = field(1.0, "The w that td3 trains on.")


Game = QuadraticGame | ScalarRegulator


class ClosedForm(NamedTuple):
    """Policy numbers, and the worst return of each over [low, high]; -inf where it is unbounded."""

    minimax: float
    minimax_worst: float
    randomised: float  # best mean over uniform w
    randomised_worst: float
    redrawn: float  # the same with w drawn anew at every step, as a critic blind to w takes it
    redrawn_worst: float
    nominal: float
    nominal_worst: float
    worst_at: tuple[float, ...]  # the w at which the minimax policy is worst, ascending


def closed_form(game: Game) -> ClosedForm:
    """Solves a game with any constants, by the roots of polynomials of degree three at most.

    Only the regulator's `randomised` is found by a search, along the closed form of its mean.

    Raises:
      UserError: a bound or a constant is out of range, or no policy has a finite worst case.
    """
    check(game)
    solve = _quadratic if isinstance(game, QuadraticGame) else _regulator
    minimax, randomised, redrawn, nominal = solve(game)  # type: ignore[arg-type]
    return ClosedForm(
        minimax=minimax,
        minimax_worst=worst_return(game, minimax),
        randomised=randomised,
        randomised_worst=worst_return(game, randomised),
        redrawn=redrawn,
        redrawn_worst=worst_return(game, redrawn),
        nominal=nominal,
        nominal_worst=worst_return(game, nominal),
        worst_at=_worst_at(game, minimax),
    )


def check(game: Game) -> None:
    """Raises `UserError` naming the constant and the fix."""
    numbers = dataclasses.asdict(game)
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise UserError(f"{name}={value} is not finite: give a number.")
    if game.low >= game.high:
        raise UserError(f"low={game.low:g} is not below high={game.high:g}: change one.")
    if not game.low <= game.nominal <= game.high:
        raise UserError(f"nominal={game.nominal:g} is outside [{game.low:g}, {game.high:g}].")
    if isinstance(game, QuadraticGame):
        if min(weight(game, game.low), weight(game, game.high)) < 0:
            raise UserError(
                f"base={game.base:g} + slope={game.slope:g} w is below 0 in the set: raise base."
            )
    elif game.low <= 0 or game.rho < 0 or not 0 < game.gamma < 1:
        raise UserError(
            f"low={game.low:g}, rho={game.rho:g}, gamma={game.gamma:g}: give low > 0, rho >= 0 and "
            "gamma between 0 and 1."
        )


def returns(game: Game, x: float, w: float) -> float:
    """The return of policy number `x` at `w`, discounted in the regulator."""
    if isinstance(game, QuadraticGame):
        return -weight(game, w) * (x - w) ** 2
    shrink = 1 - game.gamma * (game.a - w * x) ** 2
    cost = game.start**2 * (1 + game.rho * x**2)
    return -cost / shrink if shrink > 0 else -math.inf


def worst_return(game: Game, x: float) -> float:
    """The least return of policy number `x` over [low, high], exact."""
    return min(returns(game, x, w) for w in _suspects(game, x))


def _suspects(game: Game, x: float) -> list[float]:
    """The w at which policy `x` can be worst: both ends, and the game's inner maximum of cost."""
    ends = [game.low, game.high]
    if isinstance(game, QuadraticGame) and game.slope:
        inner = (game.slope * x - 2 * game.base) / (3 * game.slope)
        ends += [inner] if game.low < inner < game.high else []
    return ends


def _worst_at(game: Game, x: float) -> tuple[float, ...]:
    worst = worst_return(game, x)
    near = [w for w in _suspects(game, x) if math.isclose(returns(game, x, w), worst, rel_tol=1e-6)]
    return tuple(sorted(near))


def weight(game: QuadraticGame, w):
    """The cost's factor at `w`, a number or an array."""
    return game.base + game.slope * w


def _quadratic(game: QuadraticGame) -> tuple[float, float, float, float]:
    """A maximum of convex costs is least where two of them cross or at the least of one of them."""
    poly, b, c = np.polynomial.Polynomial, game.base, game.slope
    costs = [weight(game, w) * poly([-w, 1]) ** 2 for w in (game.low, game.high)]
    if c:  # the cost at the inner maximum, 4 (b + c a)^3 / 27 c^2
        costs.append(4 * poly([b, c]) ** 3 / (27 * c**2))
    roots = [r for i, p in enumerate(costs) for q in costs[:i] for r in (p - q).roots()]
    points = [game.low, game.high, *(r.real for r in roots if abs(r.imag) < 1e-9)]
    inside = [x for x in points if game.low <= x <= game.high]
    best = max(inside, key=lambda x: worst_return(game, x))
    first, second = _moments(game)
    mean = (b * first + c * second) / (b + c * first)
    return float(best), mean, mean, game.nominal


def _moments(game: Game) -> tuple[float, float]:
    """E[w] and E[w^2] of a uniform w."""
    low, high = game.low, game.high
    return (low + high) / 2, (high**3 - low**3) / (3 * (high - low))


def _regulator(game: ScalarRegulator) -> tuple[float, float, float, float]:
    edge = 1 / math.sqrt(game.gamma)
    least = max((game.a - edge) / w for w in (game.low, game.high))
    most = min((game.a + edge) / w for w in (game.low, game.high))
    if least >= most:
        raise UserError(
            f"no gain keeps the cost finite for every w in [{game.low:g}, {game.high:g}]: "
            "narrow the set or lower a."
        )
    best_at = [_best_gain(game, w, w**2) for w in (game.low, game.high)]
    points = [2 * game.a / (game.low + game.high), *best_at]
    minimax = max(points, key=lambda k: worst_return(game, k))
    margin = 1e-9 * (most - least)
    found: Any = scipy.optimize.minimize_scalar(
        lambda k: _mean_cost(game, k),
        bounds=(least + margin, most - margin),
        method="bounded",
        options={"xatol": 1e-10},
    )
    redrawn, nominal = _best_gain(game, *_moments(game)), game.nominal
    return float(minimax), float(found.x), redrawn, _best_gain(game, nominal, nominal**2)


def _best_gain(game: ScalarRegulator, first: float, second: float) -> float:
    """The k of least cost where w has these moments and is drawn anew at every step.

    The cost is that of one w with (a - w k)^2 replaced by its mean, and dJ/dk = 0 is a quadratic.
    """
    a, rho, gamma = game.a, game.rho, game.gamma
    linear = rho - rho * gamma * a**2 + gamma * second
    # The cubic terms cancel.
    quadratic = [-gamma * a * first, linear, rho * gamma * a * first]
    roots = np.polynomial.Polynomial(quadratic).trim().roots()

    def cost(k: float) -> float:
        shrink = 1 - gamma * (a**2 - 2 * a * first * k + second * k**2)
        return (1 + rho * k**2) / shrink if shrink > 0 else math.inf

    return min((float(k.real) for k in roots), key=cost)


def _mean_cost(game: ScalarRegulator, k: float) -> float:
    """The mean of the cost over uniform w, by the integral of 1 / (1 - u^2), artanh."""
    cost, width = game.start**2 * (1 + game.rho * k**2), game.high - game.low
    if abs(k) < 1e-12:
        return cost / (1 - game.gamma * game.a**2) if game.gamma * game.a**2 < 1 else math.inf
    root = math.sqrt(game.gamma)
    ends = [root * (game.a - w * k) for w in (game.low, game.high)]
    if max(map(abs, ends)) >= 1:
        return math.inf
    return cost * (math.atanh(ends[0]) - math.atanh(ends[1])) / (root * k * width)
