# SPDX-License-Identifier: Apache-2.0
"""Heat maps over grids of two or three parameters as image files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jaxsafe.core import plots
from jaxsafe.core.checks import UserError, check_choice

if TYPE_CHECKING:
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_MISSING = "#bdbdbd"
_CROSS: dict[str, Any] = {
    "marker": "x",
    "markersize": 6,
    "markeredgecolor": "white",
    "markeredgewidth": 1.6,
}


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
    marks: Mapping[str, ArrayLike] | None = None,
    marks_label: str = "",
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
      marks: name -> points `[S, 2]`, x before y, that get crosses.
      marks_label: what the crosses are, for a line below.

    Returns:
      The path written.

    Raises:
      UserError: there is no panel, a shape does not fit, or a grid does not increase.
    """
    x, y = _check_grid("x", x), _check_grid("y", y)
    tables = _check_panels(panels, (len(y), len(x)))
    columns = len(tables) if len(tables) <= 4 else min(4, -(-len(tables) // 2))
    rows = -(-len(tables) // columns)
    figure = plots.new_figure((3.1 * columns + 1.4, 3.15 * rows + (0.9 if title else 0.5)))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    norm = _shared_norm(list(tables.values()))
    for axes in grid.flat[len(tables) :]:
        axes.set_axis_off()
    for k, (axes, (name, table)) in enumerate(zip(grid.flat, tables.items(), strict=False)):
        mesh = _panel(axes, table, x, y, norm, mark)
        _crosses(axes, (marks or {}).get(name, ()))
        _head(axes, name, (notes or {}).get(name, " ") if notes else None)
        lowest, leftmost = k + columns >= len(tables), k % columns == 0
        axes.tick_params(labelbottom=lowest, bottom=lowest, labelleft=leftmost, left=leftmost)
    _frame(figure, grid, mesh, xlabel, ylabel, value_label, title, marks_label if marks else "")
    return plots.save(figure, path)


def slices(
    path: str | os.PathLike[str],
    panels: Mapping[str, ArrayLike],
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike,
    xlabel: str,
    ylabel: str,
    zlabel: str,
    value_label: str,
    title: str = "",
    marks: Mapping[str, ArrayLike] | None = None,
    marks_label: str = "",
) -> Path:
    """Draws one row per method, with slices through three parameters on one colour scale.

    The slices are at both ends of z, evenly between them, and wherever a method is worst; a ring
    marks the worst cell of each row.

    Args:
      path: the image to write; its ending (.png, .svg, .pdf) is the format.
      panels: name -> values `[k, n, m]`, at `z[k]`, `y[n]` and `x[m]`; what is not finite is grey.
      x, y, z: grid values `[m]`, `[n]` and `[k]`, increasing.
      xlabel, ylabel, zlabel, value_label: labels with units, the last of the colour bar.
      title: bold line above all panels.
      marks: name -> points `[S, 3]` in the order x, y, z, that get crosses in the nearest slice.
      marks_label: what the crosses are, for a line below.

    Returns:
      The path written.

    Raises:
      UserError: as `heat_maps`.
    """
    x, y, z = _check_grid("x", x), _check_grid("y", y), _check_grid("z", z)
    tables = _check_panels(panels, (len(z), len(y), len(x)))
    worst = {name: _worst_slice(table) for name, table in tables.items()}
    shown = _shown(len(z), [k for k in worst.values() if k is not None])
    figure = plots.new_figure((1.95 * len(shown) + 2.2, 1.95 * len(tables) + 1.5))
    grid = figure.subplots(len(tables), len(shown), sharex=True, sharey=True, squeeze=False)
    norm = _shared_norm(list(tables.values()))
    for row, (name, table) in zip(grid, tables.items(), strict=True):
        points = np.asarray((marks or {}).get(name, np.zeros((0, 3))), dtype=np.float64)
        nearest = np.abs(points[:, 2:] - z[shown]).argmin(1)
        for i, (axes, k) in enumerate(zip(row, shown, strict=True)):
            mesh = _panel(axes, table[k], x, y, norm, "min" if k == worst[name] else None)
            _crosses(axes, points[nearest == i, :2])
            axes.tick_params(labelsize=8.5, left=i == 0, bottom=row is grid[-1])
        row[0].set_ylabel(name, fontsize=11.5, labelpad=8, **plots.BOLD)
    for axes, k in zip(grid[0], shown, strict=True):
        axes.set_title(f"{z[k]:.3g}", fontsize=10, color=plots.INK, pad=5)
    above = {"xycoords": "axes fraction", "textcoords": "offset points"}
    grid[0, 0].annotate(f"{zlabel}:", (0, 1), (0, 22), **above, **plots.LABEL)
    _frame(figure, grid, mesh, xlabel, ylabel, value_label, title, marks_label if marks else "")
    return plots.save(figure, path)


def _worst_slice(table: np.ndarray) -> int | None:
    if not np.isfinite(table).any():
        return None
    return worst_cell(table.reshape(len(table), -1))[0]


def _shown(count: int, worst: list[int], even: int = 4) -> list[int]:
    """Which slices to draw: some evenly spaced, both ends among them, and all the worst."""
    evenly = np.linspace(0, count - 1, min(count, even)).round().astype(int).tolist()
    return sorted({*evenly, *worst})


def _frame(
    figure: "Figure",
    grid: np.ndarray,
    mesh: Any,
    xlabel: str,
    ylabel: str,
    value_label: str,
    title: str,
    marks_label: str,
) -> None:
    """Adds what all panels share: labels, colour bar, title, and what the crosses are."""
    bar = figure.colorbar(mesh, ax=grid.ravel().tolist(), aspect=22 * len(grid), pad=0.02)
    bar.set_label(value_label, **plots.LABEL)
    bar.ax.tick_params(labelsize=9.5, colors=plots.INK)
    bar.outline.set_visible(False)
    # In one text with the label: a legend would lie over it where the figure is narrow.
    figure.supxlabel(f"{xlabel}\ncross: {marks_label}" if marks_label else xlabel, **plots.LABEL)
    figure.supylabel(ylabel, **plots.LABEL)
    if title:
        figure.suptitle(title, fontsize=13.5, **plots.BOLD)


def _crosses(axes: Any, points: ArrayLike) -> None:
    """Draws crosses at points `[S, 2]`, white inside black."""
    style = _CROSS | {"path_effects": _outline(3.6)}
    for x, y in np.asarray(points, dtype=np.float64).reshape(-1, 2):
        axes.plot(x, y, clip_on=False, zorder=3, **style)


def _outline(width: float) -> list[Any]:
    """What draws a line black and so wide, and itself over that."""
    from matplotlib import patheffects

    return [patheffects.Stroke(linewidth=width, foreground="black"), patheffects.Normal()]


def _head(axes: Any, name: str, note: str | None) -> None:
    """Writes the name of a panel over its note, smaller where it would reach the next panel."""
    style = {"fontsize": 12 * min(1.0, 26 / max(len(name), 1)), **plots.BOLD}
    if note is None:
        axes.set_title(name, pad=6, **style)
        return
    axes.set_title(note, fontsize=9.5 * min(1.0, 40 / len(note)), color=plots.MUTED, pad=5)
    above = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
    axes.annotate(name, (0.5, 1), (0, 20), **above, **style)


def _panel(
    axes: Any, values: np.ndarray, x: np.ndarray, y: np.ndarray, norm: "Normalize", mark: str | None
) -> Any:
    from matplotlib import colormaps

    cmap = colormaps["cividis"].with_extremes(bad=_MISSING)
    shown = np.ma.masked_invalid(values)
    mesh = axes.pcolormesh(_edges(x), _edges(y), shown, norm=norm, cmap=cmap, rasterized=True)
    axes.xaxis.set_ticks(*_ticks(x))
    axes.yaxis.set_ticks(*_ticks(y))
    axes.tick_params(labelsize=9.5, colors=plots.INK, length=3)
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
    effects = _outline(4.6)
    axes.plot(x[j], y[i], marker="o", markersize=9, path_effects=effects, clip_on=False, **ring)
    box = {"boxstyle": "round,pad=0.22", "facecolor": "white", "edgecolor": "black"}
    text, offset = f"{values[i, j]:.4g}", (12 if right else -12, lift)
    place = {"textcoords": "offset points", "ha": "left" if right else "right", "va": "center"}
    axes.annotate(text, (x[j], y[i]), offset, fontsize=10, bbox=box, **place, **plots.BOLD)


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


def _shared_norm(tables: list[np.ndarray]) -> "Normalize":
    from matplotlib.colors import Normalize

    values = np.concatenate([t[np.isfinite(t)] for t in tables])
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Normalize(low, high)


def _check_grid(name: str, values: ArrayLike) -> np.ndarray:
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim != 1 or not grid.size or not np.isfinite(grid).all() or (np.diff(grid) <= 0).any():
        raise UserError(f"{name} of shape {grid.shape} is no grid: give increasing finite values.")
    return grid


def _check_panels(panels: Mapping[str, ArrayLike], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    tables = {name: np.asarray(values, dtype=np.float64) for name, values in panels.items()}
    if not tables:
        raise UserError("panels is empty: give at least one name -> values.")
    for name, table in tables.items():
        if table.shape != shape:
            raise UserError(
                f"panel {name!r} has shape {table.shape}: give {shape}, as the grids have it."
            )
    return tables
