# SPDX-License-Identifier: Apache-2.0
"""Scores as people read them: a table, pictures over the set, the worst episode as a film."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxsafe.core import checks, heat_maps, plots
from jaxsafe.envs import draw, render
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet
from jaxsafe.m2td3 import evaluate
from jaxsafe.m2td3.config import Experiment
from jaxsafe.m2td3.evaluate import Scores
from jaxsafe.m2td3.types import Params, World

NAMES = {
    "m2td3": "M2TD3",
    "soft_m2td3": "SoftM2TD3",
    "td3": "TD3",
    "dr_td3": "DR-TD3",
    "rarl": "RARL",
    "m3ddpg": "M3DDPG",
    "m2td3_plus": "M2TD3+",
}
ENGINES = {"mujoco_c": "MuJoCo C", "jax": "the training engine (JAX)"}
_FOUND = "a seed's worst case, found off the grid"


def headline(experiment: Experiment, engine: str) -> str:
    """What the numbers of `table` are."""
    how = experiment.eval
    points = how.search.random + how.search.rounds * how.search.proposals
    return (
        f"{experiment.scenario}: return in {ENGINES[engine]} over {how.grid} points per parameter, "
        f"both ends included, {how.episodes} episodes a point\n"
        f"(refined: the worst of these and of {points} points off the grid; CVaR: mean of the "
        f"grid's worst {how.search.alpha:.0%})"
    )


def table(scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """One row per method: worst and refined of each seed, and means over the seeds."""
    return [
        {
            "method": NAMES[method],
            "worst (mean)": float(np.mean(found.worst)),
            "sd": float(np.std(found.worst, ddof=1)) if len(found.worst) > 1 else 0.0,
            "worst of each seed": _join(found.worst),
            "refined of each seed": _join(found.refined),
            "CVaR (mean)": float(np.mean(found.cvar)),
            "average (mean)": float(np.mean(found.average)),
        }
        for method, (_, _, found) in scores.items()
    ]


def _join(values: np.ndarray) -> str:
    return " ".join(f"{value:.0f}" for value in values)


def picture(
    path: pathlib.Path,
    experiment: Experiment,
    uncertainty: UncertaintySet,
    scores: Mapping[str, Scores],
) -> pathlib.Path:
    """Draws returns over the set, all from one engine.

    A curve per method for one parameter, a heat map for two, a row of slices for three. Crosses are
    the points off the grid that the search found to be worse.
    """
    (engine,) = {score.engine for score in scores.values()}
    title = f"{experiment.scenario}, scored in {ENGINES[engine]}"
    labels = uncertainty.labels
    off_grid = {NAMES[m]: _off_grid(s) for m, s in scores.items() if (s.found.gap > 0).any()}
    crosses = {name: omegas for name, (omegas, _) in off_grid.items()}
    if uncertainty.size == 1:
        lines = {NAMES[m]: (s.omegas[:, 0], s.found.values) for m, s in scores.items()}
        marks = {name: (omegas[:, 0], values) for name, (omegas, values) in off_grid.items()}
        return plots.curves(path, lines, labels[0], "return", title, marks, _FOUND)
    grid = experiment.eval.grid
    omegas = next(iter(scores.values())).omegas
    x, y, *z = (np.unique(omegas[:, d]) for d in range(uncertainty.size))
    # The first parameter lies along x, and so along a panel's columns, which are NumPy's last axis.
    shape = (grid,) * uncertainty.size
    panels = {NAMES[m]: s.found.values.mean(0).reshape(shape).T for m, s in scores.items()}
    value_label = "return, mean over seeds"
    if z:
        return heat_maps.slices(
            *(path, panels, x, y, z[0], labels[0], labels[1], labels[2], value_label, title),
            marks=crosses,
            marks_label=f"{_FOUND}, in the nearest slice",
        )
    return heat_maps.heat_maps(
        *(path, panels, x, y, labels[0], labels[1], value_label, title),
        notes={NAMES[m]: f"worst of each seed: {_join(s.found.worst)}" for m, s in scores.items()},
        marks=crosses,
        marks_label=_FOUND,
    )


def _off_grid(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Omegas `[M, D]` and values `[M]` of the seeds whose worst point the grid missed."""
    missed = scores.found.gap > 0
    return scores.found.refined_omega[missed], scores.found.refined[missed]


def film(
    folder: pathlib.Path,
    method: str,
    experiment: Experiment,
    task: Task,
    uncertainty: UncertaintySet,
    policies: tuple[Params, World],
    omega: np.ndarray,
) -> pathlib.Path:
    """Draws the first seed's shortest episode at `omega` `[D]`, physical units, in MuJoCo C.

    Raises:
      UserError: the task has no MuJoCo model, or the renderer lacks a library.
    """
    if task.host is None:
        raise checks.UserError(
            f"--mode=render draws MuJoCo models, and {task.name} has none: its scores and picture "
            "come from --mode=eval."
        )
    actors, worlds = policies
    qpos = evaluate.worst_episode(
        actors, worlds, experiment.algo, task, uncertainty, omega, 0, experiment.eval
    )
    named = zip(uncertainty.names, omega, strict=True)
    where = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in named)
    model = uncertainty.apply_host(task.host.model, omega)
    title = f"{NAMES[method]} at its worst: {where}"
    renderer = experiment.eval.renderer
    path = folder / f"worst_{method}.{'html' if renderer == 'html' else 'gif'}"
    if renderer == "html":
        _html_writer()(path, task, model, qpos)
        return path
    return (render if renderer == "mujoco" else draw).gif(path, task, model, qpos, title)


def _html_writer() -> Callable[..., Any]:
    try:
        import jaxsafe.envs.html as html  # here, as brax takes seconds to import
    except ModuleNotFoundError as error:
        raise checks.UserError(
            f"--eval.renderer=html needs brax's viewer ({error}): pip install brax, or take "
            "--eval.renderer=lines."
        ) from error
    return html.html
