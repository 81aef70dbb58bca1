# SPDX-License-Identifier: Apache-2.0
"""Prints the committed M2TD3 results as Markdown, as the folder's README shows them."""

import json

from absl import app

from benchmarks.timing import RESULTS, print_tables
from jaxsafe.m2td3.report import NAMES

# Files of `results`, each the `summary.json` of a run, and what is above them.
RUNS = {
    "m2td3_ip2": "InvertedPendulum-2",
    "m2td3_ip1": "InvertedPendulum-1",
    "m2td3_ip1_redrawn": "InvertedPendulum-1, omega drawn anew within episodes",
    "m2td3_ip1_checked": "InvertedPendulum-1, candidates checked by rollouts",
    "m2td3_ip2_own_starts": "InvertedPendulum-2, training starts as in the paper",
    "m2td3_pendulum3": "gymnax Pendulum, three parameters",
    "m2td3_half_cheetah": "HalfCheetah-1, a smoke run of 200,000 steps",
}
HEAD = (
    "| method | worst: IQM (95% interval) | mean +- sd | of each seed | off the grid (mean) "
    "| CVaR (mean) | average (mean) |\n|---|---|---|---|---|---|---|"
)


def table(summary: dict) -> str:
    """One run's table in Markdown."""
    return "\n".join([HEAD, *map(_line, summary["results"])])


def _line(row: dict) -> str:
    def n(value: float) -> str:
        return f"{value:,.0f}"

    interval = f"{n(row['worst_iqm'])} ({n(row['worst_ci_low'])} to {n(row['worst_ci_high'])})"
    cells = (
        NAMES[row["method"]],
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


def tables() -> dict[str, str]:
    """Every table for which there are results, by its title."""
    found = {}
    for name, title in RUNS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            found[title] = table(json.loads(path.read_text()))
    for name, title, make in (
        ("m2td3_known_answers", "Known answers", known_answers),
        ("m2td3_ablation", "Ablation", ablation),
    ):
        path = RESULTS / f"{name}.json"
        if path.exists():
            found[title] = make(json.loads(path.read_text()))
    return found


def main(argv):
    """Prints all tables."""
    del argv
    print_tables(tables())


if __name__ == "__main__":
    app.run(main)
