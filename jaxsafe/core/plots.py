# SPDX-License-Identifier: Apache-2.0
"""Learning curves and heat maps as image files, without pyplot and its global state."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import ArrayLike

from jaxsafe.core import stats
from jaxsafe.core.checks import UserError, check_choice

# Okabe and Ito, "Color Universal Design", 2008; its black and yellow are left out: one is the
# colour of text, the other too faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_STYLES = ("-", "--", ":", "-.")
_INK, _MUTED, _GRID, _MISSING = "#222222", "#666666", "#e6e6e6", "#bdbdbd"
_DPI = 160
_BOLD: dict[str, Any] = {"fontweight": "bold", "color": _INK}
_LABEL: dict[str, Any] = {"fontsize": 11.5, "color": _INK}


def curves(
    path: str | os.PathLike[str],
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    xlabel: str,
    ylabel: str,
    title: str = "",
) -> Path:
    """Draws each series as thin lines per seed, its IQM, and a 95% bootstrap band.

    Args:
      path: the image to write; its ending (.png, .svg, .pdf) is the format.
      series: name -> (x `[T]`, y `[num_seeds, T]`); NaNs in y are left out.
      xlabel: label of the horizontal axis, with its unit.
      ylabel: label of the vertical axis, with its unit.
      title: bold line above the plot.

    Returns:
      The path written.

    Raises:
      UserError: there is no series, or x and y do not fit.
    """
    if not series:
        raise UserError("series is empty: give at least one name -> (x, y).")
    figure = Figure(figsize=(7.2, 4.2), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    ends, most = [], 0
    for i, (name, (x, y)) in enumerate(series.items()):
        x, y = _check_series(name, x, y)
        color, style = PALETTE[i % len(PALETTE)], _STYLES[i // len(PALETTE) % len(_STYLES)]
        centre, low, high = stats.band(y)
        if len(y) > 1:
            axes.plot(x, y.T, color=color, linewidth=0.7, alpha=0.28)
            axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
        marker = "o" if len(x) == 1 else None
        axes.plot(x, centre, color=color, linestyle=style, linewidth=2.2, marker=marker)
        finite = np.flatnonzero(np.isfinite(centre))
        if finite.size:
            ends.append((x[finite[-1]], centre[finite[-1]], name, color))
        most = max(most, len(y))
    _decorate(axes, xlabel, ylabel, title)
    if most > 1:
        middle = "IQM" if most >= 4 else "mean"
        caption = f"thick: {middle} over seeds · band: 95% bootstrap interval · thin: single seeds"
        figure.supxlabel(caption, fontsize=8.5, color=_MUTED)
    _label_ends(figure, axes, ends)
    return _save(figure, path)


def worst_cell(values: ArrayLike, mark: str = "min") -> tuple[int, int]:
    """Returns the row and column of the least ("min") or greatest ("max") finite value.

    Args:
      values: `[n, m]`; what is not finite is passed over.
      mark: "min" or "max".

    Raises:
      UserError: values are no matrix or hold no finite value, or `mark` is something else.
    """
    check_choice("mark", mark, ("min", "max"))
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    if values.ndim != 2 or not finite.any():
        raise UserError(f"values of shape {values.shape} need two axes and a finite value.")
    sign = 1.0 if mark == "min" else -1.0
    i, j = np.unravel_index(np.argmin(np.where(finite, sign * values, np.inf)), values.shape)
    return int(i), int(j)


def heat_maps(
    path: str | os.PathLike[str],
    panels: Mapping[str, ArrayLike],
    x: ArrayLike,
    y: ArrayLike,
    xlabel: str,
    ylabel: str,
    value_label: str,
    title: str = "",
    mark: str | None = "min",
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Draws one panel per method on one colour scale, with the worst cell of each marked.

    Args:
      path: the image to write; its ending (.png, .svg, .pdf) is the format.
      panels: name -> values `[n, m]`, row i at `y[i]`; what is not finite is drawn grey.
      x: grid values `[m]`, increasing.
      y: grid values `[n]`, increasing.
      xlabel: label of x, with its unit.
      ylabel: label of y, with its unit.
      value_label: label of the colour bar, with its unit.
      title: bold line above all panels.
      mark: whether the "min" or the "max" is the worst cell; `None` marks no cell.
      notes: name -> a line under the name of that panel.

    Returns:
      The path written.

    Raises:
      UserError: there is no panel, a shape does not fit, or a grid does not increase.
    """
    x, y = _check_grid("x", x), _check_grid("y", y)
    tables = {name: _check_panel(name, v, (len(y), len(x))) for name, v in panels.items()}
    if not tables:
        raise UserError("panels is empty: give at least one name -> values.")
    columns = len(tables) if len(tables) <= 4 else min(4, -(-len(tables) // 2))
    rows = -(-len(tables) // columns)
    size = (3.1 * columns + 1.4, 3.15 * rows + (0.9 if title else 0.5))
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    norm = _shared_norm(list(tables.values()))
    for axes in grid.flat[len(tables) :]:
        axes.set_axis_off()
    for k, (axes, (name, table)) in enumerate(zip(grid.flat, tables.items(), strict=False)):
        mesh = _panel(axes, table, x, y, norm, mark)
        _head(axes, name, (notes or {}).get(name, " ") if notes else None)
        lowest, leftmost = k + columns >= len(tables), k % columns == 0
        axes.tick_params(labelbottom=lowest, bottom=lowest, labelleft=leftmost, left=leftmost)
    bar = figure.colorbar(mesh, ax=grid.ravel().tolist(), aspect=22 * rows, pad=0.02)
    bar.set_label(value_label, **_LABEL)
    bar.ax.tick_params(labelsize=9.5, colors=_INK)
    bar.outline.set_visible(False)
    figure.supxlabel(xlabel, **_LABEL)
    figure.supylabel(ylabel, **_LABEL)
    if title:
        figure.suptitle(title, fontsize=13.5, **_BOLD)
    return _save(figure, path)


def _head(axes: Any, name: str, note: str | None) -> None:
    """Writes the name of a panel over its note, smaller where it would reach the next panel."""
    style = {"fontsize": 12 * min(1.0, 26 / max(len(name), 1)), **_BOLD}
    if note is None:
        axes.set_title(name, pad=6, **style)
        return
    axes.set_title(note, fontsize=9.5, color=_MUTED, pad=5)
    above = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
    axes.annotate(name, (0.5, 1), (0, 20), **above, **style)


def _panel(
    axes: Any, values: np.ndarray, x: np.ndarray, y: np.ndarray, norm: Normalize, mark: str | None
) -> Any:
    cmap = colormaps["cividis"].with_extremes(bad=_MISSING)
    shown = np.ma.masked_invalid(values)
    mesh = axes.pcolormesh(_edges(x), _edges(y), shown, norm=norm, cmap=cmap, rasterized=True)
    axes.xaxis.set_ticks(*_ticks(x))
    axes.yaxis.set_ticks(*_ticks(y))
    axes.tick_params(labelsize=9.5, colors=_INK, length=3)
    axes.spines[:].set_visible(False)
    axes.set_facecolor(_MISSING)
    if mark is not None and np.isfinite(values).any():
        _mark_worst(axes, values, x, y, mark)
    return mesh


def _mark_worst(axes: Any, values: np.ndarray, x: np.ndarray, y: np.ndarray, mark: str) -> None:
    """Rings the worst cell, white inside black, and writes its value towards the middle."""
    i, j = worst_cell(values, mark)
    x_edges, y_edges = _edges(x), _edges(y)
    right = (x[j] - x_edges[0]) < 0.5 * (x_edges[-1] - x_edges[0])
    height = (y[i] - y_edges[0]) / (y_edges[-1] - y_edges[0])
    # Near the upper or lower edge the box moves inwards, so that the panel holds all of it.
    lift = -4 if height > 0.9 else 4 if height < 0.1 else 0
    ring = {"markerfacecolor": "none", "markeredgecolor": "white", "markeredgewidth": 2}
    outline = [patheffects.Stroke(linewidth=4.6, foreground="black"), patheffects.Normal()]
    axes.plot(x[j], y[i], marker="o", markersize=9, path_effects=outline, clip_on=False, **ring)
    box = {"boxstyle": "round,pad=0.22", "facecolor": "white", "edgecolor": "black"}
    text, offset = f"{values[i, j]:.4g}", (12 if right else -12, lift)
    place = {"textcoords": "offset points", "ha": "left" if right else "right", "va": "center"}
    axes.annotate(text, (x[j], y[i]), offset, fontsize=10, bbox=box, **place, **_BOLD)


def _edges(centres: np.ndarray) -> np.ndarray:
    """Returns cell edges `[n + 1]` around grid values `[n]`, which need not be evenly spaced."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def _ticks(values: np.ndarray, most: int = 6) -> tuple[np.ndarray, list[str]]:
    """Returns grid values to label, evenly chosen, and their texts in as few digits as tell."""
    last = len(values) - 1
    even = [n for n in range(most, 2, -1) if last % (n - 1) == 0]
    step = 1 if last < most else last // (even[0] - 1) if even else -(-last // (most - 1))
    ticks = values[::step]
    texts = [f"{t:.3g}" for t in ticks]
    return ticks, texts if len(set(texts)) == len(texts) else [f"{t:g}" for t in ticks]


def _shared_norm(tables: list[np.ndarray]) -> Normalize:
    values = np.concatenate([t[np.isfinite(t)] for t in tables])
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Normalize(low, high)


def _label_ends(figure: Figure, axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Writes names beside the right ends of their lines, moved apart where they would touch."""
    figure.draw_without_rendering()
    right = axes.get_xlim()[1]
    scale = axes.transData.transform
    gap = 13 * figure.dpi / 72
    last = -np.inf
    for x, y, name, color in sorted(ends, key=lambda end: end[1]):
        pixel = scale((x, y))[1]
        last = max(pixel, last + gap)
        offset = (6, (last - pixel) * 72 / figure.dpi)
        place = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
        axes.annotate(name, (right, y), offset, fontsize=10.5, **place, **_BOLD | {"color": color})


def _decorate(axes: Any, xlabel: str, ylabel: str, title: str) -> None:
    axes.set_xlabel(xlabel, **_LABEL)
    axes.set_ylabel(ylabel, **_LABEL)
    axes.set_title(title, fontsize=13, loc="left", pad=10, **_BOLD)
    axes.tick_params(labelsize=10, colors=_INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if 1e4 <= max(map(abs, limits)) < 1e15:
            axis.set_major_formatter(EngFormatter(sep=""))


def _check_series(name: str, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or y.ndim != 2 or y.shape[1] != len(x) or not y.size:
        raise UserError(
            f"series {name!r} has x of shape {x.shape} and y of shape {y.shape}: "
            "give [T] and [num_seeds, T]."
        )
    return x, y


def _check_grid(name: str, values: ArrayLike) -> np.ndarray:
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim != 1 or not grid.size or not np.isfinite(grid).all() or (np.diff(grid) <= 0).any():
        raise UserError(f"{name} of shape {grid.shape} is no grid: give increasing finite values.")
    return grid


def _check_panel(name: str, values: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    table = np.asarray(values, dtype=np.float64)
    if table.shape != shape:
        raise UserError(f"panel {name!r} has shape {table.shape}: give {shape} as y and x have it.")
    return table


def _save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes beside `path` and renames, so that a reader never sees half an image."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    FigureCanvasAgg(figure)
    try:
        figure.savefig(temporary, format=path.suffix[1:] or "png", facecolor="white")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
