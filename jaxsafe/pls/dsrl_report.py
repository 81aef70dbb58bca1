# SPDX-License-Identifier: Apache-2.0
"""DSRL's tasks as people read them: the paper's tables, with what was run here beside them.

`results` of `summary.json` is then one flat row per task, threshold and method, over S policies:

  task, threshold, method
  status             "run", or "not run here: ..." with what is lacking; then the numbers of this
                     run are none. It is so, too, where of some policy no seed was shown to be safe
  policies           S
  reward, cost       normalised by DSRL's formulas, means over S policies of the episodes of the
                     target that was chosen; a cost above 1 is unsafe
  reward_sd, cost_sd over policies; none where S = 1
  reward_per_seed, cost_per_seed
                     in the order of the seeds
  evaluations        targets evaluated by a search, each by `episodes` episodes; 0 for naive
  unsafe_evaluations number of them whose episodes' mean cost was above the threshold, mean over S
  unsafe_per_seed    in the order of the seeds
  unsafe_starts      policies whose first evaluation, which is in the seed set, was one of them:
                     then the seed set was not safe, and the search promised nothing
  alpha              deviations in the costs' bounds at the end; none where there are no bounds
  paper_reward, paper_cost, paper_reward_sd, paper_cost_sd, paper_source
                     of the paper's CDT beside naive and of its PLS beside pls; none where it has
                     no such number

Nothing here knows the true cost of a target: what is called unsafe is so by the mean of the
episodes that were run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsafe.core import metrics, tables
from jaxsafe.core.run import Folder
from jaxsafe.data import dsrl
from jaxsafe.pls import dsrl_published, dsrl_search, dsrl_study
from jaxsafe.pls.dsrl_search import Done
from jaxsafe.pls.experiment import Experiment

PAPERS = {"naive": "CDT", "pls": "PLS"}  # which of the paper's columns each method repeats
_HEADINGS = {"naive": "naive here", "pls": "PLS here"}
_UNCHECKED = "no seed was shown to be safe for {} of {} policies"
_CHECK_FIX = "lower dsrl.seed_returns or raise targets.seed_episodes"
HEADLINE = (
    "normalised reward / normalised cost, a cost above 1 is unsafe; the paper's columns are from\n"
    f"{dsrl_published.SOURCE}; naive: R = max, G = b, as the paper's CDT"
)


def row(
    task: str,
    threshold: float,
    method: str,
    done: Sequence[Done] | None,
    lacking: str = "",
) -> dict[str, Any]:
    """One row of `summary.json`; the module's docstring has its schema."""
    paper = dsrl_published.published(threshold).get(task, {}).get(PAPERS[method])
    told = {"task": task, "threshold": threshold, "method": method}
    told |= _numbers(task, threshold, done) if done else _nothing(lacking)
    for name in ("reward", "cost", "reward_sd", "cost_sd"):
        told[f"paper_{name}"] = getattr(paper, name, None)
    return told | {"paper_source": dsrl_published.SOURCE if paper else None}


def _numbers(task: str, threshold: float, done: Sequence[Done]) -> dict[str, Any]:
    means = np.array([one.final.mean(0) for one in done])
    reward = dsrl.normalised_return(means[:, 0], dsrl.reference(task))
    cost = dsrl.normalised_cost(means[:, 1], threshold)
    unsafe = [int((one.evaluated[:, 1] > threshold).sum()) for one in done]
    several = len(done) > 1
    return {
        "status": "run",
        "policies": len(done),
        "reward": float(reward.mean()),
        "cost": float(cost.mean()),
        "reward_sd": float(reward.std(ddof=1)) if several else None,
        "cost_sd": float(cost.std(ddof=1)) if several else None,
        "reward_per_seed": reward.tolist(),
        "cost_per_seed": cost.tolist(),
        "evaluations": len(done[0].evaluated),
        "unsafe_evaluations": float(np.mean(unsafe)),
        "unsafe_per_seed": unsafe,
        "unsafe_starts": sum(bool((one.evaluated[:1, 1] > threshold).any()) for one in done),
        "alpha": done[0].alpha,
    }


def _nothing(lacking: str) -> dict[str, Any]:
    names = ("reward", "cost", "reward_sd", "cost_sd", "reward_per_seed", "cost_per_seed")
    more = ("evaluations", "unsafe_evaluations", "unsafe_per_seed", "unsafe_starts", "alpha")
    blank = dict.fromkeys((*names, *more))
    return {"status": f"not run here: {lacking}", "policies": 0} | blank


def searches(
    task: str, threshold: float, method: str, done: Sequence[Done], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Flat rows for `eval.jsonl`, one per policy; returns and costs in raw units."""
    return [
        {
            "task": task,
            "threshold": threshold,
            "method": method,
            "seed": seed,
            "target_return": float(one.target[0]),
            "target_cost": float(one.target[1]),
            "return": float(one.final[:, 0].mean()),
            "cost": float(one.final[:, 1].mean()),
            "unsafe_evaluations": int((one.evaluated[:, 1] > threshold).sum()),
        }
        for seed, one in zip(seeds, done, strict=True)
    ]


def table(rows: Sequence[Mapping[str, Any]], threshold: float) -> list[dict[str, str]]:
    """The paper's table of one threshold, a line per task, and the methods run here after it."""
    paper = dsrl_published.published(threshold)
    lines: dict[str, dict[str, str]] = {}
    for r in rows:
        if r["threshold"] != threshold:
            continue
        if r["task"] not in lines:
            cells = paper.get(r["task"], {})
            columns = {m: cells[m].text for m in dsrl_published.METHODS} if cells else {}
            lines[r["task"]] = {"task": r["task"], **columns}
        lines[r["task"]][_HEADINGS[r["method"]]] = _cell(r)
    return list(lines.values())


def _cell(row: Mapping[str, Any]) -> str:
    if row["status"] != "run":
        return "not run here"

    def text(name: str) -> str:
        sd = row[f"{name}_sd"]
        return f"{row[name]:.2f}" + ("" if sd is None else f"±{sd:.2f}")

    return f"{text('reward')} / {text('cost')}"


def unsafe_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Unsafe evaluations of the searches, a line per task."""
    lines: dict[str, dict[str, str]] = {}
    for r in rows:
        if r["method"] != "pls":
            continue
        begun = {"task": r["task"], "paper, of about 20": dsrl_published.VIOLATIONS[r["task"]]}
        counted = f"{r['unsafe_evaluations']:.1f} of {r['evaluations']}" if r["policies"] else ""
        line = lines.setdefault(r["task"], begun)
        line[f"here, b = {r['threshold']:g}"] = counted or "not run here"
    return list(lines.values())


def finish(
    folder: Folder,
    seeds: Sequence[int],
    experiment: Experiment,
    results: Mapping[str, Any],
    tell: Callable[[float], None],
) -> list[dict[str, Any]]:
    """Puts the policies of `results`, by task, to work; writes the rows and prints the tables.

    `tell` is told the fraction done.
    """
    study = experiment.dsrl
    absent = [task for task in study.tasks if task not in results]
    lacking = {task: dsrl_study.lacking(task, study) for task in absent}
    root = folder.checkpoints("searches")
    done = dsrl_search.run_all(root, experiment, dict(results), seeds, tell)
    rows = []
    for task in study.tasks:
        for threshold in study.thresholds:
            for method in study.methods:
                found = done.get((task, threshold, method), [])
                own = [one for one in found if one is not None]
                what = lacking.get(task, "")
                if len(own) < len(found):
                    what = _UNCHECKED.format(len(found) - len(own), len(found))
                    folder.say(f"{task}, b = {threshold:g}: {what}; {_CHECK_FIX}")
                    own = []
                rows.append(row(task, threshold, method, own, what))
                if own:
                    metrics.append(folder.evals, searches(task, threshold, method, own, seeds))
    folder.say(f"\n{HEADLINE}")
    for threshold in study.thresholds:
        folder.say(f"\nb = {threshold:g}")
        folder.say(tables.text_table(table(rows, threshold)))
    if "pls" in study.methods:
        folder.say("\nevaluations by PLS whose episodes cost more than b on average")
        folder.say(tables.text_table(unsafe_table(rows)))
    for r in rows:
        if r["unsafe_starts"]:
            folder.say(
                f"{r['task']}, b = {r['threshold']:g}: the seed set was not safe for "
                f"{r['unsafe_starts']} of {r['policies']} policies: train longer, or lower "
                "dsrl.seed_returns or dsrl.seed_cost"
            )
    for task, what in lacking.items():
        folder.say(f"{task} was not run here: {what}")
    return rows
