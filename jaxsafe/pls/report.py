# SPDX-License-Identifier: Apache-2.0
"""Searches in worlds as people read them: a table, maps, costs against thresholds, a film."""

import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsafe.core import metrics, plots, tables
from jaxsafe.core.run import Folder
from jaxsafe.pls import comparison, worlds
from jaxsafe.pls.comparison import Judged, Operated
from jaxsafe.pls.experiment import Experiment
from jaxsafe.pls.policy_types import Policy
from jaxsafe.pls.truth import Oracle

NAMES = {
    "naive": "naive: R = max, G = b",
    "unsafe_search": "unsafe search",
    "literal": "PLS, literal",
    "pls": "PLS",
    "pls_calibrated": "PLS, calibrated",
}
HEADLINE = (
    "unsafe: share of searches that evaluated or would deploy a target of a true cost above b;\n"
    "reward: true return of what would be deployed, by the best safe target's (median, least)"
)


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What people read of `comparison.row`s."""
    return [
        {
            "world": r["world"],
            "b": f"{r['threshold']:g}",
            "method": NAMES[r["method"]],
            "alpha": "" if r["alpha"] is None else f"{r['alpha']:.2f}",
            "searches": r["searches"],
            "unsafe": f"{r['frequency']:.0%}",
            "unsafe evaluations": f"{r['unsafe_evaluations']:.2f} of {r['evaluations']}",
            "deployed unsafe": f"{r['deployed_unsafe']:.0%}",
            "reward": f"{r['share']:.0%}",
            "least": f"{r['share_min']:.0%}",
            "cost": f"{r['cost']:.1f}",
        }
        for r in rows
    ]


def costs(
    path: pathlib.Path, world: str, operated: Sequence[Operated], judged: Sequence[Judged]
) -> pathlib.Path:
    """Draws the true cost of every evaluated target against b: a panel per threshold and method."""
    thresholds = sorted({o.threshold for o in operated})
    methods = [m for m in NAMES if any(o.method == m and m != "naive" for o in operated)]
    size = (2.5 * len(methods) + 0.8, 1.9 * len(thresholds) + 0.9)
    figure = plots.new_figure(size)
    grid = figure.subplots(len(thresholds), len(methods), sharex=True, sharey="row", squeeze=False)
    for o, j in zip(operated, judged, strict=True):
        if o.method not in methods:
            continue
        axes = grid[thresholds.index(o.threshold), methods.index(o.method)]
        paths = j.costs.reshape(-1, j.costs.shape[-1])
        steps = np.arange(1, paths.shape[1] + 1)
        for costs_of_one in paths:
            axes.plot(steps, costs_of_one, color=plots.PALETTE[0], alpha=0.35, linewidth=0.8)
        over = paths > o.threshold
        rows, columns = np.nonzero(over)
        axes.plot(steps[columns], paths[rows, columns], ".", color=plots.PALETTE[1], markersize=4)
        axes.axhline(o.threshold, color=plots.INK, linewidth=1.2, linestyle="--")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5, colors=plots.INK)
    for axes, method in zip(grid[0], methods, strict=True):
        axes.set_title(NAMES[method], fontsize=10.5, **plots.BOLD)
    for axes, threshold in zip(grid[:, 0], thresholds, strict=True):
        axes.set_ylabel(f"cost, b = {threshold:g}", fontsize=9.5, color=plots.INK)
    figure.supxlabel("evaluation; dashed: b, dots: above it", fontsize=10, color=plots.INK)
    figure.suptitle(world, fontsize=13, **plots.BOLD)
    return plots.save(figure, path)


def maps(
    path: pathlib.Path,
    world: str,
    z: np.ndarray,
    oracle: Oracle,
    operated: Sequence[Operated],
) -> pathlib.Path:
    """Draws the first policy's true return and cost over its targets, b's lines and the choices.

    Args:
      path: the image to write.
      world: for the title.
      z: `[Z, 2]` targets, each R with each G, G varying fastest.
      oracle: of S policies.
      operated: whose first repeat's choices are marked.
    """
    figure = plots.new_figure((9.4, 4.3))
    thresholds = sorted({o.threshold for o in operated})
    r, g = np.unique(z[:, 0]), np.unique(z[:, 1])
    for k, (axes, label) in enumerate(
        zip(figure.subplots(1, 2, sharey=True), ("return", "cost return"), strict=True)
    ):
        values = oracle.mean[0, :, k].reshape(len(r), len(g))
        mesh = axes.pcolormesh(g, r, values, cmap="cividis", rasterized=True)
        figure.colorbar(mesh, ax=axes, pad=0.02).outline.set_visible(False)
        cost = oracle.mean[0, :, 1].reshape(len(r), len(g))
        lines = axes.contour(g, r, cost, levels=thresholds, colors="white", linewidths=1.2)
        axes.clabel(lines, fmt=lambda b: f"b = {b:g}", fontsize=8)
        for i, method in enumerate(m for m in NAMES if m != "literal"):
            chosen = [z[o.searches.final[0, 0]] for o in operated if o.method == method]
            if chosen:
                style = {"markeredgecolor": "black", "markeredgewidth": 0.7, "markersize": 7}
                colour = plots.PALETTE[(1, 3, 5, 2)[i]]
                axes.plot(
                    *np.array(chosen).T[::-1], "oXsD"[i], color=colour, label=NAMES[method], **style
                )
        axes.set_title(f"true {label}", fontsize=11, **plots.BOLD)
        axes.set_xlabel("target cost return G", **plots.LABEL)
        axes.tick_params(labelsize=9, colors=plots.INK)
    figure.axes[0].set_ylabel("target return R", **plots.LABEL)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(
        f"{world}: what targets lead to, and what was chosen", fontsize=12, **plots.BOLD
    )
    return plots.save(figure, path)


def film(
    path: pathlib.Path,
    title: str,
    z: np.ndarray,
    cost: np.ndarray,
    threshold: float,
    safe: np.ndarray,
    points: np.ndarray,
) -> pathlib.Path:
    """Draws a search as a GIF: the set it calls safe, and what it evaluated, step by step.

    Args:
      path: the GIF to write.
      title: above every frame.
      z: `[Z, 2]` targets, each R with each G, G varying fastest.
      cost: `[Z]` true costs.
      threshold: b.
      safe: `[T, Z]` bool, what is called safe after each step.
      points: `[T]` places in the grid.
    """
    r, g = np.unique(z[:, 0]), np.unique(z[:, 1])
    shape = (len(r), len(g))
    figure = plots.new_figure((5.2, 4.2), dpi=90)
    axes = figure.subplots()

    def show(step: int) -> list:
        axes.clear()
        called = safe[step].reshape(shape)
        axes.pcolormesh(g, r, called, cmap="Greens", vmin=0, vmax=2, rasterized=True)
        axes.contour(g, r, cost.reshape(shape), levels=[threshold], colors=[plots.PALETTE[1]])
        tried = z[points[: step + 1]]
        axes.plot(tried[:, 1], tried[:, 0], "o", color=plots.INK, markersize=4, alpha=0.6)
        axes.plot(*tried[-1][::-1], "o", color=plots.PALETTE[0], markersize=9)
        axes.set_title(f"{title}\nevaluation {step + 1} of {len(safe)}", fontsize=10, **plots.BOLD)
        axes.set_xlabel("target cost return G; green: called safe, line: true border", fontsize=9)
        axes.set_ylabel("target return R", fontsize=9)
        return []

    frames = [*range(len(safe)), *[len(safe) - 1] * 8]  # the last one stays for a while
    path.parent.mkdir(parents=True, exist_ok=True)
    from matplotlib import animation

    # It would tell its writer's class.
    logging.getLogger(animation.__name__).setLevel(logging.WARNING)
    movie = animation.FuncAnimation(figure, show, frames)
    movie.save(path, writer=animation.PillowWriter(fps=4))
    return path


def finish(
    folder: Folder,
    seeds: range,
    experiment: Experiment,
    name: str,
    policies: Policy,
    key: jax.Array,
    progress: Callable[[float], None],
) -> list[dict[str, Any]]:
    """Puts policies `[S, ...]` to work in one world; writes rows, the table and pictures.

    `key` is consumed; `progress` is told the fraction done.
    """
    world = worlds.make(name, experiment.data, experiment.policy)
    operation = experiment.operation
    z = worlds.grid(world, experiment.targets, operation.thresholds)
    key_oracle, key = jax.random.split(key)
    oracle = comparison.truth(experiment, world, policies, z, key_oracle)
    work = 1 + len(operation.thresholds) * len(operation.methods)
    operated, judged, rows = [], [], []
    for done in comparison.operate_all(experiment, world, policies, z, oracle.returns, key):
        operated.append(done)
        judged.append(comparison.judge(done, oracle))
        rows.append(comparison.row(name, done, judged[-1], oracle, experiment))
        metrics.append(folder.evals, comparison.rows(name, done, judged[-1], z, seeds))
        progress((1 + len(rows)) / work)
    folder.say(f"\n{HEADLINE}")
    folder.say(tables.text_table(table(rows)))
    pictures = (
        maps(folder.plots / f"maps_{name}.png", name, z, oracle, operated),
        costs(folder.plots / f"costs_{name}.png", name, operated, judged),
    )
    folder.say(f"pictures: {pictures[0]}, {pictures[1]}")
    return rows


def film_search(
    folder: Folder, experiment: Experiment, name: str, policies: Policy, key: jax.Array
) -> None:
    """Films a search with the first policy at the middle threshold; `key` is consumed."""
    world = worlds.make(name, experiment.data, experiment.policy)
    thresholds = experiment.operation.thresholds
    threshold = sorted(thresholds)[len(thresholds) // 2]
    z = worlds.grid(world, experiment.targets, thresholds)
    first = jax.tree.map(lambda x: x[:1], policies)
    key_oracle, key = jax.random.split(key)
    oracle = comparison.truth(experiment, world, first, z, key_oracle)
    safe, points = comparison.watch(experiment, world, first, z, threshold, key)
    title = f"{name}, b = {threshold:g}"
    cost = oracle.mean[0, :, 1]
    path = film(folder.plots / f"search_{name}.gif", title, z, cost, threshold, safe, points)
    folder.say(f"film: {path}")
