# SPDX-License-Identifier: Apache-2.0
"""Prints the committed image-to-semantics results as Markdown, as the README shows them."""

import json
from collections.abc import Callable, Sequence

from absl import app

from benchmarks.kernels import KERNELS, Source, committed
from benchmarks.side_by_side import side_by_side
from benchmarks.timing import RESULTS, print_tables
from jaxsafe.core.tables import markdown_table
from jaxsafe.image_to_semantics import published, report

LEVELS = range(4)


def runs(rows: Sequence[dict]) -> list[dict]:
    """Of a run's summary; a cell that a row lacks stays empty."""
    shown = report.table(rows)
    columns = list(dict.fromkeys(key for row in shown for key in row))
    return [{key: row.get(key, "") for key in columns} for row in shown]


def methods(rows: Sequence[dict]) -> list[dict]:
    """As `runs`, with K, the steps that a label was replayed, averaged over annotated episodes."""
    told = runs(rows)
    for line, row in zip(told, rows, strict=True):
        line["K"] = f"{row['horizon']:.1f}"
    return told


def drift(rows: Sequence[dict]) -> list[dict]:
    """Errors of replayed labels by world, level and horizon."""
    kept = []
    for row in rows:
        errors = {k: v for k, v in row.items() if k.startswith("t = ")}
        told = {k: "" if v is None else f"{v:.4f}" for k, v in errors.items()}
        kept.append({"world": row["world"], "level": row["level"]} | told)
    return kept


def kernels(rows: Sequence[dict]) -> list[dict]:
    """Rates a second at one size of each kernel, and ratios to PyTorch's."""
    rows = [row for row in rows if row["batch"] in (50, 64, 200)]
    keys = ("cores", "what", "batch")
    ratios = [("jaxsafe", "PyTorch")]
    return side_by_side(rows, KERNELS["image_to_semantics"], keys, ratios=ratios)


def by_level(cell: Callable[[dict], str]) -> str:
    """A cell of every method and budget of the studies, a column for each level."""
    lines: dict[tuple, dict] = {}
    for level in LEVELS:
        path = RESULTS / f"image_to_semantics_study_level{level}.json"
        for row in json.loads(path.read_text())["results"]:
            at = {k: row[k] for k in ("method", "annotations")}
            if text := cell(row):
                lines.setdefault(tuple(at.values()), at)[f"level {level}"] = text
    return markdown_table(list(lines.values()))


def scores(row: dict) -> str:
    """Normalised return with its interval, then the distance on held-out behaviour."""
    low, high = row["normalised_low"], row["normalised_high"]
    return f"{row['normalised']:.2f} [{low:.2f}, {high:.2f}]; {row['distance']:.3f}"


def ahead(row: dict) -> str:
    """Normalised return less that of `paired`, with its interval; "" where it is no such row."""
    if row.get("better") is None:
        return ""
    return f"{row['better']:+.2f} [{row['better_low']:+.2f}, {row['better_high']:+.2f}]"


def beside_published() -> str:
    """The paper's results, and ours of the one world that both have."""
    path = RESULTS / "image_to_semantics_half_cheetah.json"
    found = json.loads(path.read_text())["results"] if path.exists() else []
    ours = {(str(row["annotations"]), row["method"]): row for row in found}
    lines = []
    for row in published.published():
        line = {"annotations": row.annotations, "errors": row.errors or "none"}
        line["method"] = published.METHODS[row.method]
        for name, cell in row.cells.items():
            known = "" if cell.normalised is None else f" ({cell.normalised:.2f})"
            line[name] = cell.text + known
        at = ("50" if row.annotations == "many" else row.annotations, row.method)
        told = "not run"
        if at in ours and not row.errors:
            mine = ours[at]
            told = f"{mine['distance']:.2f} / {mine['return']:.0f} ({mine['normalised']:.2f})"
        lines.append(line | {"our half-cheetah, random": told})
    columns = list(lines[0])
    return markdown_table([{name: line.get(name, "") for name in columns} for line in lines])


# Title -> file, key of its rows, and what makes the table's rows.
FILES: dict[str, Source] = {
    "Demo": ("image_to_semantics_demo", "results", runs),
    "Half-cheetah": ("image_to_semantics_half_cheetah", "results", runs),
    "Methods, level 2": ("image_to_semantics_methods", "results", methods),
    "Breakout": ("image_to_semantics_breakout", "results", runs),
    "Label drift": ("label_drift", "rows", drift),
    "Speed": ("image_to_semantics", "rows", kernels),
}


def tables() -> dict[str, str]:
    """Every table for which there are results, by its title."""
    more = {
        "Studies": by_level(scores),
        "Studies, more than paired": by_level(ahead),
        "Beside the published numbers": beside_published(),
    }
    return more | committed(FILES)


if __name__ == "__main__":
    app.run(lambda argv: print_tables(tables()))
