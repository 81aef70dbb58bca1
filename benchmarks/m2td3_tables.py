# SPDX-License-Identifier: Apache-2.0
"""Prints the committed M2TD3 results as Markdown, as the folder's README shows them."""

import json
import math
import re
from collections.abc import Iterable, Sequence

from absl import app

from benchmarks.kernels import KERNELS, Source, committed
from benchmarks.side_by_side import side_by_side
from benchmarks.timing import RESULTS, print_tables
from jaxsafe.core.tables import markdown_table
from jaxsafe.m2td3 import published
from jaxsafe.m2td3.report import NAMES

# By title, files of `results`, each the `summary.json` of a run, and what its methods' names get
# beside them.
REDRAWN = {name: ", `omega_redraw=.2`" for name in ("m2td3_plus", "dr_td3")}
RUNS: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "InvertedPendulum-2": (("m2td3_ip2", {}), ("m2td3_ip2_redrawn", REDRAWN)),
    "InvertedPendulum-1": (("m2td3_ip1_redrawn", REDRAWN), ("m2td3_ip1", {})),
    "InvertedPendulum-2, training starts as in the paper": (("m2td3_ip2_own_starts", {}),),
    "gymnax Pendulum, three parameters": (("m2td3_pendulum3", {}),),
    "HalfCheetah-1, a smoke run of 200,000 steps": (("m2td3_half_cheetah", {}),),
}
OURS = {"InvertedPendulum-2": "m2td3_ip2"}  # of the scenarios that have published numbers
HEAD = (
    "| method | worst: IQM (95% interval) | mean +- sd | of each seed | off the grid (mean) "
    "| CVaR (mean) | average (mean) |\n|---|---|---|---|---|---|---|"
)


def table(runs: Iterable[tuple[dict, dict[str, str]]]) -> str:
    """The table of some runs in Markdown: of each its summary, and additions to methods' names."""
    rows = ((row, added) for summary, added in runs for row in summary["results"])
    return "\n".join([HEAD, *(_line(row, added.get(row["method"], "")) for row, added in rows)])


def _line(row: dict, added: str) -> str:
    def n(value: float) -> str:
        return f"{value:,.0f}"

    interval = f"{n(row['worst_iqm'])} ({n(row['worst_ci_low'])} to {n(row['worst_ci_high'])})"
    cells = (
        NAMES[row["method"]] + added,
        interval,
        f"{n(row['worst_mean'])} +- {n(row['worst_std'])}",
        " ".join(n(x) for x in row["worst_per_seed"]),
        n(row["refined_mean"]),
        n(row["cvar_mean"]),
        n(row["average_mean"]),
    )
    return f"| {' | '.join(cells)} |"


def known_answers(summary: dict) -> str:
    """The table of the games with known answers."""
    lines = [
        "| game | method | should reach | policy: median (range) | gap: median, greatest |",
        "|---|---|---|---|---|",
    ]
    for row in summary["results"]:
        numbers = sorted(row["policy_per_seed"])
        middle = (numbers[(len(numbers) - 1) // 2] + numbers[len(numbers) // 2]) / 2
        should = "none" if row["answer"] is None else f"{row['answer']:.3f}"
        gaps = ", ".join(f"{float(row[key]):.3f}" for key in ("gap_median", "gap_max"))
        spread = f"{middle:.3f} ({numbers[0]:.3f} to {numbers[-1]:.3f})"
        lines.append(f"| {row['game']} | {NAMES[row['method']]} | {should} | {spread} | {gaps} |")
    return "\n".join(lines)


def ablation(results: dict) -> str:
    """The table of the ablation."""
    lines = [
        "| what is changed | worst: IQM | mean | of each seed | average |",
        "|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        numbers = [f"{row[k]:,.0f}" for k in ("worst_iqm", "worst_mean")]
        cells = (row["what"], *numbers, row["worst_per_seed"], f"{row['average_mean']:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def beside_published() -> str:
    """The published table, with a line of ours below each scenario that was run."""
    lines = []
    for scenario, cells in published.published().items():
        path = RESULTS / f"{OURS.get(scenario, '')}.json"
        line = {"scenario": scenario} | {NAMES[m]: _cell(*cells[m]) for m in published.METHODS}
        lines.append(line | {"ours": "next line" if path.is_file() else "not run"})
        if path.is_file():
            ours = {r["method"]: _ours(r) for r in json.loads(path.read_text())["results"]}
            line = {"scenario": f"{scenario}, ours"} | {
                NAMES[m]: ours[m] for m in published.METHODS
            }
            lines.append(line | {"ours": f"M2TD3+: {ours['m2td3_plus']}"})
    return markdown_table(lines)


def _ours(row: dict) -> str:
    error = row["worst_std"] / math.sqrt(row["worst_n"])
    return _cell(row["worst_mean"], error, row["average_mean"])


def _cell(worst: float, error: float | None, average: float | None) -> str:
    spread = "" if error is None else f" +- {error:,.0f}"
    return f"{worst:,.0f}{spread}" + ("" if average is None else f" ({average:,.0f})")


def updates(rows: Sequence[dict]) -> list[dict]:
    """Critic updates a second, of all seeds together."""
    # On how many devices seeds go in turn is how many cores there are.
    rows = [row | {"what": re.sub(r" on \d$", "", row["what"])} for row in rows]
    ratios = [("jaxsafe", "PyTorch"), ("jaxsafe", "authors' code")]
    return side_by_side(rows, KERNELS["m2td3_updates"], ("cores", "seeds"), ratios=ratios)


def evaluation(rows: Sequence[dict]) -> list[dict]:
    """Environment steps a second while a policy is scored on a grid."""
    return side_by_side(rows, KERNELS["grid_evaluation"], ("cores", "batch"))


def steps(rows: Sequence[dict]) -> list[dict]:
    """Environment steps a second of worlds side by side."""
    keys = ("cores", "worlds", "actions")
    return side_by_side(rows, KERNELS["mjx_steps"], keys, ratios=[("MJX", "MuJoCo C")])


SPEEDS: dict[str, Source] = {
    "Critic updates": ("m2td3_updates", "rows", updates),
    "Scoring": ("grid_evaluation", "rows", evaluation),
    "Steps of many worlds": ("mjx_steps", "rows", steps),
}


def tables() -> dict[str, str]:
    """Every table for which there are results, by its title."""
    found = {}
    for title, files in RUNS.items():
        paths = [(RESULTS / f"{name}.json", added) for name, added in files]
        there = [(json.loads(path.read_text()), added) for path, added in paths if path.exists()]
        if there:
            found[title] = table(there)
    for name, title, make in (
        ("m2td3_known_answers", "Known answers", known_answers),
        ("m2td3_ablation", "Ablation", ablation),
    ):
        path = RESULTS / f"{name}.json"
        if path.exists():
            found[title] = make(json.loads(path.read_text()))
    return found | {"Beside the published numbers": beside_published()} | committed(SPEEDS)


if __name__ == "__main__":
    app.run(lambda argv: print_tables(tables()))
