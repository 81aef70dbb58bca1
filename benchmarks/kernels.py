# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks' results hold, and one page and one picture of them."""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import timing

# What rows measure; every other column is the setting, or tells who is measured.
MEASURED = frozenset(
    (
        *("rate", "low", "high", "ms", "low_ms", "high_ms", "cpu_ms", "per_cpu_s", "seconds"),
        *("s_per_update", "compile_s", "first_call_s", "temporary_mb", "loss_at_5"),
        *("repeats", "calls", "n"),
    )
)


class Kernel(NamedTuple):
    """One benchmark.

    Attributes:
      unit: of its rates.
      by: the column that tells who is measured.
      ours: how our entries in that column begin.
      alone: flags that leave out the peers.
      free: further columns in which the two sides may differ.
    """

    unit: str
    by: str
    ours: tuple[str, ...] = ("jaxsafe",)
    alone: tuple[str, ...] = ("--notorch",)
    free: tuple[str, ...] = ()


KERNELS = {
    "m2td3_updates": Kernel("updates/s", "what"),
    "mjx_steps": Kernel("steps/s", "engine", ("MJX",), ()),
    "grid_evaluation": Kernel(
        "steps/s", "engine", ("mjx", "analytic"), ("--engines=mjx,analytic",), ("batch",)
    ),
    "pls_search": Kernel("steps/s", "what", alone=("--engines=jaxsafe,throughput",)),
    "cdt": Kernel("per s", "by"),
    "image_to_semantics": Kernel("per s", "by"),
    "lm_generate": Kernel("tokens/s", "by"),
    "sacpo_dpo": Kernel("updates/s", "by", alone=("--notrl",)),
    "advantage_nas_step": Kernel("steps/s", "what"),
    "tsdi": Kernel("tokens/s", "what", ("estimate", "corrected"), ()),
}


def setting(row: Mapping[str, Any], kernel: Kernel) -> dict[str, Any]:
    """What a row was measured on."""
    return {k: v for k, v in row.items() if k not in (*MEASURED, *kernel.free, kernel.by)}


def is_ours(row: Mapping[str, Any], kernel: Kernel) -> bool:
    """Whether a row measures this library."""
    return str(row[kernel.by]).startswith(kernel.ours)


def with_ratios(rows: Sequence[Mapping[str, Any]], kernel: Kernel) -> list[dict[str, Any]]:
    """Rows with `x PEER`, the row's rate by that of each peer on the same setting."""
    peers: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if not is_ours(row, kernel):
            peers.setdefault(str(row[kernel.by]), []).append(row)
    told = []
    for row in rows:
        line = dict(row)
        for name, theirs in peers.items():
            same = [x for x in theirs if setting(x, kernel) == setting(row, kernel)]
            if is_ours(row, kernel) and same:
                line[f"x {name}"] = f"{row['rate'] / same[0]['rate']:.3g}"
        told.append(line)
    return told


def read(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The results that are there, by name."""
    paths = {name: timing.RESULTS / f"{name}.json" for name in names}
    return {name: json.loads(p.read_text()) for name, p in paths.items() if p.exists()}


def page(found: Mapping[str, Mapping[str, Any]], missing: Sequence[str]) -> str:
    """All results as Markdown."""
    from jaxsafe.core import tables

    parts = ["# Benchmarks", "Written by `python -m benchmarks.run`. Compilation is not in a rate."]
    for name, result in found.items():
        made = f"{result['cpu']}, {result['date'][:10]}, `python -m benchmarks.{name}`"
        rows = with_ratios(result["rows"], KERNELS[name])
        parts += [f"## {name}", f"{result['note']}. {made}.", tables.markdown_table(rows)]
    if missing:
        parts.append(f"Not run: {', '.join(missing)}.")
    return "\n\n".join(parts) + "\n"


def picture(path: pathlib.Path, found: Mapping[str, Mapping[str, Any]]) -> pathlib.Path:
    """Draws the rates of every benchmark, a panel each: ours in one colour, peers in another."""
    from matplotlib.figure import Figure

    from jaxsafe.core import plots

    heights = [len(result["rows"]) + 1 for result in found.values()]
    size = (8, sum(0.15 * n + 0.55 for n in heights))
    figure = Figure(figsize=size, dpi=90, layout="constrained")
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, result) in zip(panels, found.items(), strict=True):
        kernel, rows = KERNELS[name], result["rows"]
        colors = [plots.PALETTE[0 if is_ours(row, kernel) else 1] for row in rows]
        # Points, for a bar on a logarithmic axis has no honest length.
        axes.scatter([row["rate"] for row in rows], range(len(rows)), c=colors, s=14, zorder=2)
        texts = []
        for row in rows:
            what = ", ".join(f"{k} {v}" for k, v in setting(row, kernel).items())
            texts.append(f"{row[kernel.by]} ({what})")
        axes.set_yticks(range(len(rows)), texts, fontsize=6)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.grid(axis="x", color="#e6e6e6", zorder=0)
        axes.set_title(f"{name}: {kernel.unit}", loc="left", fontsize=10, **plots.BOLD)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("blue: jaxsafe; red: others", **plots.LABEL)
    return plots.save(figure, path)
