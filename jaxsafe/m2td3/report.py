# SPDX-License-Identifier: Apache-2.0
"""Scores as people read them: a table, heat maps, the worst episode as a GIF."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsafe.core import plots
from jaxsafe.envs import draw
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet
from jaxsafe.m2td3 import evaluate
from jaxsafe.m2td3.config import Experiment
from jaxsafe.m2td3.evaluate import Scores
from jaxsafe.m2td3.types import Params, World

NAMES = {"m2td3": "M2TD3", "dr_td3": "DR-TD3", "td3": "TD3"}


def table(scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """One row per method: mean and spread over seeds of the worst, and the average."""
    return [
        {
            "method": NAMES[method],
            "worst (mean)": float(np.mean(score.worst)),
            "sd": float(np.std(score.worst, ddof=1)) if len(score.worst) > 1 else 0.0,
            "worst of each seed": _join(score.worst),
            "average": float(np.mean(score.average)),
        }
        for method, score in scores.items()
    ]


def _join(values: np.ndarray) -> str:
    return " ".join(f"{value:.0f}" for value in values)


def picture(
    path: pathlib.Path,
    experiment: Experiment,
    uncertainty: UncertaintySet,
    scores: Mapping[str, Scores],
) -> pathlib.Path:
    """Draws returns over the set: a curve for one parameter, a heat map per method for two."""
    title = f"{experiment.scenario}, scored in MuJoCo C"
    labels = uncertainty.labels
    if uncertainty.size == 1:
        lines = {NAMES[m]: (s.omegas[:, 0], s.values) for m, s in scores.items()}
        return plots.curves(path, lines, labels[0], "return", title)
    grid = experiment.eval.grid
    axes = [np.unique(next(iter(scores.values())).omegas[:, d]) for d in range(2)]
    return plots.heat_maps(
        path,
        # The first parameter lies along x, and so along a panel's columns.
        {NAMES[m]: s.values.mean(0).reshape(grid, grid).T for m, s in scores.items()},
        x=axes[0],
        y=axes[1],
        xlabel=labels[0],
        ylabel=labels[1],
        value_label="return, mean over seeds",
        title=title,
        notes={NAMES[m]: f"worst of each seed: {_join(s.worst)}" for m, s in scores.items()},
    )


def film(
    folder: pathlib.Path,
    method: str,
    experiment: Experiment,
    task: Task,
    uncertainty: UncertaintySet,
    policies: tuple[Params, World],
    omega: np.ndarray,
) -> pathlib.Path:
    """Draws the first seed's shortest episode at `omega` `[D]`, physical units, in MuJoCo C."""
    actors, worlds = policies
    qpos = evaluate.worst_episode(
        actors, worlds, experiment.algo, task, uncertainty, omega, 0, experiment.eval
    )
    named = zip(uncertainty.names, omega, strict=True)
    where = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in named)
    model = uncertainty.apply_host(task.host.model, omega)
    title = f"{NAMES[method]} at its worst: {where}"
    return draw.gif(folder / f"worst_{method}.gif", task, model, qpos, title)
