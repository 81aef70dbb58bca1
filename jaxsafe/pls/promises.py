# SPDX-License-Identifier: Apache-2.0
"""The promise's table: what is counted, row by row, and how it is told.

`results` of `summary.json` is then one flat row per case, with what `guarantee.summarise` gives and

  case               its name: the method, its delta, and what differs from the matched study
  study              a key of `guarantee.STUDIES`
  alpha_per_seed     deviations in the costs' bounds at the last step, in the order of the seeds
  violations_per_seed, n_per_seed
                     searches that evaluated anything unsafe, of how many
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsafe.core import metrics, plots, tables
from jaxsafe.core.run import Folder
from jaxsafe.pls import counting, guarantee
from jaxsafe.pls.config import SearchConfig, paper_compat
from jaxsafe.pls.counting import Tally
from jaxsafe.pls.guarantee import Study

# What is done about a lengthscale that may be half of the model's.
ROBUST_FACTORS = (0.5, 1.0)
KINDS = ("matched", "expanders", "misspecified", "robust", "baselines", "literal")
_EPISODES = 20  # of an evaluation, where the noise is learned from their spread


class Case(NamedTuple):
    """One row: a study, a search, and whether its curves are drawn."""

    study: str
    config: SearchConfig
    drawn: bool = False


def cases(config: SearchConfig, deltas: Sequence[float], kinds: Sequence[str]) -> dict[str, Case]:
    """The rows of some of the KINDS, by name; all but `matched` are at `config.delta`."""
    rows: dict[str, Case] = {}

    def add(name: str, study: str = "matched", drawn: bool = False, **changes: Any) -> None:
        rows[name] = Case(study, dataclasses.replace(config, **changes), drawn)

    for alpha in ("srinivas", "calibrated"):
        if "matched" in kinds:
            for delta in deltas:
                drawn = delta == config.delta
                add(f"{alpha}, delta {delta:g}", drawn=drawn, alpha=alpha, delta=delta)
        if "expanders" in kinds:
            add(f"{alpha}, expander gp", drawn=True, alpha=alpha, expander="gp")
        if "misspecified" in kinds:
            for study in guarantee.STUDIES:
                if study != "matched":
                    add(f"{alpha}, {study}", study, alpha=alpha)
            learned: dict[str, Any] = {"noise": "episodes", "episodes": _EPISODES}
            add(f"{alpha}, noise from episodes", "heteroscedastic", alpha=alpha, **learned)
        if "robust" in kinds:
            for study in ("matched", "lengthscale x2"):
                name = f"{alpha} robust, {study}"
                add(name, study, alpha=alpha, lengthscale_factors=ROBUST_FACTORS)
    if "baselines" in kinds:
        add("SafeOpt's rule", drawn=True, method="safeopt", alpha="srinivas")
        add("unsafe UCB", drawn=True, method="ucb", alpha="srinivas")
        add("random in the seed set", drawn=True, method="seed", alpha="srinivas")
    if "literal" in kinds:
        literal = paper_compat(dataclasses.replace(config, alpha="srinivas"))
        rows["the paper's text"] = Case("matched", literal)
    return rows


def study_of(case: Case, side: int) -> Study:
    """The case's study on a grid of `side` by `side`; evaluations of more episodes are no better.

    An episode's noise grows with their number, so that all rows have the same noise.
    """
    study = guarantee.STUDIES[case.study]
    noise_sd = study.noise_sd * case.config.episodes**0.5
    return dataclasses.replace(study, side=side, noise_sd=noise_sd)


def row(name: str, case: Case, tally: Tally) -> dict[str, Any]:
    """One row of `summary.json`; the module's docstring has its schema."""
    valid = np.asarray(tally.valid)
    unsafe = np.asarray(tally.outcome.unsafe).any(2) & valid
    return {
        "case": name,
        "study": case.study,
        "alpha_per_seed": np.asarray(tally.high, np.float64).tolist(),
        "violations_per_seed": unsafe.sum(1).tolist(),
        "n_per_seed": valid.sum(1).tolist(),
    } | guarantee.summarise(counting.counted(tally), case.config.delta)


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What people read of the rows."""
    return [
        {
            "search": r["case"],
            "alpha": float(np.mean(r["alpha_per_seed"])),
            "n": r["n"],
            "violations": r["violations"],
            "frequency": f"{r['frequency']:.4f}",
            "95% interval": f"{r['low']:.4f} - {r['high']:.4f}",
            "delta": f"{r['delta']:g}",
            "kept": "yes" if r["kept"] else "no",
            "regret": r["regret"],
            "safe set": f"{r['coverage']:.0%}",
        }
        for r in rows
    ]


HEADLINE = (
    "violations: searches that evaluated any unsafe point; kept: the interval's upper end is at\n"
    "most delta; regret: median, of what would be deployed; safe set: share found, mean"
)


def finish(
    folder: Folder, seeds: range, chosen: Mapping[str, Case], results: Mapping[str, Tally]
) -> list[dict[str, Any]]:
    """Summarises all tallies of `results`, by case; writes rows, the table and the pictures."""
    rows = [row(name, case, results[name]) for name, case in chosen.items()]
    for r in rows:
        metrics.append(
            folder.evals,
            [
                {
                    "case": r["case"],
                    "seed": seed,
                    "alpha": r["alpha_per_seed"][i],
                    "n": r["n_per_seed"][i],
                    "violations": r["violations_per_seed"][i],
                }
                for i, seed in enumerate(seeds)
            ],
        )
    folder.say(f"\n{HEADLINE}")
    folder.say(tables.text_table(table(rows)))
    folder.say(f"picture: {frequencies(folder.plots / 'promise.png', rows)}")
    drawn = {name: results[name] for name, case in chosen.items() if case.drawn}
    if drawn:
        folder.say(f"pictures: {', '.join(str(path) for path in progress(folder.plots, drawn))}")
    return rows


def progress(folder: pathlib.Path, tallies: Mapping[str, Tally]) -> list[pathlib.Path]:
    """Draws regret and coverage over the steps, a line per seed."""
    paths = []
    for field, label, over in (
        ("regret", "median regret of what would be deployed", np.nanmedian),
        ("coverage", "share of the safe set found, mean", np.nanmean),
    ):
        lines = {}
        for name, tally in tallies.items():
            values = np.asarray(getattr(tally.outcome, field))
            curve = over(np.where(np.asarray(tally.valid)[:, :, None], values, np.nan), axis=1)
            lines[name] = (np.arange(1, curve.shape[1] + 1), curve)
        paths.append(plots.curves(folder / f"{field}.png", lines, "step", label))
    return paths


def frequencies(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> pathlib.Path:
    """Draws each case's frequency with its exact interval, and the delta it promised."""
    figure = plots.new_figure((8.2, 0.9 + 0.27 * len(rows)))
    axes = figure.subplots()
    least = 10.0 ** np.floor(np.log10(min(r["high"] for r in rows)))
    for i, r in enumerate(rows):
        colour = plots.PALETTE[0] if r["kept"] else plots.PALETTE[1]
        axes.plot([max(r["low"], least), r["high"]], [i, i], color=colour, linewidth=2)
        if r["frequency"] > 0:
            axes.plot(r["frequency"], i, "o", color=colour, markersize=5)
        axes.plot([r["delta"]] * 2, [i - 0.35, i + 0.35], color=plots.INK, linewidth=1.5)
    axes.set_xscale("log")
    axes.set_xlim(least, 1.05)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [r["case"] for r in rows], fontsize=9)
    axes.set_xlabel("share of searches with an unsafe evaluation; bar: promised", **plots.LABEL)
    axes.spines[["top", "right"]].set_visible(False)
    return plots.save(figure, path)
