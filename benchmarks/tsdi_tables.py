# SPDX-License-Identifier: Apache-2.0
"""Prints the committed results of TSDI as Markdown, as the folder's README shows them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app

from benchmarks.kernels import KERNELS, Source, committed
from benchmarks.side_by_side import side_by_side
from benchmarks.timing import print_tables
from jaxsafe.tsdi import compare, diagnosis


def _span(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:+.2f} ({row[f'{name}_low']:+.2f}, {row[f'{name}_high']:+.2f})"


def methods(model: str) -> Callable[[Sequence[dict]], list[dict]]:
    """Help and safety of every method on one model, with differences from the plain one."""

    def make(rows: Sequence[dict]) -> list[dict]:
        return [
            {
                "answers of": f"**{row['method']}**" if row["stated"] else row["method"],
                "help": f"{row['help']:.2f}",
                "gain (95%)": _span(row, "help_gain"),
                "safety": f"{row['safety']:.2f}",
                "its gain (95%)": _span(row, "safety_gain"),
                "nats a token": f"{row['benign_nll']:.2f}",
            }
            for row in rows
            if row["model"] == model
        ]

    return make


def training(rows: Sequence[dict]) -> list[dict]:
    """What each way of safety training does, the reference first."""
    reference = next(row for row in rows if row["method"] == "reference")
    first = {
        "model": "the reference",
        "help": f"{reference['help']:.2f}",
        "harmless refused": f"{reference['benign_refusal']:.3f}",
        "growth (95%)": "",
        "safety": f"{reference['safety']:.2f}",
        "its growth (95%)": "",
    }
    return [first] + [
        {
            "model": f"`{row['model']}`",
            "help": f"{row['help']:.2f}",
            "harmless refused": f"{row['benign_refusal']:.3f}",
            "growth (95%)": _span(row, "refusal_growth"),
            "safety": f"{row['safety']:.2f}",
            "its growth (95%)": _span(row, "safety_growth"),
        }
        for row in rows
        if row["method"] == "safe"
    ]


def by_category(rows: Sequence[dict]) -> list[dict]:
    """Refusals of harmless categories and safety of hazardous ones, by model."""
    found = []
    for cells in diagnosis.tables(list(rows))[1]:
        harmless = cells["category"].startswith("harmless")
        suffix = ": refused" if harmless else ": safe"
        line: dict[str, Any] = {"category": cells["category"]}
        line["share of answers that"] = "refuse" if harmless else "list no hazard"
        for key, value in cells.items():
            if key.endswith(suffix):
                line[key.removesuffix(suffix)] = f"{value:.2f}"
        found.append(line)
    return found


def planted(rows: Sequence[dict]) -> list[dict]:
    """Planted biases: errors, and distances from the reference."""
    kept = ("draws", "space", "noise", "rmse", "stated", "before", "after")
    return [
        {k: row.get(k, "") for k in kept}
        for row in rows
        if row["case"] != "hot prompts" and (row["space"] == "logprob" or row["draws"] == 64)
    ]


def hot(rows: Sequence[dict]) -> list[dict]:
    """The planted bias that half of the prompts have: distances from the reference."""
    (row,) = (row for row in rows if row["case"] == "hot prompts")
    names = {"before": "plain", "after": "TSDI", "gated": "TSDI gated"}
    return [
        {
            "decoding": label,
            "prompts with the bias": f"{row[f'{name}_hot']:.3f}",
            "prompts without it": f"{row[f'{name}_cold']:.3f}",
        }
        for name, label in names.items()
    ]


def estimation(rows: Sequence[dict]) -> list[dict]:
    """Tokens a second of an estimate, beside bare forward passes."""
    ratios = [("estimate", name) for name in ("all logits", "same logits")]
    return _speed(rows, "estimation", ratios)


def answers(rows: Sequence[dict]) -> list[dict]:
    """Tokens a second of answers, corrected and not."""
    return _speed(rows, "answers", [("corrected", "plain")])


def _speed(rows: Sequence[dict], of: str, ratios: Sequence[tuple[str, str]]) -> list[dict]:
    kept = [row for row in rows if row["of"] == of]
    return side_by_side(kept, KERNELS["tsdi"], ("cores", "batch"), ratios=ratios)


# Methods of the study that its table leaves out, as others beside them say the same.
LEFT_OUT = (
    *("TSDI 0 positions", "TSDI 1 positions", "TSDI 2 positions", "TSDI 8 positions"),
    *("TSDI K 128", "TSDI raised 1 tokens", "TSDI raised 2 tokens", "TSDI raised 4 tokens"),
)


def study(rows: Sequence[dict]) -> list[dict]:
    """Help and safety of the study's model `over` by most methods."""
    return methods("over")([row for row in rows if row["method"] not in LEFT_OUT])


def demo(rows: Sequence[dict]) -> list[dict]:
    """Help and safety of the demo's model by what is stated, and what it is read beside."""
    kept = ("safe", "reference", "TSDI gated", "penalty 4")
    return methods("over")([row for row in rows if row["stated"] or row["method"] in kept])


# Title -> file, key of its rows, and what makes the table's rows.
FILES: dict[str, Source] = {
    "Demo": ("tsdi_demo", "results", demo),
    "Study: ways of safety training": ("tsdi_study", "results", training),
    "Study: categories": ("tsdi_study", "results", by_category),
    "Study: is compliance restored": ("tsdi_study", "results", compare.verdicts),
    "Study: every method on `over`": ("tsdi_study", "results", study),
    "Planted": ("tsdi_planted", "results", planted),
    "Planted for half of the prompts": ("tsdi_planted", "results", hot),
    "Speed of estimates": ("tsdi", "rows", estimation),
    "Speed of answers": ("tsdi", "rows", answers),
}


def tables() -> dict[str, str]:
    """Every table for which there are results, by its title."""
    return committed(FILES)


if __name__ == "__main__":
    app.run(lambda argv: print_tables(tables()))
