# SPDX-License-Identifier: Apache-2.0
"""The paper's diagnosis: what ways of safety training do to safety and to harmless prompts.

Plain safe models are held against the first of them, on the same prompts and seeds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsafe.tsdi import analysis, compare, methods
from jaxsafe.tsdi.compare import Told
from jaxsafe.tsdi.sources import Source


def columns(told: Mapping[str, Told], source: Source) -> dict[str, dict[str, float]]:
    """What the summary's row of each plain safe model gets beside its scores.

    `refusal_growth, _low, _high, _p`: share of harmless prompts' answers that refuse, less that of
    the first model, with a bootstrap interval over prompts and seeds; `safety_growth` the same of
    harmful prompts' safety, or of their refusals where nothing scores safety.
    """
    harmful = np.array([p.harmful for p in source.prompts])
    first = next(iter(told.values()))
    safety = compare.primary(first)["safety"][0]
    found: dict[str, dict[str, float]] = {}
    for name, own in told.items():
        row: dict[str, float] = {}
        for label, measure, chosen in (
            ("refusal_growth", "refusal", ~harmful),
            ("safety_growth", safety, harmful),
        ):
            if chosen.any():
                before, after = (_by_seed(x, measure)[:, chosen] for x in (first, own))
                effect = analysis.paired_bootstrap(before, after)
                row |= {label: effect.mean, f"{label}_low": effect.low}
                row |= {f"{label}_high": effect.high, f"{label}_p": effect.p}
        found[name] = row
    return found


def _by_seed(told: Told, measure: str) -> np.ndarray:
    """`[seeds, N]` of the plain model, mean over samples."""
    return np.stack([x[measure].mean(1) for x in told.scores[methods.PLAIN]])


def tables(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of a summary's rows: a line for each plain model, and refusals or safety by category.

    Harmless categories show how many answers refuse, and are those none of whose prompts is unsafe.
    """
    plain = [row for row in rows if row["method"] == methods.PLAIN]
    held = [row for row in rows if row["method"] == methods.REFERENCE][:1]

    def growth(row: Mapping[str, Any], name: str) -> str:
        if f"{name}_growth" not in row:
            return ""
        low, high = row[f"{name}_growth_low"], row[f"{name}_growth_high"]
        return f"{row[f'{name}_growth']:+.3f} ({low:+.3f} to {high:+.3f})"

    lines = [
        {
            "model": row["model"],
            "benign refused": row.get("benign_refusal", np.nan),
            "growth (95%)": growth(row, "refusal"),
            "safety": row.get("safety", np.nan),
            "its growth (95%)": growth(row, "safety"),
            "help": row.get("help", np.nan),
        }
        for row in plain
    ]
    kinds = [key.partition("@")[2] for key in plain[0] if key.startswith("refusal@")]
    by_kind = []
    for kind in kinds:
        cells: dict[str, Any] = {"category": kind}
        for row in [*held, *plain]:
            name = row["model"] if row["method"] == methods.PLAIN else methods.REFERENCE
            cells[f"{name}: refused"] = row[f"refusal@{kind}"]
            if f"safety@{kind}" in row:
                cells[f"{name}: safe"] = row[f"safety@{kind}"]
        by_kind.append(cells)
    return lines, by_kind
