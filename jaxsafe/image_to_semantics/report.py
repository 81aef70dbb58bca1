# SPDX-License-Identifier: Apache-2.0
"""Scores as rows, a table and pictures: returns, semantics over an episode, a film."""

import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxsafe.core import metrics, plots, stats, tables
from jaxsafe.core.run import Folder
from jaxsafe.image_to_semantics import augment, collect, evaluate, stages, study, worlds
from jaxsafe.image_to_semantics import plans as plans_lib
from jaxsafe.image_to_semantics.collect import Recipe
from jaxsafe.image_to_semantics.evaluate import Policy
from jaxsafe.image_to_semantics.experiment import Experiment

HEADLINE = (
    "distance: squared error of normalised semantics, summed over dimensions, on held-out "
    "behaviour and on the agents' own states;\nreturn: of pi(F(image)) in the target world, "
    "0 as random behaviour and 1 as pi on true states; mean over seeds, 95% bootstrap of its IQM"
)
_PANELS = 12  # semantics that are drawn at most
_SHOWN = ("active", "auto", "augmented", "copied", "ceiling", "paired")


def policy_of(results: dict[str, Any], seed: int) -> Policy:
    """The translators of one seed (by its place) out of a stage's result."""
    one = jax.tree.map(lambda x: x[seed], results)
    return Policy(one["vae"], one["heads"], one["range"], one.get("controller"))


def acts(experiment: Experiment, results: dict[str, Any]) -> bool:
    """Whether there is a policy to put behind the translators: a trained one or the world's own."""
    return "controller" in results or worlds.make(experiment.data.world).policy is not None


def score(
    experiment: Experiment, seeds: range, results: dict[str, Any], tell: Callable[[float], None]
) -> list[dict[str, Any]]:
    """Scores every predictor of every seed; one row each.

    Args:
      experiment: what was run.
      seeds: of the runs.
      results: the stage's, leaves `[num_seeds, ...]`, and `controller` where one was trained.
      tell: called with the share that is done.
    """
    data, how = experiment.data, experiment.eval
    world, held_out = worlds.make(data.world), stages.held_out(data)
    recipe = Recipe(data.world, data.level, how.seed, data.renderer)
    plans = plans_lib.plans(experiment.study)
    act, rows = acts(experiment, results), []
    for i, seed in enumerate(seeds):
        policy = policy_of(results, i)
        found = evaluate.translate(policy, experiment.algo, held_out)
        errors = [evaluate.squared_errors(held_out.truth, x, policy.range) for x in found]
        if act:
            run = evaluate.transfer(policy, experiment.algo, recipe, how.episodes, how.gain)
            references = _references(recipe, how.episodes, policy)
        for v, plan in enumerate(plans):
            horizon, label_error = results["horizon"][i, v], results["label_error"][i]
            row: dict[str, Any] = {
                "method": plan.method,
                "annotations": plan.budget or int(results["labelled"][i, v]),
                "seed": seed,
                "labels": int(results["labelled"][i, v]),
                "horizon": float(horizon[horizon >= 0].mean()) if (horizon >= 0).any() else 0.0,
                "distance": float(errors[v].sum()),
                "errors": dict(zip(world.names, map(float, errors[v]), strict=True)),
            }
            if v < len(label_error):  # the others have no label
                row["label_error"] = float(label_error[v])
            if plan.method == "identified":
                factors = results["factors"][i, experiment.study.budgets.index(plan.budget)]
                row["factors"] = dict(zip(worlds.FACTORS, map(float, factors), strict=True))
            if act:
                mean = float(run.returns[v].mean())
                truth, behaviour = (references[f"return_{k}"] for k in ("true_state", "behaviour"))
                row |= {
                    "on_policy_distance": float(run.distance[v]),
                    "return": mean,
                    "normalised": float(evaluate.normalised_return(mean, truth, behaviour)),
                }
                row |= references
            rows.append(row)
        tell((i + 1) / len(seeds))
    return rows


def _references(recipe: Recipe, episodes: int, policy: Policy) -> dict[str, float]:
    """Mean returns that an agent's is held against, over the same starts."""
    true = partial(evaluate.true_state_returns, controller=policy.controller)
    return {
        "return_true_state": float(true(recipe, episodes).mean()),
        "return_behaviour": float(collect.behaviour_returns(recipe, episodes).mean()),
        "return_source": float(true(recipe._replace(level=0), episodes).mean()),
    }


def summarise(experiment: Experiment, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per predictor over seeds; `better` is by how much its return beats `paired`'s.

    Differences are paired by seed, with a bootstrap interval over seeds.
    """
    out = []
    for plan in plans_lib.plans(experiment.study):
        budget = plan.budget or None
        mine = _of(rows, plan.method, budget)
        row: dict[str, Any] = {
            "method": plan.method,
            "annotations": mine[0]["annotations"],
            "labels": float(np.mean([r["labels"] for r in mine])),
            "horizon": float(np.mean([r["horizon"] for r in mine])),
            "seeds": len(mine),
        }
        if "label_error" in mine[0]:
            row["label_error"] = float(np.mean([r["label_error"] for r in mine]))
        for name in ("distance", "on_policy_distance", "return", "normalised"):
            if name in mine[0]:
                values = stats.summarise([r[name] for r in mine])
                row[name], row[f"{name}_std"] = values["mean"], values["std"]
                row[f"{name}_low"], row[f"{name}_high"] = values["ci_low"], values["ci_high"]
        paired = _of(rows, "paired", budget)
        if paired and "normalised" in mine[0] and plan.method not in ("paired", *plans_lib.ONCE):
            gaps = [a["normalised"] - b["normalised"] for a, b in zip(mine, paired, strict=True)]
            values = stats.summarise(gaps)
            row["better"] = values["mean"]
            row["better_low"], row["better_high"] = values["ci_low"], values["ci_high"]
        out.append(row)
    return out


def _of(rows: Sequence[dict[str, Any]], method: str, budget: int | None) -> list[dict[str, Any]]:
    return [r for r in rows if r["method"] == method and budget in (None, r["annotations"])]


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What people read of `summarise`."""
    shown = []
    for r in rows:
        line = {
            "method": r["method"],
            "annotations": r["annotations"],
            "labels": f"{r['labels']:.0f}",
            "label error": f"{r['label_error']:.3f}" if "label_error" in r else "",
            "distance": f"{r['distance']:.3f}",
        }
        if "normalised" in r:
            line |= {
                "on policy": f"{r['on_policy_distance']:.3f}",
                "return": f"{r['return']:.2f}",
                "normalised": f"{r['normalised']:.2f} "
                f"[{r['normalised_low']:.2f}, {r['normalised_high']:.2f}]",
            }
        if "better" in r:
            span = f"[{r['better_low']:+.2f}, {r['better_high']:+.2f}]"
            line["more than paired"] = f"{r['better']:+.2f} {span}"
        shown.append(line)
    return shown


def returns(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> pathlib.Path:
    """Draws normalised return, or distance where there is none, against annotations."""
    name = "normalised" if "normalised" in rows[0] else "distance"
    series = {}
    for method in dict.fromkeys(r["method"] for r in rows if r["method"] not in plans_lib.ONCE):
        mine = [r for r in rows if r["method"] == method]
        seeds = sorted({r["seed"] for r in mine})
        budgets = sorted({r["annotations"] for r in mine})
        y = [[_one(mine, s, b)[name] for b in budgets] for s in seeds]
        series[method.replace("_", " ")] = (budgets, y)
    label = "return (0 behaviour, 1 true state)" if name == "normalised" else "matching distance"
    return plots.curves(path, series, "annotations", label, "Few annotations, many labels")


def _one(rows: Sequence[dict[str, Any]], seed: int, budget: int) -> dict[str, Any]:
    return next(r for r in rows if r["seed"] == seed and r["annotations"] == budget)


def shown_plan(experiment: Experiment) -> int:
    """The predictor that pictures show: of the best method there is, with most annotations."""
    plans = plans_lib.plans(experiment.study)
    method = next((m for m in _SHOWN if any(p.method == m for p in plans)), plans[0].method)
    return max((p.budget, v) for v, p in enumerate(plans) if p.method == method)[1]


def strip(
    path: pathlib.Path, experiment: Experiment, results: dict[str, Any], frames: int = 8
) -> pathlib.Path:
    """Draws images of a held-out episode, and its true, predicted and replayed semantics."""
    data = experiment.data
    world, held_out = worlds.make(data.world), stages.held_out(data)
    v, std = shown_plan(experiment), stages.seen(data, experiment.algo.range_margin).std
    count = int(held_out.lengths[0])
    found = evaluate.translate(policy_of(results, 0), experiment.algo, held_out)[v, :count]
    laid = study.table(held_out, 1, std)
    rolled = jax.jit(
        lambda start, actions, lengths: augment.roll_out(
            worlds.simulator(world), start, actions, lengths, actions.shape[1]
        )
    )(laid.truth[:1, 0], laid.actions[:1], laid.lengths[:1]).semantics[0, :count]
    shown = min(world.size, _PANELS)
    columns = min(4, shown)
    panels = -(-shown // columns)
    figure = plots.new_figure((11, 1.6 + 1.8 * panels))
    top, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.4, 1.8 * panels])[:, 0]
    steps = np.linspace(0, count - 1, frames).round().astype(int)
    for axes, t in zip(top.subplots(1, frames, squeeze=False)[0], steps, strict=True):
        axes.imshow(held_out.images[t])
        axes.set_title(f"step {t}", fontsize=8, color=plots.INK)
        axes.set_axis_off()
    grid = below.subplots(panels, columns, squeeze=False).ravel()
    lines = [
        ("true", held_out.truth[:count], plots.INK, "-"),
        ("replayed by the simulator", np.asarray(rolled), plots.PALETTE[1], "--"),
        ("seen in the image", found, plots.PALETTE[0], "-"),
    ]
    for s, axes in enumerate(grid):
        axes.set_visible(s < shown)
        if s < shown:
            for label, values, colour, style in lines:
                axes.plot(values[:, s], style, color=colour, linewidth=1.2, label=label)
            axes.set_title(world.names[s], fontsize=9, color=plots.INK)
            axes.tick_params(labelsize=7, colors=plots.INK)
    below.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return plots.save(figure, path)


def film(
    path: pathlib.Path, experiment: Experiment, results: dict[str, Any], episodes: int = 3
) -> pathlib.Path:
    """Writes a GIF of the first seed's agent in the target world, episodes side by side.

    Raises:
      UserError: the world has no policy.
    """
    data, v = experiment.data, shown_plan(experiment)
    policy = policy_of(results, 0)
    policy = policy._replace(heads=jax.tree.map(lambda x: x[v : v + 1], policy.heads))
    recipe = Recipe(data.world, data.level, experiment.eval.seed, data.renderer)
    shots: list[Image.Image] = []

    def keep(t: int, images: np.ndarray, truth: np.ndarray, seen: np.ndarray) -> None:
        del t, truth, seen
        wide = Image.fromarray(np.concatenate(list(images[0]), axis=1))
        shots.append(wide.resize((3 * wide.width, 3 * wide.height), Image.Resampling.NEAREST))

    evaluate.transfer(policy, experiment.algo, recipe, episodes, experiment.eval.gain, keep)
    path.parent.mkdir(parents=True, exist_ok=True)
    shots[0].save(path, save_all=True, append_images=shots[1:], duration=80, loop=0)
    return path


def drift(experiment: Experiment) -> list[dict[str, Any]]:
    """How far replayed labels are off in the target world, by step, in standard deviations."""
    data = experiment.data
    what = stages.seen(data, experiment.algo.range_margin)
    errors = evaluate.label_drift(worlds.make(data.world), what.offline, what.std)
    steps = [t for t in (1, 10, 50, 200) if t < len(errors)] + [len(errors) - 1]
    return [{"step": t, "label error": f"{errors[t]:.4f}"} for t in dict.fromkeys(steps)]


def finish(
    folder: Folder,
    seeds: range,
    experiment: Experiment,
    results: dict[str, Any],
    tell: Callable[[float], None],
) -> list[dict[str, Any]]:
    """Scores, prints and draws; returns the summary's rows."""
    rows = score(experiment, seeds, results, tell)
    metrics.append(folder.evals, rows)
    summary = summarise(experiment, rows)
    folder.say(
        f"\nreplayed labels against the truth, in standard deviations, gap level "
        f"{experiment.data.level}"
    )
    folder.say(tables.text_table(drift(experiment)))
    folder.say(f"\n{HEADLINE}")
    folder.say(tables.text_table(table(summary)))
    folder.say(f"picture: {returns(folder.plots / 'returns.png', rows)}")
    folder.say(f"picture: {strip(folder.plots / 'semantics.png', experiment, results)}")
    if acts(experiment, results):
        folder.say(f"film: {film(folder.plots / 'transfer.gif', experiment, results)}")
    return summary
