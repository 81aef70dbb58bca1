# SPDX-License-Identifier: Apache-2.0
"""Prints the committed PLS results as Markdown, as the folder's README shows them."""

import json
from collections.abc import Sequence

from absl import app

from benchmarks.kernels import KERNELS
from benchmarks.side_by_side import side_by_side
from benchmarks.timing import RESULTS, print_tables
from jaxsafe.core.tables import markdown_table
from jaxsafe.pls import dsrl_published, dsrl_report, promises, report

# Files of `results`, each a run's `summary.json`: what is above it, and what people read of it.
RUNS = {
    "pls_guarantee": ("The promise, counted", promises.table),
    "pls_demo": ("Demo", report.table),
    "pls_study": ("Study", report.table),
}


def search_steps(rows: Sequence[dict]) -> str:
    """Milliseconds of one search step, by what is timed and the observations N before it."""
    lines: dict[tuple[int, str], dict] = {}
    for row in rows:
        if row["seeds"] == 1:
            line = {"cores": row["cores"], "ms of a step": row["what"]}
            line = lines.setdefault((row["cores"], row["what"]), line)
            line[f"N = {row['N']}"] = float(row["ms"])
    return markdown_table(list(lines.values()))


def throughput(rows: Sequence[dict]) -> str:
    """Steps of whole searches mapped over seeds."""
    return markdown_table(
        [
            {
                "cores": row["cores"],
                "what": f"{row['what']}, {row['seeds']} seeds",
                "steps a second": row["rate"],
                "steps a CPU-second": row["per_cpu_s"],
            }
            for row in rows
            if row["seeds"] > 1
        ]
    )


def transformer(rows: Sequence[dict]) -> str:
    """Training steps and policy steps a second of the decision transformer."""
    keys = ("cores", "what", "batch")
    ratios = [(by, "PyTorch") for by in ("jaxsafe", "jaxsafe, 2 devices")]
    return markdown_table(side_by_side(rows, KERNELS["cdt"], keys, ratios=ratios))


BENCHMARKS = {
    "Search steps": ("pls_search", search_steps),
    "Search throughput": ("pls_search", throughput),
    "Transformer": ("cdt", transformer),
}


def dsrl() -> str:
    """The paper's results on its nine tasks at both thresholds, and ours where there is a run."""
    path = RESULTS / "pls_dsrl.json"
    if path.exists():
        rows = json.loads(path.read_text())["results"]
    else:
        rows = [
            dsrl_report.row(task, threshold, method, None, "the data are not at hand")
            for task in dsrl_published.SETTINGS
            for threshold in (20.0, 40.0)
            for method in dsrl_report.PAPERS
        ]
    each = zip(
        *(dsrl_report.table(rows, threshold) for threshold in (20.0, 40.0)),
        dsrl_report.unsafe_table(rows),
        strict=True,
    )
    lines = []
    for low, high, unsafe in each:
        line = {k: v if v == high[k] else f"{v}; {high[k]}" for k, v in low.items()}
        more = {f"unsafe, {k}": v for k, v in unsafe.items() if k != "task"}
        lines.append(line | more)
    return markdown_table(lines)


def tables() -> dict[str, str]:
    """Every table for which there are results, by its title."""
    found = {}
    for name, (title, make) in RUNS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            found[title] = markdown_table(make(json.loads(path.read_text())["results"]))
    for title, (name, make_text) in BENCHMARKS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            found[title] = make_text(json.loads(path.read_text())["rows"])
    return found | {"Beside the published numbers": dsrl()}


if __name__ == "__main__":
    app.run(lambda argv: print_tables(tables()))
