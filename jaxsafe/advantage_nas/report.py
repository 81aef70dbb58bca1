# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of a run, from its rows.

`results` of `summary.json` on a supernet is documented in `evaluate.py`. On the toy, one row per
method: `loss_per_seed`, 100 times the loss of the most likely architecture at the end,
`loss_at_300_per_seed` and so on, `correct_per_seed`, the share of edges that are the teacher's, and
of the losses `median`, `low` and `high` (quartiles). On a table, one row per method: `queries`,
`score`, the mean over all searches of what is reported of the one kept, its 95% interval `low` to
`high` over seeds, `score_per_seed`, `searches`, and of the exact random search at equal queries
`oracle` and `oracle_sd`, with `agrees`, whether `oracle` lies in the interval, and `curve_agrees`,
at what share of the curve's points the exact curve lies in the interval over seeds (none of one
seed).
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from jaxsafe.advantage_nas import drawing, equal_time, evaluate, oracle, pictures, stages, summaries
from jaxsafe.advantage_nas import experiment as experiments
from jaxsafe.advantage_nas.experiment import Experiment
from jaxsafe.advantage_nas.pictures import curve
from jaxsafe.advantage_nas.summaries import NAMES, TOY_POINTS
from jaxsafe.core import loop, metrics, plots, tables
from jaxsafe.core.checks import UserError
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.run import Folder

_TOY_LABEL = "100 x loss of the most likely architecture"


def rows_of(folder: Folder, stage: str) -> list[metrics.Row]:
    """The rows of one stage."""
    return [r for r in metrics.read(folder.metrics) if r["stage"] == stage]


def finish(
    folder: Folder, options: RunOptions, experiment: Experiment, results: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Writes rows, table and pictures of any task."""
    seeds = range(options.seed, options.seed + options.num_seeds)
    makers = {"toy": _toy, "tabular": _tabular}
    if experiment.task in makers:
        return makers[experiment.task](folder, seeds, experiment, results)
    parts = _trainings(experiment, len(seeds), len(results)) + len(results)
    with loop.progress_bar(options, "scoring", parts) as bar:
        return _search(folder, seeds, experiment, results, bar.update)


def _toy(folder: Folder, seeds: range, experiment: Experiment, results) -> list[dict[str, Any]]:
    rows, lines = [], {}
    for method in results:
        told = rows_of(folder, method)
        x, loss = curve(told, "toy/loss", "iterations")
        _, correct = curve(told, "toy/correct", "iterations")
        lines[NAMES[method]] = (x, 100 * loss)
        points = {
            f"loss_at_{p}_per_seed": int(np.argmin(np.abs(x - p))) for p in TOY_POINTS if p < x[-1]
        }
        low, median, high = np.quantile(100 * loss[:, -1], [0.25, 0.5, 0.75])
        rows.append(
            {
                "method": method,
                "loss_per_seed": (100 * loss[:, -1]).tolist(),
                **{name: (100 * loss[:, at]).tolist() for name, at in points.items()},
                "correct_per_seed": correct[:, -1].tolist(),
                "median": float(median),
                "low": float(low),
                "high": float(high),
            }
        )
        metrics.append(folder.evals, evaluate.rows(method, seeds, rows[-1]))
    folder.say(
        f"\nthe toy: 100 x loss of the most likely architecture, medians of {len(seeds)} seeds"
    )
    folder.say(tables.text_table(summaries.toy(rows)))
    if len(seeds) > 1 and (pairs := summaries.toy_pairs(rows)):
        folder.say("\nmean differences of pairs of seeds, and their 95% intervals")
        folder.say(tables.text_table(pairs))
    path = folder.plots / "toy.png"
    pictures.small_multiples(path, lines, "iteration", _TOY_LABEL, NAMES["advantage"])
    folder.say(f"picture: {path}")
    return rows


def _tabular(folder: Folder, seeds: range, experiment: Experiment, results) -> list[dict[str, Any]]:
    config, cells = experiment.tabular, stages.table(str(experiment.table))
    selection, score = cells.column(config.selection), cells.column(config.score)
    rows, lines, along = [], {}, {}
    exact = oracle.random_search(selection, score, [config.queries])
    for method, best in results.items():
        x, y = curve(rows_of(folder, method), "search/score", "queries")
        lines[NAMES[method]] = (x, y)
        along[NAMES[method]] = oracle.random_search(selection, score, [int(k) for k in x]).mean
        ends = score[np.asarray(best)].reshape(len(seeds), -1)
        mean, low, high = interval(ends)
        rows.append(
            {
                "method": method,
                "queries": config.queries,
                "score": mean,
                "low": low,
                "high": high,
                "sd": float(ends.std(ddof=1)),
                "score_per_seed": ends.mean(axis=1).tolist(),
                "searches": int(ends.size),
                "oracle": float(exact.mean[0]),
                "oracle_sd": float(exact.sd[0]),
                "agrees": bool(low <= exact.mean[0] <= high),
                "curve_agrees": agreement(y, along[NAMES[method]]) if len(seeds) > 1 else None,
            }
        )
        metrics.append(folder.evals, evaluate.rows(method, seeds, rows[-1]))
    folder.say(f"\n{config.queries} queries, the best by {config.selection} kept")
    folder.say(tables.text_table(summaries.tabular(rows, config.score)))
    path = folder.plots / "tabular.png"
    pictures.queries(path, lines, along, config.score)
    folder.say(f"picture: {path}")
    return rows


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """The mean of independent searches, and its two-sided interval by Student's t."""
    flat = np.asarray(values, np.float64).reshape(-1)
    mean = float(flat.mean())
    if flat.size < 2 or not flat.std():
        return mean, mean, mean
    half = scipy_stats.t.ppf((1 + level) / 2, flat.size - 1) * flat.std(ddof=1) / flat.size**0.5
    return mean, mean - float(half), mean + float(half)


def agreement(y: np.ndarray, exact: np.ndarray) -> float:
    """Share of a curve's points `[T]` at which `exact` lies in the 95% interval of `y` `[S, T]`."""
    inside = [low <= e <= high for e, (_, low, high) in zip(exact, map(interval, y.T), strict=True)]
    return float(np.mean(inside))


def _trainings(experiment: Experiment, num_seeds: int, methods: int) -> int:
    """Trainings from scratch of a scoring, at most."""
    scoring = experiment.scoring
    found = methods * num_seeds * scoring.retrain_seeds * (1 + scoring.equal_time)
    return found + scoring.ranked * scoring.ranked_seeds


def _search(
    folder: Folder, seeds: range, experiment: Experiment, results, done
) -> list[dict[str, Any]]:
    task = stages.task(experiment)
    cells = stages.table(experiment.table) if experiment.table else None
    paces, within = {}, {}
    if experiment.scoring.equal_time:
        paces = equal_time.paces(folder, stages.stages(experiment), experiment.search)
        within = equal_time.steps_within(paces, experiment.search)
    ranked = None
    if experiment.scoring.ranked:
        ranked = evaluate.rank(task, experiment.scoring, seeds.start, done)
    rows, lines = [], {}
    for method, result in results.items():
        found = evaluate.find(result, method, task, experiment.scoring, seeds)
        rows.append(evaluate.row(method, found, task, cells))
        if experiment.scoring.retrain_seeds:
            rows[-1] |= _retrained(found.choice, task, experiment, seeds, done)
        if ranked:
            rows[-1] |= evaluate.rank_correlations(result, ranked, task)
        if method in within:
            seconds = paces[method].seconds(experiment.search)
            rows[-1]["step_ms"] = 1e3 * seconds / experiment.search.total_steps
            rows[-1] |= _in_time(
                *(folder, within[method], rows[-1], found.choice, task, experiment, seeds, done)
            )
        metrics.append(folder.evals, evaluate.rows(method, seeds, rows[-1]))
        told = rows_of(folder, method)
        lines[NAMES[method]] = curve(told, "weights/loss", "search_steps")
        _draw(folder, found, method, task, seeds.start)
        pictures.way(folder.plots / f"theta_{method}.png", told, task.space)
        done()
    folder.say(f"\n{task.data}: the cells found, scored with the supernet's weights")
    folder.say(tables.text_table(summaries.search(rows)))
    if ranked:
        folder.say(_of_ranked(ranked, task.measure, rows[0].get("rank_ceiling")))
    for r in rows:
        folder.say(f"{NAMES[r['method']]}: {'  '.join(r['architecture_per_seed'])}")
    path = folder.plots / "training_loss.png"
    plots.curves(path, lines, "search step", "training loss of sampled architectures")
    names = (path.name, "theta_METHOD.png", "cell_METHOD.png")
    folder.say(f"pictures in {folder.plots}: {', '.join(names)}")
    return rows


def _of_ranked(ranked: evaluate.Ranked, measure: str, ceiling: float | None) -> str:
    means, count = ranked.trained.mean(axis=1), ranked.trained.shape[1]
    told = f"{len(means)} random cells, trained {count} times each: {measure} "
    told += f"{means.min():.3g} to {means.max():.3g}"
    return (
        told if ceiling is None else f"{told}; halves of the trainings rank alike by {ceiling:.2f}"
    )


def _retrained(
    choice: np.ndarray, task, experiment: Experiment, seeds: range, done, known=None
) -> dict[str, Any]:
    scoring, count = experiment.scoring, experiment.scoring.retrain_seeds
    values = evaluate.retrained(choice, task, scoring, seeds.start, count, done, known)
    means = values.mean(axis=1)
    return {
        "retrained_per_seed": values.tolist(),
        "retrained_mean": float(means.mean()),
        "retrained_sd": float(means.std(ddof=1)) if len(means) > 1 else 0.0,
    }


def _in_time(
    folder: Folder, step: int, row: dict[str, Any], ended, task, experiment, seeds: range, done
) -> dict[str, Any]:
    """What training from scratch gives of a method's architectures of an earlier row."""
    config = experiments.search(experiment, row["method"])
    if step >= config.total_steps:
        at, told = config.total_steps, {n: x for n, x in row.items() if n.startswith("retrained")}
    elif row["method"] == "random":
        return {}
    else:
        earlier = equal_time.architectures(folder, row["method"], step, task.space, seeds)
        if earlier is None:
            return {}
        known = ended, np.array(row["retrained_per_seed"])
        at, told = earlier[0], _retrained(earlier[1], task, experiment, seeds, done, known)
    return {"equal_time_step": at} | {f"equal_time_{n}": x for n, x in told.items()}


def render(
    folder: Folder, options: RunOptions, experiment: Experiment, results: Mapping[str, Any]
) -> None:
    """Draws the architecture that each method's first seed found.

    Raises:
      UserError: the task has no cells to draw.
    """
    if experiment.task not in ("images", "text"):
        raise UserError(f"--mode=render: {experiment.task} has no cells to draw: use --mode=eval.")
    task = stages.task(experiment)
    seeds = range(options.seed, options.seed + options.num_seeds)
    for method, result in results.items():
        found = evaluate.find(result, method, task, experiment.scoring, seeds)
        path = _draw(folder, found, method, task, options.seed)
        folder.say(f"{NAMES[method]}, seed {options.seed}: {path}")


def _draw(folder: Folder, found: evaluate.Found, method: str, task, seed: int) -> pathlib.Path:
    """Draws the cell of the first seed, with the probabilities of its operations."""
    theta = found.theta[0] - np.logaddexp.reduce(found.theta[0], axis=1)[:, None]
    shares = np.exp(theta)[np.arange(task.space.num_edges), found.choice[0]]
    path = folder.plots / f"cell_{method}.png"
    title = f"{NAMES[method]}, seed {seed}"
    return drawing.draw_cell(path, task.space, found.choice[0], title, shares)
