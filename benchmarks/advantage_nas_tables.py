# SPDX-License-Identifier: Apache-2.0
"""Prints the committed AdvantageNAS results as Markdown, as the folder's README shows them."""

from collections.abc import Sequence

from absl import app

from benchmarks.kernels import KERNELS, Source, committed, with_ratios
from benchmarks.timing import print_tables
from jaxsafe.advantage_nas import summaries


def queries(rows: Sequence[dict]) -> list[dict]:
    """Of the table's searches; the exact value is the same in each row."""
    kept = summaries.tabular(rows, "cifar10_test")
    return [{k: v for k, v in row.items() if k != "searches"} for row in kept]


def steps(rows: Sequence[dict]) -> list[dict]:
    """Search steps a second, and ratios of rates."""
    kept = ("cores", "size", "batch", "edges", "what", "rate", "temporary_mb", "compile_s")
    told = []
    for row in with_ratios(rows, KERNELS["advantage_nas_step"]):
        ratios = {k: v for k, v in row.items() if k.startswith("x ")}
        told.append({k: row[k] for k in kept if row.get(k) is not None} | ratios)
    return told


# Title -> file, key of its rows, and what makes the table's rows.
FILES: dict[str, Source] = {
    "Toy": ("advantage_nas_toy", "results", summaries.toy),
    "Toy, pairs of seeds": ("advantage_nas_toy", "results", summaries.toy_pairs),
    "Query search": ("advantage_nas_tabular", "results", queries),
    "Demo": ("advantage_nas_demo", "results", summaries.search),
    "Digits": ("advantage_nas_digits", "results", summaries.search),
    "Text": ("advantage_nas_text", "results", summaries.search),
    "Search steps": ("advantage_nas_step", "rows", steps),
}


def tables() -> dict[str, str]:
    """Every table for which there are results, by its title."""
    return committed(FILES)


if __name__ == "__main__":
    app.run(lambda argv: print_tables(tables()))
