# SPDX-License-Identifier: Apache-2.0
"""Scores of finished policies over the uncertainty set, in MuJoCo C or in the engine that trained.

Worst is the least, and average the mean, over the grid of the mean return of a point's episodes
(the authors' `evaluate.py`, papers/m2td3 section 4). `envs.worst_case` adds what they lack: CVaR,
and a search off the grid for what it misses. Seeds are scored side by side.

`results` of `summary.json` is one flat row per method and engine:

  method             as the flag --methods has it
  engine             mujoco_c, or jax: the engine that trained
  worst_*            least value on the grid
  average_*          mean over the grid
  cvar_*             mean of the worst share `cvar_level` of the grid
  refined_*          least value found by grid and search
  gap_*              worst - refined of a seed: what the grid missed, at least 0
                     * is `per_seed`, a list in the order of the seeds, and over them `mean`, `std`
                     (n - 1), `iqm`, `min`, `max`, `n`, and `ci_low`, `ci_high`, the 95% bootstrap
                     interval of the IQM; "nan" where a policy gave a NaN action
  worst_omega_per_seed, refined_omega_per_seed
                     where those values are, in physical units, in the order of `parameters`
  parameters         their names
  grid, episodes, cvar_level
                     points per parameter, starts a point, the share

Rows of `eval.jsonl` are one point of one seed: `method`, `engine`, `seed`, `point` (grid, or
refined: the worst point found), one key per parameter, and `return`.
"""

import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsafe.core import checks, metrics, stats
from jaxsafe.envs import host
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet
from jaxsafe.envs.worst_case import WorstCase, worst_case, worst_case_host
from jaxsafe.m2td3 import algorithm
from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.experiment import Evaluation
from jaxsafe.m2td3.types import Params, State, World

_SPREAD = ("worst", "average", "cvar", "refined", "gap")


class Scores(NamedTuple):
    """Scores of S seeds of one method in one engine.

    Attributes:
      engine: one of `experiment.SCORERS`.
      omegas: `[N, D]` the grid, in physical units.
      found: NumPy arrays with a leading axis S.
    """

    engine: str
    omegas: np.ndarray
    found: WorstCase


def policies(learners: State, config: Config) -> tuple[Params, World]:
    """The scored actors of learners with leaves `[S, ...]`, and their worlds."""
    return algorithm.scored_actor(learners, config), learners.world


def engines(task: Task, how: Evaluation) -> tuple[str, ...]:
    """The engines that score `task`: those asked for that it has, or else its own."""
    return tuple(e for e in how.engines if e == "jax" or task.host is not None) or ("jax",)


def score(
    engine: str,
    actors: Params,
    worlds: World,
    config: Config,
    task: Task,
    uncertainty: UncertaintySet,
    how: Evaluation,
    progress: Callable[[float], None] | None = None,
) -> Scores:
    """Scores actors and their worlds, leaves `[S, ...]`, in one of `engines(task, how)`.

    `progress` is told the fraction done; in JAX all is one call, and it is told at the end.
    """
    run = _score_host if engine == "mujoco_c" else _score_jax
    found = run(actors, worlds, config, task, uncertainty, how, progress)
    return Scores(engine, np.asarray(uncertainty.grid(how.grid)), found)


def _score_host(actors, worlds, config, task, uncertainty, how, progress) -> WorstCase:
    act = jax.jit(jax.vmap(lambda actor, world, obs: algorithm.act(actor, obs, config, world)))
    return worst_case_host(
        lambda obs: act(actors, worlds, obs),
        task,
        uncertainty,
        how.grid,
        how.episodes,
        how.seed,
        how.search,
        num_policies=len(worlds.obs_scale),
        progress=progress,
    )


def _score_jax(actors, worlds, config, task, uncertainty, how, progress) -> WorstCase:
    batch = max(1, how.batch // len(worlds.obs_scale))

    def one(key: jax.Array, actor: Params, world: World) -> WorstCase:
        def act(obs: jax.Array) -> jax.Array:
            return algorithm.act(actor, obs, config, world)

        return worst_case(
            key, act, task, uncertainty, how.grid, how.episodes, how.search, batch=batch
        )

    program = jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))
    found = jax.device_get(program(jax.random.key(how.seed), actors, worlds))
    if progress:
        progress(1.0)
    return found


def worst_episode(
    actors: Params,
    worlds: World,
    config: Config,
    task: Task,
    uncertainty: UncertaintySet,
    omega: np.ndarray,
    seed_index: int,
    how: Evaluation,
) -> np.ndarray:
    """Positions `[T, nq]` of the shortest of one seed's episodes at `omega` `[D]`, MuJoCo C."""
    actor, world = jax.tree.map(lambda x: x[seed_index], (actors, worlds))
    act = jax.jit(lambda obs: algorithm.act(actor, obs, config, world))
    model = uncertainty.apply_host(task.host.model, omega)
    episodes = (
        host.episode(task, model, lambda obs: np.asarray(act(obs)), qpos, qvel)
        for qpos, qvel in zip(*host.initial_states(task, how.episodes, how.seed), strict=True)
    )
    return min(episodes, key=len)


def rows(
    method: str, seeds: Iterable[int], uncertainty: UncertaintySet, scores: Scores
) -> list[dict[str, Any]]:
    """Flat rows for `eval.jsonl`: each seed's grid, then the worst point found."""
    found = scores.found

    def row(seed: int, point: str, omega: np.ndarray, value: float) -> dict[str, Any]:
        head = {"method": method, "engine": scores.engine, "seed": seed, "point": point}
        named = zip(uncertainty.names, map(float, omega), strict=True)
        return head | dict(named) | {"return": plain(value)}

    out = []
    for i, seed in enumerate(seeds):
        points = zip(scores.omegas, found.values[i], strict=True)
        out += [row(seed, "grid", omega, value) for omega, value in points]
        out.append(row(seed, "refined", found.refined_omega[i], found.refined[i]))
    return out


def worst_omega(
    path: pathlib.Path, method: str, seed: int, uncertainty: UncertaintySet
) -> np.ndarray:
    """Reads from `eval.jsonl` the worst omega `[D]` found for one seed, by the first engine.

    Raises:
      UserError: the file has none of that method and seed.
    """
    wanted = {"method": method, "seed": seed, "point": "refined"}
    for row in metrics.read(path):
        if wanted.items() <= row.items():
            return np.asarray([row[name] for name in uncertainty.names])
    raise checks.UserError(f"{path} has no worst case of {method}: run --mode=eval first.")


def summary(
    method: str, uncertainty: UncertaintySet, scores: Scores, how: Evaluation
) -> dict[str, Any]:
    """One row of `summary.json`; the module's docstring has its schema."""
    found = scores.found
    row: dict[str, Any] = {"method": method, "engine": scores.engine}
    for name in _SPREAD:
        values = getattr(found, name)
        row |= {f"{name}_{key}": value for key, value in _spread(values).items()}
        row[f"{name}_per_seed"] = [plain(value) for value in values]
    return row | {
        "worst_omega_per_seed": found.worst_omega.tolist(),
        "refined_omega_per_seed": found.refined_omega.tolist(),
        "parameters": list(uncertainty.names),
        "grid": how.grid,
        "episodes": how.episodes,
        "cvar_level": how.search.alpha,
    }


def _spread(values: np.ndarray) -> dict[str, Any]:
    if np.isfinite(values).all():
        return dict(stats.summarise(values))
    nothing = dict.fromkeys(stats.summarise(np.zeros(1)), "nan")
    return nothing | {"n": len(values)}


def plain(value: Any) -> float | str:
    """A number as strict JSON can hold it."""
    return float(value) if math.isfinite(value) else str(float(value))
