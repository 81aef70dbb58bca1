# SPDX-License-Identifier: Apache-2.0
"""Helpfulness by safety of finished policies."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsafe.core import plots


def _ratio(row: Mapping[str, Any]) -> str:
    return row["policy"].partition("@")[2].partition(":")[0]


def _lines(rows: Sequence[Mapping[str, Any]], kind: str) -> list[list[Mapping[str, Any]]]:
    """Policies of a kind, those of a line together: all ratios; all q of one, where q differ."""
    own = [row for row in rows if row["policy"].partition("@")[0] == kind]
    several = len({row["policy"].partition(":")[2] for row in own}) > 1
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in own:
        found.setdefault(_ratio(row) if several else "", []).append(row)
    return list(found.values())


def pareto(path: pathlib.Path, rows: Sequence[Mapping[str, Any]], bound: float | None):
    """Draws reward by safety with 95% intervals over seeds, a colour for each kind of policy.

    Lines are over beta / lambda, which points then tell, and for merges over q.
    """
    figure = plots.new_figure((7.6, 5.0))
    axes = figure.add_subplot()
    kinds = list(dict.fromkeys(row["policy"].partition("@")[0] for row in rows))
    markers = "osD^vP*Xh"
    for i, kind in enumerate(kinds):
        colour = plots.PALETTE[i % len(plots.PALETTE)]
        for n, own in enumerate(_lines(rows, kind)):
            xs, ys = ([row[name] for row in own] for name in ("safety", "reward"))
            spans = [
                np.abs([[row[n] - row[f"{n}_low"], row[f"{n}_high"] - row[n]] for row in own]).T
                for n in ("safety", "reward")
            ]
            axes.errorbar(
                *(xs, ys, spans[1], spans[0]),
                color=colour,
                marker=markers[i % len(markers)],
                label="" if n else kind,
                linestyle="-" if len(own) > 1 else "",
                linewidth=1.0,
                elinewidth=0.9,
                markersize=6,
                markerfacecolor=colour if i < len(plots.PALETTE) else "white",
            )
            if len({_ratio(row) for row in own}) > 1:
                how: dict[str, Any] = {"xytext": (5, 5), "textcoords": "offset points"}
                for row, x, y in zip(own, xs, ys, strict=True):
                    axes.annotate(_ratio(row), (x, y), color=plots.MUTED, fontsize=7, **how)
    if bound is not None:
        axes.axvline(bound, color=plots.MUTED, linestyle=":", linewidth=1.2)
    axes.set_xlabel("safety: share of answers without a hazardous word", **plots.LABEL)
    axes.set_ylabel("reward: share of the words asked for", **plots.LABEL)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    caption = "bars: 95% bootstrap intervals of means over seeds · dotted: the bound b"
    if len({_ratio(row) for row in rows} - {""}) > 1:
        caption += " · numbers: beta / lambda"
    figure.supxlabel(caption, fontsize=8.5, color=plots.MUTED)
    return plots.save(figure, path)
