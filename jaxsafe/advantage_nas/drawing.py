# SPDX-License-Identifier: Apache-2.0
"""A drawing of a cell: nodes in a row, an arc for every edge, coloured by its operation."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsafe.advantage_nas.space import Space
from jaxsafe.core import plots
from jaxsafe.core.checks import UserError

_RADIUS = 0.17  # of a node, where neighbours are 1 apart
_LABEL: dict[str, Any] = {
    "fontsize": 8,
    "zorder": 5,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8},
}


def draw_cell(
    path: str | os.PathLike[str],
    space: Space,
    choice: Sequence[int] | np.ndarray,
    title: str = "",
    probabilities: np.ndarray | None = None,
) -> Path:
    """Draws the architecture `choice` `[E]` and returns the path written.

    Edges to the next node are straight, longer ones arcs above; zero operations are dotted grey.

    Args:
      path: the image to write; its ending (.png, .svg, .pdf) is the format.
      space: of the cell.
      choice: operation of each edge.
      title: bold line above.
      probabilities: `[E]` of the operations chosen, written beside their names.

    Raises:
      UserError: `choice` or `probabilities` has another length than the space has edges, or an
        index is no operation's.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle

    choice = np.asarray(choice)
    _check(space, choice, probabilities)
    longest = max(end - start for start, end in space.edges)
    top = _height(longest)
    figure = plots.new_figure((2.1 * space.num_nodes + 0.6, 1.3 + 1.6 * top))
    axes = figure.add_subplot()
    for e, (edge, k) in enumerate(zip(space.edges, choice, strict=True)):
        share = None if probabilities is None else float(probabilities[e])
        _draw_edge(axes, edge, space, int(k), share)
    for node in range(space.num_nodes):
        axes.add_patch(Circle((node, 0), _RADIUS, facecolor="white", edgecolor=plots.INK, zorder=3))
        axes.text(node, 0, _label(space, node), ha="center", va="center", zorder=4, **plots.LABEL)
    axes.set_xlim(-0.35, space.num_nodes - 0.65)
    axes.set_ylim(-0.45, top + 0.25)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(title, fontsize=13, loc="left", pad=8, **plots.BOLD)
    figure.legend(
        handles=[Line2D([], [], **_style(space, int(k))) for k in np.unique(choice)],
        labels=[space.names[int(k)] for k in np.unique(choice)],
        loc="outside lower center",
        ncols=len(np.unique(choice)),
        frameon=False,
    )
    return plots.save(figure, path)


def _check(space: Space, choice: np.ndarray, probabilities: np.ndarray | None) -> None:
    for name, given in (("choice", choice), ("probabilities", probabilities)):
        if given is not None and np.shape(given) != (space.num_edges,):
            raise UserError(f"{name} {np.shape(given)} does not fit: give ({space.num_edges},).")
    bad = choice[(choice < 0) | (choice >= space.num_operations)]
    if bad.size:
        raise UserError(f"operation {bad[0]} is none of {space.num_operations}: count from 0.")


def _height(length: int) -> float:
    """Of the top of an arc over so many nodes."""
    return 0.0 if length == 1 else 0.42 * length


def _label(space: Space, node: int) -> str:
    last = space.output == "last" and node == space.num_nodes - 1
    return "in" if node == 0 else "out" if last else str(node)


def color(space: Space, k: int) -> str:
    """Of an operation, the same in all pictures of a space."""
    zero = space.operations[k].is_zero
    return "#aaaaaa" if zero else plots.PALETTE[k % len(plots.PALETTE)]


def _style(space: Space, k: int) -> dict[str, Any]:
    if space.operations[k].is_zero:
        return {"color": color(space, k), "linestyle": ":", "linewidth": 1.4}
    return {"color": color(space, k), "linestyle": "-", "linewidth": 2.2}


def _draw_edge(axes: Any, edge: tuple[int, int], space: Space, k: int, share: float | None) -> None:
    from matplotlib.patches import FancyArrowPatch

    start, end = edge
    height = _height(end - start)
    style = _style(space, k)
    # A quadratic curve's top is half as high as its control point; rad is that over the span.
    bend = f"arc3,rad={-2 * height / (end - start)}"
    axes.add_patch(
        FancyArrowPatch(
            (start, 0),
            (end, 0),
            arrowstyle="-|>",
            connectionstyle=bend,
            mutation_scale=13,
            shrinkA=_RADIUS * 88,
            shrinkB=_RADIUS * 88,
            **style,
        )
    )
    told = [space.names[k], *([] if share is None else [f"{share:.2f}"])]
    middle = (start + end) / 2
    # Between neighbours there is room for a name alone, so the number goes below the line.
    parts = [(" ".join(told), height + 0.04, "bottom")]
    if end - start == 1:
        parts = [(told[0], 0.05, "bottom"), *((number, -0.05, "top") for number in told[1:])]
    for text, y, side in parts:
        axes.text(middle, y, text, ha="center", va=side, color=style["color"], **_LABEL)
