# SPDX-License-Identifier: Apache-2.0
"""Pictures of runs: the toy's curves, queries beside the exact random search, theta's way."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsafe.advantage_nas import drawing
from jaxsafe.advantage_nas.space import Space
from jaxsafe.core import plots, stats
from jaxsafe.core.metrics import Row

Curve = tuple[np.ndarray, np.ndarray]  # x [T], y [num_seeds, T]
_CAPTION = "thick: {} over seeds · band: 95% bootstrap interval"


def curve(rows: Sequence[Row], name: str, unit: str) -> Curve:
    """What the rows of one stage say of one metric: x `[T]` in `unit`, y `[num_seeds, T]`."""
    x = sorted({r[unit] for r in rows})
    seeds = sorted({r["seed"] for r in rows})
    values = {(r["seed"], r[unit]): float(r[name]) for r in rows}
    return np.array(x), np.array([[values.get((s, t), np.nan) for t in x] for s in seeds])


def small_multiples(
    path: pathlib.Path,
    lines: Mapping[str, Curve],
    xlabel: str,
    ylabel: str,
    behind: str,
    columns: int = 5,
) -> pathlib.Path:
    """Draws a panel for each method, seeds with their mean and interval.

    Args:
      path: the image to write.
      lines: method -> its curve.
      xlabel: of the horizontal axis.
      ylabel: of the vertical axis, which ends a little above the greatest of the IQMs.
      behind: the method whose IQM is drawn in grey in every panel, if it is there.
      columns: of panels.

    Returns:
      the path written.
    """
    columns = min(columns, len(lines))
    rows = -(-len(lines) // columns)
    size = (0.8 + 2.1 * columns, 0.9 + 2.0 * rows)
    figure = plots.new_figure(size)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).reshape(-1)
    highest, most = 0.0, 1
    for panel, (name, (x, y)) in zip(panels, lines.items(), strict=False):
        if behind in lines and behind != name:
            panel.plot(lines[behind][0], stats.iqm(lines[behind][1], axis=0), color="#999999")
        centre = plots.draw_seeds(panel, 0, x, y)
        highest = max(highest, float(np.nanmax(centre)))
        panel.set_title(name, loc="left", fontsize=10, **plots.BOLD)
        panel.spines[["top", "right"]].set_visible(False)
        most = max(most, len(y))
    for panel in panels[len(lines) :]:
        panel.remove()
    panels[0].set_ylim(0, 1.15 * highest or None)
    figure.supylabel(ylabel, **plots.LABEL)
    caption = f"{_CAPTION.format('IQM' if most >= 4 else 'mean')} · thin: single seeds"
    grey = f" · grey: {behind}" if behind in lines and len(lines) > 1 else ""
    figure.supxlabel(f"{xlabel}\n{caption if most > 1 else ''}{grey}", fontsize=9, color=plots.INK)
    return plots.save(figure, path)


def queries(
    path: pathlib.Path, lines: Mapping[str, Curve], exact: Mapping[str, np.ndarray], score: str
) -> pathlib.Path:
    """Draws searches on a table above, and below how far they are from the exact random search.

    Args:
      path: the image to write.
      lines: method -> its curve over queries, means over the searches of a seed.
      exact: method -> `[T]` of random search at the same numbers of queries.
      score: what is reported of the architectures kept.

    Returns:
      the path written.
    """
    figure = plots.new_figure((7.2, 6.4))
    upper, lower = figure.subplots(2, 1, sharex=True)
    for i, (name, (at, y)) in enumerate(lines.items()):
        plots.draw_seeds(upper, i, at, y)
        plots.draw_seeds(lower, i, at, y - exact[name])
        upper.plot([], [], color=plots.look(i)[0], linewidth=2.2, label=name)
    black = {"color": plots.INK, "linestyle": "--", "linewidth": 1.4, "zorder": 4}
    finest = max(lines, key=lambda name: len(lines[name][0]))
    upper.plot(lines[finest][0], exact[finest], label="random, exact", **black)
    lower.axhline(0.0, **black)
    plots.decorate(upper, "", f"{score}, percent", "")
    plots.decorate(lower, "queries", "less the exact random search", "")
    upper.legend(loc="lower right", frameon=False, fontsize=9.5)
    seeds = len(next(iter(lines.values()))[1])
    if seeds > 1:
        caption = _CAPTION.format("IQM" if seeds >= 4 else "mean") + " · thin: single seeds"
        figure.supxlabel(caption, fontsize=8.5, color=plots.MUTED)
    return plots.save(figure, path)


def way(path: pathlib.Path, rows: Sequence[Row], space: Space) -> pathlib.Path:
    """Draws how each edge's probabilities moved: thin lines are seeds, thick ones their mean."""
    columns = 3
    lines = -(-space.num_edges // columns)
    figure = plots.new_figure((7.2, 0.6 + 1.9 * lines))
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).reshape(-1)
    for e, (a, b) in enumerate(space.edges):
        for k, name in enumerate(space.names):
            x, y = curve(rows, f"p/{a}-{b}/{name}", "search_steps")
            color = drawing.color(space, k)
            panels[e].plot(x, y.T, color=color, linewidth=0.6, alpha=0.35)
            panels[e].plot(x, y.mean(axis=0), color=color, linewidth=1.8, label=name)
        panels[e].set_title(f"{a} > {b}", loc="left", fontsize=10, **plots.BOLD)
        panels[e].set_ylim(0, 1)
        panels[e].spines[["top", "right"]].set_visible(False)
    for axes in panels[space.num_edges :]:
        axes.remove()
    figure.supxlabel("search step", **plots.LABEL)
    figure.supylabel("probability", **plots.LABEL)
    handles, labels = panels[0].get_legend_handles_labels()
    columns = min(len(labels), 3 if max(map(len, labels)) > 10 else 5)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    return plots.save(figure, path)
