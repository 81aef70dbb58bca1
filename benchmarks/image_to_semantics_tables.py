# SPDX-License-Identifier: Apache-2.0
"""Prints the committed image-to-semantics results as Markdown, as the README shows them."""

from collections.abc import Sequence

from absl import app

from benchmarks.kernels import KERNELS, Source, committed, with_ratios
from benchmarks.timing import print_tables
from jaxsafe.image_to_semantics import report


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
    """Rates a second, and ratios to PyTorch's."""
    kept = ("cores", "what", "by", "batch", "rate", "cpu_ms", "temporary_mb", "compile_s")
    told = []
    for row in with_ratios(rows, KERNELS["image_to_semantics"]):
        line = {k: "" if row.get(k) is None else row[k] for k in kept}
        told.append(line | {"x PyTorch": row.get("x PyTorch", "")})
    return told


# Title -> file, key of its rows, and what makes the table's rows.
FILES: dict[str, Source] = {
    **{
        f"Study, level {level}": (f"image_to_semantics_study_level{level}", "results", runs)
        for level in range(4)
    },
    "Demo": ("image_to_semantics_demo", "results", runs),
    "Half-cheetah": ("image_to_semantics_half_cheetah", "results", runs),
    "Methods, level 2": ("image_to_semantics_methods", "results", methods),
    "Breakout": ("image_to_semantics_breakout", "results", runs),
    "Label drift": ("label_drift", "rows", drift),
    "Speed": ("image_to_semantics", "rows", kernels),
}


def tables() -> dict[str, str]:
    """Every table for which there are results, by its title."""
    return committed(FILES)


if __name__ == "__main__":
    app.run(lambda argv: print_tables(tables()))
