# SPDX-License-Identifier: Apache-2.0
"""SACPO where everything is a table: the constrained optimum, and the two stages that reach it.

Letters in shapes: X prompts, Y responses. The problem (papers' abstract in symbols) is

  maximise  E_x[ sum_y pi(y|x) r(x, y) - beta KL(pi(.|x) || pi_ref(.|x)) ]   s.t.  E[g] >= b

with optimum  pi* = pi_ref exp((r + lambda g) / beta) / Z = pi_r* exp(g / (beta / lambda)) / Z',
pi_r* = pi_ref exp(r / beta) / Z''. The second equality is the method: a stage of alignment to g
from reference pi_r* at temperature beta / lambda. `solve` holds the library's own loss against it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxsafe.core.checks import UserError
from jaxsafe.sacpo import lambda_solver, pairwise


class Problem(NamedTuple):
    """What is given, in float64.

    Attributes:
      log_reference: `[X, Y]`.
      reward: r `[X, Y]`.
      safety: g `[X, Y]`.
      weights: of prompts, `[X]`, summing to 1.
      beta: weight of the KL divergence.
      bound: b.
    """

    log_reference: np.ndarray
    reward: np.ndarray
    safety: np.ndarray
    weights: np.ndarray
    beta: float
    bound: float


class Outcome(NamedTuple):
    """One policy and what it is worth.

    Attributes:
      policy: `[X, Y]`.
      reward: E[r].
      safety: E[g].
      objective: E[r] - beta KL(pi || pi_ref).
      divergence: KL(pi* || pi) in nats, 0 for the optimum alone.
    """

    policy: np.ndarray
    reward: float
    safety: float
    objective: float
    divergence: float


class Solution(NamedTuple):
    """What `solve` finds.

    Attributes:
      multiplier: lambda of the optimum; 0 where the reward's optimum keeps the bound.
      temperature: beta / lambda of the safety stage.
      optimum: pi*, in closed form.
      helpful: pi_r*, in closed form.
      outcomes: by name, of policies that the library's DPO loss gave: `reward first`, `safety
        first` (both orders); the controls `wrong reference` (pi_ref again in the second stage) and
        `wrong temperature` (beta in place of beta / lambda); and in closed form, per q,
        `geometric q` (merge of pi_r* and pi*), `optimum q` (pi* at multiplier q lambda) and the
        control `mixture q` (of probabilities).
    """

    multiplier: float
    temperature: float
    optimum: Outcome
    helpful: Outcome
    outcomes: dict[str, Outcome]


def solve(
    reference: ArrayLike,
    reward: ArrayLike,
    safety: ArrayLike,
    beta: float,
    bound: float,
    weights: ArrayLike | None = None,
    quantities: tuple[float, ...] = (0.25, 0.5, 0.75),
) -> Solution:
    """Returns the constrained optimum, and what two stages of DPO, merges and controls come to.

    Args:
      reference: pi_ref `[X, Y]`, positive, rows summing to 1.
      reward: r `[X, Y]`.
      safety: g `[X, Y]`.
      beta: weight of the KL divergence, positive.
      bound: b; E[g] of the optimum is at least that.
      weights: of prompts, `[X]`; uniform by default.
      quantities: q of the merges, in [0, 1].

    Raises:
      UserError: tables of other shapes, a reference that is no distribution, values that are not
        finite, or a bound that no policy with the reference's support reaches.
    """
    problem = make(reference, reward, safety, beta, bound, weights)
    at = multiplier(problem)
    temperature = problem.beta / at if at else np.inf
    optimum = tilted(problem, at)
    helpful = tilted(problem, 0.0)
    policies = _stages(problem, at)
    for q in quantities:
        policies[f"geometric {q:g}"] = _normalised((1 - q) * helpful + q * optimum)
        policies[f"optimum {q:g}"] = tilted(problem, q * at)
        mixed = (1 - q) * np.exp(helpful) + q * np.exp(optimum)
        policies[f"mixture {q:g}"] = np.log(mixed)
    outcomes = {name: outcome(problem, policy, optimum) for name, policy in policies.items()}
    best, free = (outcome(problem, policy, optimum) for policy in (optimum, helpful))
    return Solution(at, temperature, best, free, outcomes)


def make(
    reference: ArrayLike,
    reward: ArrayLike,
    safety: ArrayLike,
    beta: float,
    bound: float,
    weights: ArrayLike | None = None,
) -> Problem:
    """Checks tables and returns the problem; arguments and errors are those of `solve`."""
    tables = {"reference": reference, "reward": reward, "safety": safety}
    arrays = {name: np.asarray(table, np.float64) for name, table in tables.items()}
    shape = arrays["reference"].shape
    for name, array in arrays.items():
        if array.ndim != 2 or array.shape != shape or not array.size:
            raise UserError(
                f"{name} has shape {array.shape}, reference {shape}: give [X, Y] for each."
            )
        if not np.isfinite(array).all():
            raise UserError(f"{name} holds a value that is not finite: give finite numbers.")
    rows = arrays["reference"].sum(1)
    if (arrays["reference"] <= 0).any() or np.abs(rows - 1).max() > 1e-6:
        raise UserError(
            f"reference has least value {arrays['reference'].min():g} and row sums from "
            f"{rows.min():g} to {rows.max():g}: give positive rows that sum to 1."
        )
    given = np.ones(shape[0]) if weights is None else np.asarray(weights, np.float64)
    if given.shape != shape[:1] or not (given > 0).all():
        raise UserError(f"weights={given} do not fit: give {shape[0]} positive numbers.")
    if not beta > 0:
        raise UserError(f"beta={beta!r} is out of range: give a positive number.")
    log_reference = np.log(arrays["reference"] / rows[:, None])
    tables_rg = arrays["reward"], arrays["safety"]
    return Problem(log_reference, *tables_rg, given / given.sum(), float(beta), float(bound))


def _normalised(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def tilted(problem: Problem, at: float) -> np.ndarray:
    """log of pi_ref exp((r + lambda g) / beta) / Z at lambda = `at`, `[X, Y]`."""
    score = problem.reward + at * problem.safety
    return _normalised(problem.log_reference + score / problem.beta)


def expected(problem: Problem, log_policy: np.ndarray, values: np.ndarray) -> float:
    """E of `values` `[X, Y]` over prompts and the policy's responses."""
    return float(problem.weights @ (np.exp(log_policy) * values).sum(1))


def divergence(problem: Problem, log_p: np.ndarray, log_q: np.ndarray) -> float:
    """E_x KL(p || q) in nats."""
    return expected(problem, log_p, log_p - log_q)


def outcome(problem: Problem, log_policy: np.ndarray, optimum: np.ndarray) -> Outcome:
    """What a policy `[X, Y]`, given by its logarithm, is worth beside the optimum's."""
    reward = expected(problem, log_policy, problem.reward)
    return Outcome(
        policy=np.exp(log_policy),
        reward=reward,
        safety=expected(problem, log_policy, problem.safety),
        objective=reward - problem.beta * divergence(problem, log_policy, problem.log_reference),
        divergence=divergence(problem, optimum, log_policy),
    )


def multiplier(problem: Problem) -> float:
    """Returns the least lambda whose optimum has E[g] >= b, by bisection to the last bit.

    E[g] grows with lambda, as d E[g] / d lambda = E_x[Var(g)] / beta.

    Raises:
      UserError: no policy with the reference's support reaches b.
    """

    def reached(at: float) -> bool:
        return expected(problem, tilted(problem, at), problem.safety) >= problem.bound

    if reached(0.0):
        return 0.0
    best = float(problem.weights @ problem.safety.max(1))
    if problem.bound > best - 1e-12 * max(1.0, abs(best)):
        raise UserError(
            f"bound={problem.bound!r} cannot be reached: give less than {best:g}, the greatest "
            "E[g] there is."
        )
    low, high = 0.0, 1.0
    while not reached(high):
        low, high = high, 2 * high
    return lambda_solver.least(reached, low, high)


def _stages(problem: Problem, at: float) -> dict[str, np.ndarray]:
    """Both orders and both controls by the library's loss, on the whole law of preferences."""
    r, g, beta = (
        pairwise.preferences(problem.reward),
        pairwise.preferences(problem.safety),
        problem.beta,
    )
    start = problem.log_reference
    with jax.enable_x64(True):

        def stage(reference: np.ndarray, law: np.ndarray, temperature: float) -> np.ndarray:
            # lambda = 0 asks for an infinite temperature, at which a policy stays where it is.
            if not np.isfinite(temperature):
                return reference
            return np.asarray(jax.jit(pairwise.align)(reference, law, jnp.float64(temperature)))

        safe_temperature = beta / at if at else np.inf
        helpful, safe = stage(start, r, beta), stage(start, g, safe_temperature)
        return {
            "reward first": stage(helpful, g, safe_temperature),
            "safety first": stage(safe, r, beta),
            "wrong reference": safe,
            "wrong temperature": stage(helpful, g, beta),
        }
