# SPDX-License-Identifier: Apache-2.0
"""Pictures drawn for a page, as SVG that follows the reader's light or dark."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsafe.core import plots, stats
from jaxsafe.core.pages import markup
from jaxsafe.core.pages.markup import Html, tag
from jaxsafe.core.pages.style import DARK_FIGURE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = 200
_DASHES = {"-": "", "--": "5 3", ":": "1.5 3", "-.": "5 2 1.5 2"}


def svg(figure: "Figure") -> bytes:
    """Returns a figure as SVG, the same bytes for the same figure."""
    import matplotlib

    out = io.BytesIO()
    # Text stays text, in whatever plain face the reader has; so no glyph is missing.
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "jaxsafe"}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(out, format="svg", facecolor="none", metadata={"Date": None})
    head, begin, rest = out.getvalue().decode().partition("<svg ")
    attributes, end, body = rest.partition(">")
    return f"{head}{begin}{attributes}{end}<style>{DARK_FIGURE}</style>{body}".encode()


def words(text: str, longest: int = 40) -> str:
    """Returns a text of a run as one short line that is no formula to matplotlib."""
    line = " ".join(markup.plain(text).split()).replace("\\", "\N{SET MINUS}")
    line = line if len(line) <= longest else f"{line[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
    return line.replace("$", r"\$")


def image(content: bytes, alt: str, caption: str = "") -> Html:
    """Returns an SVG as a figure of the page."""
    img = tag("img", src=markup.data_uri(content, "image/svg+xml"), alt=alt, loading="lazy")
    return tag("figure", img, tag("figcaption", caption) if caption else None)


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keeps at most `MOST_POINTS` steps `[T]` of `y` `[num_seeds, T]`, first and last included."""
    if len(x) <= MOST_POINTS:
        return x, y
    at = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int))
    return x[at], y[:, at]


def curve_panel(
    metric: str, series: Mapping[str, tuple[np.ndarray, np.ndarray]], order: Sequence[str]
) -> bytes:
    """Draws one metric of several stages: thin lines per seed, IQM, band.

    Args:
      metric: its name, the panel's title.
      series: stage -> (steps `[T]`, values `[num_seeds, T]`).
      order: all stages of the run, for colours that are the same in every panel.
    """
    figure = plots.new_figure((4.2, 2.7))
    axes = figure.add_subplot(facecolor="none")
    for stage, (x, y) in series.items():
        plots.draw_seeds(axes, order.index(stage), *thin(x, y))
    plots.decorate(axes, "step", "", words(metric))
    return svg(figure)


def interval_panel(
    measure: str, names: Sequence[str], values: Sequence[np.ndarray], colours: Sequence[int]
) -> bytes:
    """Draws one measure of several rows: a ring per seed, the IQM, and its 95% interval.

    Args:
      measure: its name, the panel's title.
      names: labels of the rows, from the top.
      values: `[num_seeds]` for each row; what is not finite is left out.
      colours: for each row, its place in the palette.
    """
    figure = plots.new_figure((4.2, 0.85 + 0.27 * len(names)))
    axes = figure.add_subplot(facecolor="none")
    for place, (x, colour) in enumerate(zip(values, colours, strict=True)):
        x, color = x[np.isfinite(x)], plots.PALETTE[colour % len(plots.PALETTE)]
        if not x.size:
            continue
        at = np.full(x.size, place)
        axes.scatter(x, at, s=20, facecolors="none", edgecolors=color, linewidths=0.9, alpha=0.55)
        if x.size > 1:
            axes.plot(stats.stratified_bootstrap_ci(x), [place] * 2, color=color, linewidth=3.2)
        axes.plot(stats.iqm(x), place, marker="D", markersize=6, color=color)
    axes.set_yticks(range(len(names)), [words(name, 24) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    plots.decorate(axes, "", "", words(measure))
    return svg(figure)


def key(names: Sequence[str]) -> Html:
    """Returns the list of lines and what they stand for, in the colours of `curve_panel`."""
    items = []
    for i, name in enumerate(names):
        color, style = plots.look(i)
        line = tag(
            "line", x1="0", y1="5", x2="26", y2="5", stroke=color, stroke_width="3",
            stroke_dasharray=_DASHES[style] or None,
        )  # fmt: skip
        swatch = tag("svg", line, width="26", height="10", aria_hidden="true")
        items.append(tag("li", swatch, name))
    return tag("ul", *items, class_="key")
