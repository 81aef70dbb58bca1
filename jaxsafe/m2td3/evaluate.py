# SPDX-License-Identifier: Apache-2.0
"""Worst and average return over a grid of the uncertainty set, in MJX and in MuJoCo C.

Worst is the least, and average the mean, over the grid of the mean return of a point's episodes
(the authors' `evaluate.py`, papers/m2td3 section 4). Seeds are scored side by side.
"""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsafe.core import checks, metrics, stats
from jaxsafe.envs import host, rollout
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet
from jaxsafe.m2td3 import algorithm
from jaxsafe.m2td3.config import Config, Evaluation
from jaxsafe.m2td3.types import Params, State, World


class Scores(NamedTuple):
    """Scores of S seeds on N omegas of D parameters."""

    omegas: np.ndarray  # [N, D] physical units
    values: np.ndarray  # [S, N] mean return of each point's episodes

    @property
    def worst(self) -> np.ndarray:
        """`[S]` least value of each seed."""
        return self.values.min(axis=1)

    @property
    def average(self) -> np.ndarray:
        """`[S]` mean value of each seed."""
        return self.values.mean(axis=1)

    @property
    def worst_omega(self) -> np.ndarray:
        """`[S, D]` where each seed is worst."""
        return self.omegas[self.values.argmin(axis=1)]

    @classmethod
    def load(
        cls, path: pathlib.Path, method: str, seed: int, uncertainty: UncertaintySet
    ) -> "Scores":
        """Reads one seed's scores back from `eval.jsonl`.

        Raises:
          UserError: the file has no rows of that method and seed.
        """
        found = [r for r in metrics.read(path) if (r["method"], r["seed"]) == (method, seed)]
        if not found:
            raise checks.UserError(f"{path} has no scores of {method}: run --mode=eval first.")
        omegas = [[row[name] for name in uncertainty.names] for row in found]
        return cls(np.asarray(omegas), np.asarray([[row["return"] for row in found]]))


def policies(learners: State, config: Config) -> tuple[Params, World]:
    """The scored actors of learners with leaves `[S, ...]`, and their worlds."""
    return algorithm.scored_actor(learners, config), learners.world


def score_host(
    actors: Params,
    worlds: World,
    config: Config,
    task: Task,
    uncertainty: UncertaintySet,
    omegas: np.ndarray,
    how: Evaluation,
    progress: Callable[[float], None] | None = None,
) -> Scores:
    """Scores actors `[S, ...]` in MuJoCo C on omegas `[N, D]`, physical units."""
    num_seeds = worlds.obs_scale.shape[0]
    act = jax.jit(jax.vmap(lambda actor, world, obs: algorithm.act(actor, obs, config, world)))
    returns, _ = host.score(
        task,
        lambda obs: act(actors, worlds, obs),
        uncertainty,
        omegas,
        how.episodes,
        how.seed,
        num_seeds,
        progress=progress,
    )
    return Scores(np.asarray(omegas), returns.mean(axis=-1))


def score_mjx(
    key: jax.Array,
    actors: Params,
    worlds: World,
    config: Config,
    task: Task,
    uncertainty: UncertaintySet,
    omegas: np.ndarray,
    episodes: int,
    length: int | None = None,
) -> Scores:
    """Scores actors `[S, ...]` in MJX, one compiled call; `key` is consumed.

    Args:
      key: of the starts, the same for every omega and seed.
      actors: parameters with leaves `[S, ...]`.
      worlds: their constants, leaves `[S, ...]`.
      config: their config.
      task: the world.
      uncertainty: whose parameters the omegas are.
      omegas: `[N, D]`, physical units.
      episodes: starts per omega.
      length: steps of an episode, the task's own by default.
    """
    starts = jax.vmap(lambda k: task.reset(task.model, k))(jax.random.split(key, episodes))

    def one(actor: Params, world: World, omega: jax.Array, start: Any) -> jax.Array:
        model = uncertainty.apply(task.model, omega)
        act = lambda obs: algorithm.act(actor, obs, config, world)  # noqa: E731
        return rollout.episode_return(task, act, model, start, length)[0]

    per_start = jax.vmap(one, in_axes=(None, None, None, 0))
    per_omega = jax.vmap(per_start, in_axes=(None, None, 0, None))
    per_seed = jax.jit(jax.vmap(per_omega, in_axes=(0, 0, None, None)))
    returns = per_seed(actors, worlds, np.asarray(omegas, np.float32), starts)
    return Scores(np.asarray(omegas), np.asarray(returns).mean(axis=-1))


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
    """One flat row per seed and omega, for `eval.jsonl`."""
    return [
        {"method": method, "seed": seed}
        | dict(zip(uncertainty.names, map(float, omega), strict=True))
        | {"return": float(value)}
        for seed, values in zip(seeds, scores.values, strict=True)
        for omega, value in zip(scores.omegas, values, strict=True)
    ]


def summary(method: str, uncertainty: UncertaintySet, scores: Scores) -> dict[str, Any]:
    """One flat row per method, for `summary.json`: worst and average with spread over seeds."""
    row: dict[str, Any] = {"method": method}
    for name, values in (("worst", scores.worst), ("average", scores.average)):
        row |= {f"{name}_{key}": value for key, value in stats.summarise(values).items()}
        row[f"{name}_per_seed"] = values.tolist()
    row["worst_omega_per_seed"] = scores.worst_omega.tolist()
    return row | {"parameters": list(uncertainty.names)}
