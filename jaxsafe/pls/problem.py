# SPDX-License-Identifier: Apache-2.0
"""From lists and numbers to a checked `Problem`: units, priors and the factor alpha."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.pls.config import SearchConfig, validate
from jaxsafe.pls.types import Problem


def srinivas_alpha(num_points: int, delta: Any, step: Any) -> Any:
    """Returns `sqrt(2 ln(|Z| j^2 pi^2 / (6 delta)))` (paper eq. 8, lemma 7; Srinivas et al. 2010).

    With probability 1 - delta a function drawn from the prior lies within alpha_j posterior
    deviations of the mean at all points and all steps j = 1, 2, ...

    Args:
      num_points: |Z|.
      delta: in (0, 1).
      step: j, from 1.
    """
    return np.sqrt(2 * np.log(num_points * np.square(step, dtype=float) * math.pi**2 / (6 * delta)))


def alpha_table(config: SearchConfig, num_points: int, num_constraints: int) -> np.ndarray:
    """Returns alpha `[T + 1, O]`; `nan` where it is still to be calibrated.

    Delta is shared out as `split_delta` says; the reward's bound is only about regret, so it has
    all of delta unless the claim is joint.
    """
    steps = config.num_steps + 1
    if config.alpha != "srinivas":
        value = np.nan if config.alpha_value is None else config.alpha_value
        return np.full((steps, 1 + num_constraints), value)
    shares = {"constraints": num_constraints, "all": num_constraints + 1, "none": 1}
    cost_delta = config.delta / shares[config.split_delta]
    reward_delta = cost_delta if config.split_delta == "all" else config.delta
    deltas = np.array([reward_delta] + [cost_delta] * num_constraints)
    return srinivas_alpha(num_points, deltas, np.arange(1, steps + 1)[:, None])


def make_problem(
    config: SearchConfig,
    grid: Any,
    seed: Any,
    thresholds: Any,
    *,
    lengthscale: Any,
    cost_sd: Any = 1.0,
    reward_sd: float = 1.0,
    cost_mean: Any = None,
    margin: float = 0.0,
    reward_mean: Any = 0.0,
    episode_sd: Any = 0.1,
    floor: Any = 0.0,
) -> Problem:
    """Returns the numbers of a search, checked.

    Args:
      config: decides alpha, lengthscale factors and checks.
      grid: `[Z, D]` targets z, such as (reward target, cost target).
      seed: `[Z]` bool, or a list of places in the grid: targets known to be safe.
      thresholds: b; a number, `[B]` for one constraint, or `[B, C]`. One cost model serves all B.
      lengthscale: `[D]`, or `[O, D]` for each output, units of the grid.
      cost_sd: prior deviation of each cost, `[C]` or a number, units of the cost.
      reward_sd: prior deviation of the reward.
      cost_mean: prior mean of each cost, a number, `[C]`, `[Z]` or `[C, Z]`; by default the
        greatest threshold, so that no unseen point is safe.
      margin: pessimism added to it, in prior deviations; the default mean needs none.
      reward_mean: prior mean of the reward, a number or `[Z]`.
      episode_sd: noise of one episode's return, a number or `[O]`. The noise of an evaluation of
        W episodes is this by sqrt(W).
      floor: the least a cost can be, a number or `[C]`.

    Raises:
      UserError: shapes or values do not fit, the seed set is empty, or the prior calls points safe
        outside of it (paper_compat does without that check).
    """
    validate(config)
    grid = _checked_grid(grid)
    mask = _seed_mask(seed, len(grid))
    b = np.asarray(thresholds, float)
    b = b.reshape(-1, 1) if b.ndim < 2 else b
    outputs = 1 + b.shape[1]
    sd = np.concatenate([[reward_sd], _sized("cost_sd", cost_sd, (outputs - 1,))])
    mean = _cost_mean(cost_mean, b, len(grid)) + margin * sd[1:, None]
    reward = _sized("reward_mean", reward_mean, (1, len(grid)))
    numbers = {
        "thresholds": b,
        "floor": _sized("floor", floor, (outputs - 1,)),
        "prior_mean": np.concatenate([reward, mean]),
        "prior_var": sd**2,
        "lengthscale": _sized("lengthscale", lengthscale, (outputs, grid.shape[1])),
        "factors": np.asarray(config.lengthscale_factors),
        "episode_var": _sized("episode_sd", episode_sd, (outputs,)) ** 2,
    }
    _check_numbers(numbers)
    alpha = alpha_table(config, len(grid), outputs - 1)
    if config.check_prior:
        _check_prior(numbers, alpha, mask)
    numbers |= {"grid": grid, "alpha": alpha}
    arrays = {name: jnp.asarray(value, float) for name, value in numbers.items()}
    return Problem(seed=jnp.asarray(mask), **arrays)


def for_thresholds(problem: Problem, thresholds: jax.Array) -> Problem:
    """Returns the same model for other thresholds `[B, C]`; the prior mean stays as it is."""
    return problem.replace(thresholds=jnp.asarray(thresholds, problem.thresholds.dtype))


def _checked_grid(grid: Any) -> np.ndarray:
    grid = np.asarray(grid, float)
    if grid.ndim != 2 or not len(grid) or not np.isfinite(grid).all():
        raise UserError(f"grid has shape {grid.shape}: give finite targets [Z, D].")
    return grid


def _seed_mask(seed: Any, size: int) -> np.ndarray:
    seed = np.asarray(seed)
    if seed.dtype != bool:
        if seed.size and not (seed.min() >= 0 and seed.max() < size):
            raise UserError(f"seed holds {seed.min()} to {seed.max()}: give places in [0, {size}).")
        places, seed = seed.astype(int), np.zeros(size, bool)
        seed[places] = True
    if seed.shape != (size,) or not seed.any():
        raise UserError(
            f"seed has shape {seed.shape} and {seed.sum()} points: give at least one of {size}."
        )
    return seed


def _sized(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.broadcast_to(np.asarray(value, float), shape)
    except ValueError:
        given = np.shape(value)
        raise UserError(f"{name} has shape {given}: give a number or {list(shape)}.") from None


def _cost_mean(value: Any, thresholds: np.ndarray, size: int) -> np.ndarray:
    """Prior means `[C, Z]` of the costs; without a value, the greatest of thresholds `[B, C]`."""
    constraints = thresholds.shape[1]
    if value is None:
        value = thresholds.max(0)[:, None]
    value = np.asarray(value, float)
    if value.shape == (constraints,) and constraints != size:
        value = value[:, None]
    return _sized("cost_mean", value, (constraints, size))


def _check_numbers(numbers: dict[str, np.ndarray]) -> None:
    for name, value in numbers.items():
        positive = name in ("prior_var", "lengthscale", "episode_var")
        if not np.isfinite(value).all() or (positive and (value <= 0).any()):
            word = "finite and above 0" if positive else "finite"
            raise UserError(f"{name} holds {value.min():g} to {value.max():g}: give values {word}.")


def _check_prior(problem: dict[str, np.ndarray], alpha: np.ndarray, seed: np.ndarray) -> None:
    """Refuses a prior whose upper bound is below a threshold where nothing was seen."""
    # An alpha still to be calibrated may turn out small: then the mean alone must be enough.
    factor = np.nan_to_num(alpha[0, 1:], nan=0.0)
    upper = problem["prior_mean"][1:] + (factor * np.sqrt(problem["prior_var"][1:]))[:, None]
    safe = (upper[None] <= problem["thresholds"][:, :, None]).all(1)
    # At the threshold itself only an alpha above 0 makes it unsafe.
    strict = (problem["prior_mean"][1:][None] < problem["thresholds"][:, :, None]).all(1)
    wrong = (np.where(np.isnan(alpha[0, 1:]).any(), strict, safe) & ~seed).sum()
    if wrong:
        raise UserError(
            f"the prior calls {wrong} unseen points safe (least upper bound {upper.min():g}, "
            f"greatest threshold {problem['thresholds'].max():g}): raise cost_mean or margin; "
            "check_prior=False does without."
        )
