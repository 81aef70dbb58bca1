# SPDX-License-Identifier: Apache-2.0
"""Curves over seeds as image files, without pyplot and its global state, and the style of all."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jaxsafe.core import stats
from jaxsafe.core.checks import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design", 2008; its black and yellow are left out: one is the
# colour of text, the other too faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_STYLES = ("-", "--", ":", "-.")
INK, MUTED, _GRID = "#222222", "#666666", "#e6e6e6"
DPI = 160
_CROSS: dict[str, Any] = {"linestyle": "", "marker": "x", "markersize": 7, "markeredgewidth": 1.8}
BOLD: dict[str, Any] = {"fontweight": "bold", "color": INK}
LABEL: dict[str, Any] = {"fontsize": 11.5, "color": INK}


def new_figure(size: tuple[float, float], dpi: int = DPI) -> "Figure":
    """An empty figure of `size` (width, height) in inches.

    Matplotlib is imported here and in what draws on it, as a run that draws nothing yet, or only
    tells its flags, need not wait for it.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=dpi, layout="constrained")


def curves(
    path: str | os.PathLike[str],
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    xlabel: str,
    ylabel: str,
    title: str = "",
    marks: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    marks_label: str = "",
) -> Path:
    """Draws each series as thin lines per seed, its IQM, and a 95% bootstrap band.

    Args:
      path: the image to write; its ending (.png, .svg, .pdf) is the format.
      series: name -> (x `[T]`, y `[num_seeds, T]`); NaNs in y are left out.
      xlabel: label of the horizontal axis, with its unit.
      ylabel: label of the vertical axis, with its unit.
      title: bold line above the plot.
      marks: name of a series -> (x `[S]`, y `[S]`) of crosses in its colour.
      marks_label: what the crosses are, for the caption.

    Returns:
      The path written.

    Raises:
      UserError: there is no series, or x and y do not fit.
    """
    if not series:
        raise UserError("series is empty: give at least one name -> (x, y).")
    figure = new_figure((7.2, 4.2))
    axes = figure.add_subplot()
    ends, most = [], 0
    for i, (name, (x, y)) in enumerate(series.items()):
        x, y = _check_series(name, x, y)
        color, _ = look(i)
        centre = draw_seeds(axes, i, x, y)
        finite = np.flatnonzero(np.isfinite(centre))
        if finite.size:
            ends.append((x[finite[-1]], centre[finite[-1]], name, color))
        if marks and name in marks:
            axes.plot(*marks[name], color=color, **_CROSS)
        most = max(most, len(y))
    decorate(axes, xlabel, ylabel, title)
    middle = "IQM" if most >= 4 else "mean"
    caption = [f"thick: {middle} over seeds · band: 95% bootstrap interval · thin: single seeds"]
    caption = (caption if most > 1 else []) + ([f"cross: {marks_label}"] if marks else [])
    if caption:
        figure.supxlabel("\n".join(caption), fontsize=8.5, color=MUTED)
    _label_ends(figure, axes, ends)
    return save(figure, path)


def look(i: int) -> tuple[str, str]:
    """Colour and line style of the series at place `i`."""
    return PALETTE[i % len(PALETTE)], _STYLES[i // len(PALETTE) % len(_STYLES)]


def draw_seeds(axes: Any, i: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Draws y `[num_seeds, T]` over x `[T]` as the series at place `i`; returns its IQM `[T]`."""
    color, style = look(i)
    centre, low, high = stats.band(y)
    if len(y) > 1:
        axes.plot(x, y.T, color=color, linewidth=0.7, alpha=0.28)
        axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    marker = "o" if len(x) == 1 else None
    axes.plot(x, centre, color=color, linestyle=style, linewidth=2.2, marker=marker)
    return centre


def _label_ends(figure: "Figure", axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
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
        axes.annotate(name, (right, y), offset, fontsize=10.5, **place, **BOLD | {"color": color})


def decorate(axes: Any, xlabel: str, ylabel: str, title: str) -> None:
    """Gives axes their labels, title, grid and ticks in the style of all pictures."""
    from matplotlib.ticker import EngFormatter

    axes.set_xlabel(xlabel, **LABEL)
    axes.set_ylabel(ylabel, **LABEL)
    axes.set_title(title, fontsize=13, loc="left", pad=10, **BOLD)
    axes.tick_params(labelsize=10, colors=INK)
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


def save(figure: "Figure", path: str | os.PathLike[str]) -> Path:
    """Writes beside `path` and renames, so that a reader never sees half an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

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
