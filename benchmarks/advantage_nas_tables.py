# SPDX-License-Identifier: Apache-2.0
"""Prints the committed AdvantageNAS results as Markdown, as the folder's README shows them."""

from collections.abc import Sequence

from absl import app

from benchmarks.kernels import KERNELS, Source, committed
from benchmarks.side_by_side import side_by_side
from benchmarks.timing import print_tables
from jaxsafe.advantage_nas import summaries


def queries(rows: Sequence[dict]) -> list[dict]:
    """Of the table's searches; the exact value is the same in each row."""
    kept = summaries.tabular(rows, "cifar10_test")
    return [{k: v for k, v in row.items() if k != "searches"} for row in kept]


def steps(rows: Sequence[dict]) -> list[dict]:
    """Search steps a second, and ratios of rates."""
    keys = ("cores", "size", "batch", "edges")
    ours = ("jaxsafe, scan", "jaxsafe, scan, 2 devices")
    ratios = [(name, "PyTorch GDAS") for name in ours]
    ratios.append(("jaxsafe, scan", "PyTorch GDAS, lean"))
    return side_by_side(rows, KERNELS["advantage_nas_step"], keys, ratios=ratios)


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
