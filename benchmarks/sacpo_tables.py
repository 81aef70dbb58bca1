# SPDX-License-Identifier: Apache-2.0
"""Prints the committed results of SACPO and of lm as Markdown, as the README shows them."""

from collections.abc import Sequence

from absl import app

from benchmarks.kernels import KERNELS, Source, committed
from benchmarks.side_by_side import side_by_side
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
    """A row per policy: what it says of held-out pairs, means and least to most of the seeds.

    The last row is what length alone would score.
    """
    kinds = [kind for kind in ("helpful", "safe", "test") if f"{kind}_nll" in rows[0]]

    def cell(row: dict, name: str) -> str:
        if row[name] is None:
            return "-"
        each = row[f"{name}_per_seed"]
        spread = f" ({min(each):.3f} to {max(each):.3f})" if len(each) > 1 else ""
        return f"{row[name]:.3f}{spread}"

    found = [
        {"policy": row["policy"]}
        | {f"{k} {n}": cell(row, f"{k}_{n}") for k in kinds for n in ("accuracy", "nll")}
        for row in rows
    ]
    length = {f"{k} accuracy": f"{rows[0][f'{k}_longer']:.3f}" for k in kinds}
    return [*found, {name: "-" for name in found[0]} | {"policy": "the longer answer"} | length]


def updates(rows: Sequence[dict]) -> list[dict]:
    """Seconds of an update, and ratios of rates."""
    keys = ("cores", "pairs", "reference")
    ratios = [(by, "TRL") for by in ("jaxsafe", "jaxsafe, 2 devices")]
    kernel = KERNELS["sacpo_dpo"]
    return side_by_side(rows, kernel, keys, value="s_per_update", ratios=ratios)


def tokens(rows: Sequence[dict]) -> list[dict]:
    """New tokens a second, and ratios of rates."""
    rows = [row | {"prompts": "unequal" if row["unequal"] else "equal"} for row in rows]
    keys = ("cores", "batch", "prompts")
    ratios = [(by, "transformers") for by in ("jaxsafe", "jaxsafe, 2 devices")]
    return side_by_side(rows, KERNELS["lm_generate"], keys, ratios=ratios)


def swept(rows: Sequence[dict]) -> list[dict]:
    """The swept policies alone; the others stand in the study's table."""
    return policies([row for row in rows if "@" in row["policy"]])


# Title -> file, key of its rows, and what makes the table's rows.
FILES: dict[str, Source] = {
    "Demo, five seeds": ("sacpo_demo", "results", policies),
    "Study, five seeds": ("sacpo_study", "results", policies),
    "Sweep, five seeds": ("sacpo_sweep", "results", swept),
    "Real pairs": ("sacpo_real", "results", pairs),
    "DPO updates": ("sacpo_dpo", "rows", updates),
    "Greedy generation": ("lm_generate", "rows", tokens),
}


def tables() -> dict[str, str]:
    """Every table for which there are results, by its title."""
    return committed(FILES)


if __name__ == "__main__":
    app.run(lambda argv: print_tables(tables()))
