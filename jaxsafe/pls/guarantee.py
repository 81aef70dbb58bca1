# SPDX-License-Identifier: Apache-2.0
"""The promise, counted: how often do searches on drawn functions evaluate anything unsafe?

Theorem 2 promises at most delta for functions drawn from the model with the noise it assumes, for
any safe seed. Rows with another lengthscale, another noise or functions of another kind show what
it is worth where that does not hold. `counting` runs them.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.core.stats import clopper_pearson
from jaxsafe.pls import simulate
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.problem import make_problem
from jaxsafe.pls.types import Problem

_SPREAD = 3.0  # heteroscedastic noise is between a third of the usual and three times it


@dataclasses.dataclass(frozen=True)
class Study:
    """A family of functions on the unit square, and what the search is told about it.

    The cost's prior mean is the threshold, its deviation and the reward's are 1.
    """

    side: int = field(50, "Grid points along each axis.", low=2)
    threshold: float = field(1.0, "b.")
    lengthscale: float = field(0.2, "Of the drawn functions.", low=1e-3)
    noise_sd: float = field(0.1, "Of the noise of one episode.", low=1e-6)
    truth: str = field(
        "gp",
        "gp: drawn from the RBF kernel; step: its cost's sign, safe or unsafe by 1, with a jump; "
        "capped: its cost cut at half a deviation either side.",
        choices=("gp", "step", "capped"),
    )
    model_lengthscale: float = field(1.0, "The model's, by the functions' own.", low=1e-3)
    model_noise: float = field(1.0, "The model's noise deviation, by the true one.", low=1e-3)
    heteroscedastic: bool = field(False, "The noise deviation varies over the square, by 9.")


# One at a time against the matched one; what differs is in the name.
STUDIES: dict[str, Study] = {
    "matched": Study(),
    "lengthscale x.5": Study(model_lengthscale=0.5),
    "lengthscale x2": Study(model_lengthscale=2.0),
    "noise x.3": Study(model_noise=0.3),
    "noise x3": Study(model_noise=3.0),
    "heteroscedastic": Study(heteroscedastic=True),
    "step": Study(truth="step"),
    "capped": Study(truth="capped"),
}


def told(study: Study) -> Study:
    """The functions that the search believes in: those of `study` where its model is right."""
    return Study(
        side=study.side,
        threshold=study.threshold,
        lengthscale=study.lengthscale * study.model_lengthscale,
        noise_sd=study.noise_sd * study.model_noise,
    )


def make(study: Study, config: SearchConfig) -> Problem:
    """Returns what the search is told.

    Raises:
      UserError: a field of the study or of the config is out of range.
    """
    validate_bounds(study, "study")
    believed = told(study)
    axis = np.linspace(0.0, 1.0, study.side)
    return make_problem(
        config,
        np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2),
        [0],
        study.threshold,
        lengthscale=believed.lengthscale,
        episode_sd=believed.noise_sd,
        floor=study.threshold - 10.0,
    )


def root(study: Study) -> jax.Array:
    """Returns L `[side, side]` of one axis: an RBF kernel on a square grid is L L^T by L L^T."""
    axis = np.linspace(0.0, 1.0, study.side)[:, None]
    return jnp.asarray(simulate.square_root("rbf", axis, [study.lengthscale]), float)


def draw(key: jax.Array, study: Study, problem: Problem, root: jax.Array) -> simulate.World:
    """Returns one world whose seed is a safe point at random; `key` is consumed."""
    key_truth, key_seed, key_noise = jax.random.split(key, 3)
    normal = jax.random.normal(key_truth, (2, study.side, study.side))
    reward, cost = (root @ normal @ root.T).reshape(2, -1)
    if study.truth == "step":
        cost = jnp.where(cost > 0, 1.0, -1.0)
    elif study.truth == "capped":
        cost = jnp.clip(cost, -0.5, 0.5)
    noise = jnp.full((2, study.side**2), study.noise_sd)
    if study.heteroscedastic:
        # A slope in a random direction, one for both outputs.
        angle = jax.random.uniform(key_noise, maxval=2 * jnp.pi)
        along = (problem.grid - 0.5) @ jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        noise = noise * _SPREAD ** (along / jnp.abs(along).max())
    seed = simulate.random_safe_point(key_seed, cost <= 0)
    return simulate.World(jnp.stack([reward, study.threshold + cost]), seed, noise)


def summarise(outcome: simulate.Outcome, delta: float) -> dict[str, Any]:
    """Returns one row of a table of promises, as plain numbers.

    Args:
      outcome: of n searches, leaves `[n, ...]`.
      delta: promised.

    Returns:
      `n`, `violations` searches with any unsafe evaluation, their `frequency` with its exact 95%
      interval `low` and `high`, `delta`, `kept` (high <= delta), `per_step` share of unsafe steps,
      `escapes` share of searches in which a bound failed, `deployed_unsafe` share that would
      deploy an unsafe point, `broken` share that evaluated one or would deploy one, `alarms` share
      with an alarm, `regret` median at the end with `regret_curve`, and `coverage` mean at the end
      with `coverage_curve`.
    """
    any_unsafe = outcome.unsafe.any(1)
    count, num = int(any_unsafe.sum()), len(any_unsafe)
    low, high = clopper_pearson(count, num)
    regret, coverage = np.median(outcome.regret, 0), outcome.coverage.mean(0)
    return {
        "n": num,
        "violations": count,
        "frequency": count / num,
        "low": low,
        "high": high,
        "delta": delta,
        "kept": high <= delta,
        "per_step": float(outcome.unsafe.mean()),
        "escapes": float(outcome.escaped.any(1).mean()),
        "deployed_unsafe": float(outcome.deployed_unsafe[:, -1].mean()),
        "broken": float((any_unsafe | outcome.deployed_unsafe[:, -1]).mean()),
        "alarms": float((outcome.alarms > 0).mean()),
        "regret": float(regret[-1]),
        "regret_curve": regret.tolist(),
        "coverage": float(coverage[-1]),
        "coverage_curve": coverage.tolist(),
    }
