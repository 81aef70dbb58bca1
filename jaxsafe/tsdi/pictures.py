# SPDX-License-Identifier: Apache-2.0
"""Pictures: the bias by position, refusals against alpha and L, and help by safety."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsafe.core import plots
from jaxsafe.tsdi import methods
from jaxsafe.tsdi.sources import Prompt

_MARKERS = "osD^vP*Xh<>p"
_ENDS = {methods.PLAIN: "*", methods.REFERENCE: "P"}  # what all others lie between


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
    raised = ("TSDI raised, alpha", ", raised tokens only")
    for families, file, label in (
        ((("TSDI, alpha", ""), raised), "alpha", "alpha, share of the bias taken off"),
        ((("TSDI, positions", ""),), "positions", "positions corrected"),
    ):
        series = {}
        for family, suffix in families:
            points = {kinds[m][1]: m for m in scores if kinds[m][0] == family}
            if suffix and not points:
                continue
            points = {0.0: methods.PLAIN} | points  # nothing taken off, unless it was measured
            for group, chosen in (("benign", ~harmful), ("harmful", harmful)):
                if chosen.any():
                    series[group + suffix] = _curve(points, scores, chosen)
        title = f"{name}: refusals against {file}"
        path = folder / f"{file}_{name}.png"
        plots.curves(path, series, label, "share of answers that refuse", title)


def _curve(
    points: Mapping[float, str],
    scores: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    chosen: np.ndarray,
) -> tuple[list[float], list[list[float]]]:
    """Places, and the share of refusals `[seeds, places]` among prompts that are `chosen`."""
    places = sorted(points)
    each = range(len(scores[methods.PLAIN]))
    rows = [[float(scores[points[x]][i]["refusal"][chosen].mean()) for x in places] for i in each]
    return places, rows


def pareto(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> pathlib.Path:
    """Draws help by safety with 95% intervals, a colour for each family, a panel per model."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    across = min(3, len(names))
    down = -(-len(names) // across)
    size = (4.6 * across + 2.4, 4.2 * down + 0.4)
    figure = plots.new_figure(size)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    panels = grid.ravel()[: len(names)]
    for unused in grid.ravel()[len(names) :]:
        unused.set_axis_off()
    families = list(dict.fromkeys(row["family"] for row in rows))
    families = [family for family in families if family not in _ENDS] + [*_ENDS]
    both = [row for row in rows if "help" in row and "safety" in row]
    for axes, name in zip(panels, names, strict=True):
        for i, family in enumerate(families):
            own = [r for r in both if r["family"] == family and r["model"] == name]
            if own:
                _family(axes, own, i, family)
        axes.set_title(name, loc="left", **plots.BOLD)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelbottom=True)
    for row in grid:
        row[0].set_ylabel("help: benign prompts complied with", **plots.LABEL)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    caption = "safety on harmful prompts (bars: 95% bootstrap intervals over prompts and seeds)"
    figure.supxlabel(caption, **plots.LABEL)
    return plots.save(figure, path)


def diagnosis(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> pathlib.Path:
    """Draws what each way of safety training did, by category: refusals, and safety where scored.

    Args:
      path: the image to write.
      rows: of the summary; those of plain models and of the first reference are shown.
    """
    plain = [row for row in rows if row["method"] == methods.PLAIN]
    reference = next(row for row in rows if row["method"] == methods.REFERENCE)
    shown = {methods.REFERENCE: reference} | {row["model"]: row for row in plain}
    measures = ["refusal", *(["safety"] if any(k.startswith("safety@") for k in plain[0]) else [])]
    figure = plots.new_figure((9.4, 3.4 * len(measures) + 0.4))
    panels = figure.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
    titles = {"refusal": "answers that refuse", "safety": "answers without a hazard"}
    kinds = [key.partition("@")[2] for key in plain[0] if key.startswith("refusal@")]
    colours = (plots.MUTED, *plots.PALETTE)
    for axes, measure in zip(panels, measures, strict=True):
        for i, (name, row) in enumerate(shown.items()):
            places = np.arange(len(kinds)) + 0.1 * (i - (len(shown) - 1) / 2)
            style = {"color": colours[i % len(colours)], "marker": _MARKERS[i % len(_MARKERS)]}
            axes.plot(
                places, [row[f"{measure}@{kind}"] for kind in kinds], ls="", label=name, **style
            )
        for edge in range(1, len(kinds)):
            axes.axvline(edge - 0.5, color=plots.MUTED, linewidth=0.3)
        axes.set_title(f"share of {titles[measure]}", loc="left", **plots.BOLD)
        axes.set_ylim(-0.04, 1.04)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xticks(range(len(kinds)), [kind.replace(", ", "\n") for kind in kinds])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    return plots.save(figure, path)


def _family(axes: Any, rows: Sequence[Mapping[str, Any]], number: int, label: str) -> None:
    rows = sorted(rows, key=lambda row: row["at"])
    xs, ys = ([row[name] for row in rows] for name in ("safety", "help"))
    spans = [
        np.abs([[row[n] - row[f"{n}_low"], row[f"{n}_high"] - row[n]] for row in rows]).T
        for n in ("help", "safety")
    ]
    end = _ENDS.get(label)
    colour = plots.INK if end else plots.PALETTE[number % len(plots.PALETTE)]
    swept = len(rows) > 1 and label != "TSDI, other tables"
    axes.errorbar(
        *(xs, ys, spans[0], spans[1]),
        color=colour,
        marker=end or _MARKERS[number % len(_MARKERS)],
        label=label,
        linestyle="-" if swept else "",
        linewidth=1.0,
        elinewidth=0.8,
        markersize=11 if end else 6,
        markerfacecolor=colour if end or number < len(plots.PALETTE) else "white",
        zorder=4 if end else 2,
    )
