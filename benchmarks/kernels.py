# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks' results hold, and one page and one picture of them."""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import timing

PICTURE = "benchmarks.png"
HEAD = (
    "Written by `python -m benchmarks.run`. Compilation is not in a rate. temporary_mb: what a "
    "program allocates at its peak beside arguments and results, in 1e6 bytes by XLA's account."
)

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
      size: the column of what it is scaled by.
      by: the column that tells who is measured.
      ours: how our entries in that column begin.
      alone: flags that leave out the peers.
      free: further columns in which the two sides may differ.
    """

    unit: str
    size: str
    by: str
    ours: tuple[str, ...] = ("jaxsafe",)
    alone: tuple[str, ...] = ("--notorch",)
    free: tuple[str, ...] = ()


KERNELS = {
    "m2td3_updates": Kernel("updates/s", "seeds", "what"),
    "mjx_steps": Kernel("steps/s", "worlds", "engine", ("MJX",), ("--nomujoco_c",)),
    "grid_evaluation": Kernel(
        *("steps/s", "batch", "engine", ("mjx", "analytic"), ("--engines=mjx,analytic",)),
        free=("batch",),
    ),
    "pls_search": Kernel("steps/s", "seeds", "what", alone=("--engines=jaxsafe,throughput",)),
    "cdt": Kernel("per s", "batch", "by"),
    "image_to_semantics": Kernel("per s", "batch", "by"),
    "lm_generate": Kernel("tokens/s", "batch", "by"),
    "sacpo_dpo": Kernel("updates/s", "pairs", "by", alone=("--notrl",)),
    "advantage_nas_step": Kernel("steps/s", "batch", "what"),
    "tsdi": Kernel("tokens/s", "batch", "what", ("estimate", "corrected"), ()),
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


def scaling(
    rows: Sequence[Mapping[str, Any]], kernel: Kernel
) -> dict[str, list[tuple[float, float]]]:
    """Rates by size, `[(size, rate), ...]`, of each line that has more than one size of its own.

    A line is who is measured on which setting, but for the size; a row of an earlier kind, without
    that column, is on none.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if kernel.size in row:
            others = {k: v for k, v in row.items() if k not in (*MEASURED, kernel.size, kernel.by)}
            name = ", ".join([str(row[kernel.by]), *(f"{k} {v}" for k, v in others.items())])
            lines.setdefault(name, []).append((row[kernel.size], row["rate"]))
    return {name: sorted(points) for name, points in lines.items() if len(points) > 1}


def read(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The results that are there, by name."""
    paths = {name: timing.RESULTS / f"{name}.json" for name in names}
    return {name: json.loads(p.read_text()) for name, p in paths.items() if p.exists()}


# A file of results, the key of its rows, and what makes a table's rows of them.
Source = tuple[str, str, Callable[[Sequence[dict]], list[dict]]]


def committed(sources: Mapping[str, Source]) -> dict[str, str]:
    """Markdown tables by their titles, of the results that are there."""
    from jaxsafe.core import tables

    found = {}
    for title, (name, key, make) in sources.items():
        path = timing.RESULTS / f"{name}.json"
        if path.exists():
            found[title] = tables.markdown_table(make(json.loads(path.read_text())[key]))
    return found


def page(found: Mapping[str, Mapping[str, Any]], missing: Sequence[str]) -> str:
    """All results as Markdown."""
    from jaxsafe.core import tables

    parts = ["# Benchmarks", f"{HEAD}\n\n![]({PICTURE})"]
    for name, result in found.items():
        made = f"{result['cpu']}, {result['date'][:10]}, `python -m benchmarks.{name}`"
        rows = with_ratios(result["rows"], KERNELS[name])
        rows = [{k: "" if v is None else v for k, v in row.items()} for row in rows]
        parts += [f"## {name}", f"{result['note']}. {made}.", tables.markdown_table(rows)]
    if missing:
        parts.append(f"Not run: {', '.join(missing)}.")
    return "\n\n".join(parts) + "\n"


def picture(path: pathlib.Path, found: Mapping[str, Mapping[str, Any]]) -> pathlib.Path:
    """Draws a row of panels for every benchmark: rates, temporary memory, and rates by size."""
    from matplotlib.figure import Figure

    from jaxsafe.core import plots

    heights = [len(result["rows"]) + 1 for result in found.values()]
    size = (14, sum(max(0.15 * n + 0.55, 1.8) for n in heights))
    figure = Figure(figsize=size, dpi=80, layout="constrained")
    grid = {"width_ratios": (5, 2, 4), "height_ratios": [max(n, 9) for n in heights]}
    panels = figure.subplots(len(found), 3, squeeze=False, gridspec_kw=grid)
    for (left, middle, right), (name, result) in zip(panels, found.items(), strict=True):
        kernel, rows = KERNELS[name], result["rows"]
        _points(left, rows, kernel, "rate")
        left.set_yticks(range(len(rows)), [_label(row, kernel) for row in rows], fontsize=6)
        left.set_title(f"{name}: {kernel.unit}", loc="left", fontsize=10, **plots.BOLD)
        _points(middle, rows, kernel, "temporary_mb")
        middle.set_yticks(range(len(rows)), [])
        middle.set_title("temporary memory, MB", loc="left", fontsize=8)
        _lines(right, rows, kernel)
        right.set_title(f"{kernel.unit} by {kernel.size}", loc="left", fontsize=8)
    figure.supxlabel("blue: jaxsafe; red: others", **plots.LABEL)
    return plots.save(figure, path)


def _label(row: Mapping[str, Any], kernel: Kernel) -> str:
    what = ", ".join(f"{k} {v}" for k, v in setting(row, kernel).items())
    return f"{row[kernel.by]} ({what})"


def _empty(axes: Any) -> None:
    """Says that rows have no such number, as those of before it was measured."""
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", fontsize=7)
    axes.set(xticks=[], yticks=[])


def _points(axes: Any, rows: Sequence[Mapping[str, Any]], kernel: Kernel, column: str) -> None:
    """One point for each row that has the column."""
    from jaxsafe.core import plots

    # A program that XLA gives no temporary memory has no place on a logarithmic axis.
    known = [(row[column], i) for i, row in enumerate(rows) if row.get(column)]
    axes.spines[["top", "right"]].set_visible(False)
    if not known:
        _empty(axes)
        return
    colors = [plots.PALETTE[0 if is_ours(rows[i], kernel) else 1] for _, i in known]
    # Points, for a bar on a logarithmic axis has no honest length.
    axes.scatter(*zip(*known, strict=True), c=colors, s=14, zorder=2)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.tick_params(axis="x", which="both", labelsize=6)
    axes.grid(axis="x", color="#e6e6e6", zorder=0)


def _lines(axes: Any, rows: Sequence[Mapping[str, Any]], kernel: Kernel) -> None:
    """Rates against sizes, a line for each thing that was measured at several."""
    from jaxsafe.core import plots

    found = scaling(rows, kernel)
    axes.spines[["top", "right"]].set_visible(False)
    if not found:
        _empty(axes)
        return
    for i, (name, points) in enumerate(found.items()):
        ours = name.startswith(kernel.ours)
        style = ("-", "--", ":", "-.")[i % 4]
        colour = plots.PALETTE[0 if ours else 1]
        axes.plot(*zip(*points, strict=True), style, c=colour, marker="o", ms=3, label=name)
    sizes = sorted({size for points in found.values() for size, _ in points})
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(sizes, labels=map(str, sizes))
    axes.set_xticks([], minor=True)
    axes.tick_params(which="both", labelsize=6)
    axes.grid(color="#e6e6e6", zorder=0)
    axes.legend(fontsize=5, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
