# SPDX-License-Identifier: Apache-2.0
"""Prints the committed results of SACPO and of lm as Markdown, as the README shows them."""

from collections.abc import Sequence

from absl import app

from benchmarks.kernels import KERNELS, Source, committed, with_ratios
from benchmarks.timing import print_tables

# Of `report.table`, what fits a page.
COLUMNS = ("reward", "safety", "words", "helpful_accuracy", "safe_accuracy", "safe_nll")


def policies(rows: Sequence[dict]) -> list[dict]:
    """A row per policy: means over seeds, 95% intervals of reward and safety."""

    def cell(row: dict, name: str) -> str:
        if row.get(name) is None:
            return "-"
        if name in ("reward", "safety"):
            return f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"
        return f"{row[name]:.2f}"

    return [
        {"policy": row["policy"]}
        | {name.replace("_", " "): cell(row, name) for name in COLUMNS}
        | {"keep the bound": f"{row['meets_bound']} of {len(row['safety_per_seed'])}"}
        for row in rows
    ]


def pairs(rows: Sequence[dict]) -> list[dict]:
    """A row per policy: what it says of held-out pairs; the last, what length alone would score."""
    names = ("helpful_accuracy", "helpful_nll", "safe_accuracy", "safe_nll")

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    found = [
        {"policy": row["policy"]} | {n.replace("_", " "): cell(row[n]) for n in names}
        for row in rows
    ]
    length = [rows[0][f"{which}_longer"] for which in ("helpful", "safe")]
    cells = (cell(length[0]), "-", cell(length[1]), "-")
    return [
        *found,
        {"policy": "the longer answer"} | dict(zip(list(found[0])[1:], cells, strict=True)),
    ]


def updates(rows: Sequence[dict]) -> list[dict]:
    """Seconds of an update, and ratios of rates."""
    kept = ("cores", "by", "reference", "s_per_update", "x TRL")
    found = with_ratios(rows, KERNELS["sacpo_dpo"])
    return [{k: row[k] for k in kept if k in row} for row in found]


def tokens(rows: Sequence[dict]) -> list[dict]:
    """New tokens a second, and ratios of rates."""
    kept = ("cores", "by", "batch", "unequal", "rate", "x transformers")
    found = with_ratios(rows, KERNELS["lm_generate"])
    return [{k: row[k] for k in kept if k in row} for row in found]


# Title -> file, key of its rows, and what makes the table's rows.
FILES: dict[str, Source] = {
    "Demo, five seeds": ("sacpo_demo", "results", policies),
    "Study, five seeds": ("sacpo_study", "results", policies),
    "Real pairs": ("sacpo_real", "results", pairs),
    "DPO updates": ("sacpo_dpo", "rows", updates),
    "Greedy generation": ("lm_generate", "rows", tokens),
}


def tables() -> dict[str, str]:
    """Every table for which there are results, by its title."""
    return committed(FILES)


if __name__ == "__main__":
    app.run(lambda argv: print_tables(tables()))
