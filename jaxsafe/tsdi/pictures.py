# SPDX-License-Identifier: Apache-2.0
"""Pictures: the bias by position, refusals against alpha and L, and help by safety."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxsafe.core import plots
from jaxsafe.tsdi import methods
from jaxsafe.tsdi.sources import Prompt

_MARKERS = "osD^vP*Xh<>p"


def positions(
    path: pathlib.Path, name: str, seeds: Sequence[Sequence[Mapping[str, float]]]
) -> pathlib.Path:
    """Draws what `analysis.by_position` tells, over positions, one thin line per seed."""
    labels = {
        "max_abs": "largest |b|, nats",
        "divergence": "KL(safe, ref), nats",
        "explained": "share of d's variance free of context",
        "split_half": "correlation of halves",
    }
    x = [row["position"] for row in seeds[0]]
    series = {
        label: (x, [[row[key] for row in rows] for rows in seeds]) for key, label in labels.items()
    }
    return plots.curves(path, series, "position of the answer", "", f"{name}: bias by position")


def sweeps(
    folder: pathlib.Path,
    name: str,
    scores: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    kinds: Mapping[str, tuple[str, float]],
    prompts: Sequence[Prompt],
) -> None:
    """Draws refusals of benign and of harmful prompts against alpha, and against positions."""
    harmful = np.array([p.harmful for p in prompts])
    for family, file, label in (
        ("TSDI, alpha", "alpha", "alpha, share of the bias taken off"),
        ("TSDI, positions", "positions", "positions corrected"),
    ):
        points = {kinds[m][1]: m for m in scores if kinds[m][0] == family}
        points = {0.0: methods.PLAIN} | points  # nothing taken off, unless it was measured
        places = sorted(points)
        series = {}
        for group, chosen in (("benign", ~harmful), ("harmful", harmful)):
            if chosen.any():
                seeds = len(scores[methods.PLAIN])
                series[group] = (
                    places,
                    [
                        [float(scores[points[x]][i]["refusal"][chosen].mean()) for x in places]
                        for i in range(seeds)
                    ],
                )
        title = f"{name}: refusals against {file}"
        path = folder / f"{file}_{name}.png"
        plots.curves(path, series, label, "share of answers that refuse", title)


def pareto(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> pathlib.Path:
    """Draws help by safety with 95% intervals, a colour for each family, a panel per model."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(5.6 * len(names) + 2.4, 4.8), dpi=plots.DPI, layout="constrained")
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    families = list(dict.fromkeys(row["family"] for row in rows))
    both = [row for row in rows if "help" in row and "safety" in row]
    for axes, name in zip(panels, names, strict=True):
        for i, family in enumerate(families):
            own = [r for r in both if r["family"] == family and r["model"] == name]
            if own:
                _family(axes, own, i, family)
        axes.set_title(name, loc="left", **plots.BOLD)
        axes.set_xlabel("safety on harmful prompts", **plots.LABEL)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("help: benign prompts complied with", **plots.LABEL)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    caption = "bars: 95% bootstrap intervals over prompts"
    figure.supxlabel(caption, fontsize=8.5, color=plots.MUTED)
    return plots.save(figure, path)


def _family(axes: Any, rows: Sequence[Mapping[str, Any]], number: int, label: str) -> None:
    rows = sorted(rows, key=lambda row: row["at"])
    xs, ys = ([row[name] for row in rows] for name in ("safety", "help"))
    spans = [
        np.abs([[row[n] - row[f"{n}_low"], row[f"{n}_high"] - row[n]] for row in rows]).T
        for n in ("safety", "help")
    ]
    colour = plots.PALETTE[number % len(plots.PALETTE)]
    swept = len(rows) > 1 and label != "TSDI, other tables"
    axes.errorbar(
        *(xs, ys, spans[1], spans[0]),
        color=colour,
        marker=_MARKERS[number % len(_MARKERS)],
        label=label,
        linestyle="-" if swept else "",
        linewidth=1.0,
        elinewidth=0.8,
        markersize=6,
        markerfacecolor=colour if number < len(plots.PALETTE) else "white",
    )
