# SPDX-License-Identifier: Apache-2.0
"""Image files are whole, mark the right cell, and refuse arrays that do not fit."""

import sys

import numpy as np
import pytest
from matplotlib.image import imread

from jaxsafe.core import heat_maps, plots
from jaxsafe.core.checks import UserError

X, Y = np.linspace(0.5, 3, 6), np.linspace(0.1, 2, 5)


def _image(path):
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return imread(path)[..., :3]


def _panels(count):
    rng = np.random.default_rng(count)
    return {f"method {i}": rng.normal(size=(5, 6)) for i in range(count)}


@pytest.mark.parametrize("seeds", [1, 3, 8])
def test_curves_write_an_image(tmp_path, seeds):
    x = np.arange(12) * 1e4
    y = np.random.default_rng(0).normal(size=(seeds, 12)).cumsum(1)
    y[0, :3] = np.nan
    series, marks = {"A": (x, y), "B": (x, y + 0.01)}, {"A": (x[:2], [0.0, 1.0])}
    path = plots.curves(tmp_path / "a" / "c.png", series, "x", "y", "t", marks, "found")
    image = _image(path)
    assert image.shape[0] > 500 and image.shape[1] > 900
    assert image.std() > 0.02
    assert [p.name for p in path.parent.iterdir()] == ["c.png"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_heat_maps_write_an_image(tmp_path, count):
    panels = _panels(count)
    notes = {name: "a note" for name in panels} if count > 1 else None
    path = heat_maps.heat_maps(tmp_path / "h.png", panels, X, Y, "x", "y", "v", "t", notes=notes)
    image = _image(path)
    assert image.shape[0] > 400 and image.shape[1] > 600
    assert not (image[[0, -1]] < 0.9).any(), "something is cut at the upper or lower edge"


@pytest.mark.parametrize("count", [1, 4])
def test_slices_write_an_image(tmp_path, count):
    rng = np.random.default_rng(count)
    z = np.linspace(1, 2, 10)
    panels = {f"method {i}": rng.normal(size=(10, 5, 6)) for i in range(count)}
    marks = {name: np.array([[0.5, 0.1, 1.0], [3, 2, 2]]) for name in panels}
    path = heat_maps.slices(
        tmp_path / "s.png", panels, X, Y, z, "x", "y", "z", "v", "t", marks, "found"
    )
    image = _image(path)
    assert image.shape[0] > 400 and image.shape[1] > 900
    assert not (image[[0, -1]] < 0.9).any(), "something is cut at the upper or lower edge"


def test_slices_shown_hold_both_ends_and_every_worst_one():
    assert heat_maps._shown(10, [4, 0, 4]) == [0, 3, 4, 6, 9]
    assert heat_maps._shown(10, []) == [0, 3, 6, 9]
    assert heat_maps._shown(3, [1]) == [0, 1, 2] and heat_maps._shown(1, [0]) == [0]
    table = np.ones((4, 5, 6))
    table[2, 3, 1], table[0, 0, 0] = -1, np.nan
    assert heat_maps._worst_slice(table) == 2
    assert heat_maps._worst_slice(np.full((4, 5, 6), np.nan)) is None


def test_crosses_lie_where_they_are_asked_for(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(heat_maps, "_crosses", lambda axes, points: seen.append(np.array(points)))
    marks = {"a": [[0.5, 0.1, 1.1], [3, 2, 2]]}
    panels, z = {"a": np.ones((3, 5, 6))}, [1, 1.5, 2]
    heat_maps.slices(tmp_path / "s.png", panels, X, Y, z, "x", "y", "z", "v", "t", marks, "found")
    assert [points.tolist() for points in seen] == [[[0.5, 0.1]], [], [[3, 2]]]


def test_nan_cells_are_grey_and_never_marked(tmp_path):
    values = np.linspace(0, 1, 30).reshape(5, 6)
    values[0, :2], values[3, 3] = np.nan, np.inf
    assert heat_maps.worst_cell(values) == (0, 2)
    gap = {"gap": values, "empty": np.full((5, 6), np.nan)}
    path = heat_maps.heat_maps(tmp_path / "h.png", gap, X, Y, "x", "y", "v")
    grey = np.isclose(_image(path), 189 / 255, atol=1e-3).all(-1).mean()
    assert grey > 0.2


def test_worst_cell_is_the_extreme():
    values = np.array([[3.0, 1.0, 2.0], [9.0, -4.0, 0.0]])
    assert heat_maps.worst_cell(values) == (1, 1)
    assert heat_maps.worst_cell(values, "max") == (1, 0)


@pytest.mark.parametrize("cell", [(0, 0), (0, 5), (4, 0), (4, 5), (2, 3)])
def test_the_ring_lies_on_the_worst_cell(cell):
    from matplotlib.figure import Figure

    values = np.ones((5, 6))
    values[cell] = 0
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    heat_maps._panel(axes, values, X, Y, heat_maps._shared_norm([values]), "min")
    figure.draw_without_rendering()
    ring, text = axes.lines[0], axes.texts[0]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (X[cell[1]], Y[cell[0]])
    assert text.get_text() == "0"
    box, frame = text.get_window_extent(), axes.get_window_extent()
    assert frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)


def test_edges_surround_uneven_grids():
    np.testing.assert_allclose(heat_maps._edges(np.array([0.0, 1.0, 3.0])), [-0.5, 0.5, 2.0, 4.0])
    np.testing.assert_allclose(heat_maps._edges(np.array([2.0])), [1.5, 2.5])


@pytest.mark.parametrize("length", [*range(1, 15), 20, 21, 101])
def test_ticks_are_grid_values_and_few(length):
    grid = np.linspace(0.1, 0.9, length)
    ticks, texts = heat_maps._ticks(grid)
    assert set(ticks) <= set(grid) and ticks[0] == grid[0]
    assert 1 <= len(ticks) == len(texts) == len(set(texts)) <= 6


def test_close_end_labels_are_moved_apart():
    from matplotlib.figure import Figure

    figure = Figure(dpi=100)
    axes = figure.add_subplot()
    plots._label_ends(figure, axes, [(1.0, 0.5, "a", "k"), (1.0, 0.5, "b", "k")])
    figure.draw_without_rendering()
    low, high = sorted(t.get_window_extent().y0 for t in axes.texts)
    assert high - low > 10


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "h.png"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        heat_maps.heat_maps(path, _panels(1), X, Y, "x", "y", "v")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_pyplot_is_not_imported():
    import subprocess

    code = "import sys, jaxsafe.core.heat_maps; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: plots.curves(p, {}, "x", "y"), "series is empty"),
        (lambda p: plots.curves(p, {"a": ([1, 2], [1, 2])}, "x", "y"), r"\(2,\) and y of shape"),
        (lambda p: plots.curves(p, {"a": ([1], [[1, 2]])}, "x", "y"), r"give \[T\]"),
        (lambda p: heat_maps.heat_maps(p, {}, X, Y, "x", "y", "v"), "panels is empty"),
        (
            lambda p: heat_maps.heat_maps(p, _panels(1), Y, X, "x", "y", "v"),
            r"shape \(5, 6\): give",
        ),
        (lambda p: heat_maps.heat_maps(p, _panels(1), X[::-1], Y, "x", "y", "v"), "x of shape"),
        (
            lambda p: heat_maps.heat_maps(p, _panels(1), X, Y, "x", "y", "v", mark="minn"),
            "Did you mean",
        ),
        (lambda p: heat_maps.slices(p, {}, X, Y, X, *"xyzv"), "panels is empty"),
        (
            lambda p: heat_maps.slices(p, _panels(1), X, Y, X, *"xyzv"),
            r"shape \(5, 6\): give \(6, 5, 6\)",
        ),
        (lambda p: heat_maps.slices(p, {}, X, Y, X[::-1], *"xyzv"), "z of shape"),
        (lambda p: heat_maps.worst_cell([[np.nan]]), "finite value"),
        (lambda p: heat_maps.worst_cell([1.0]), "two axes"),
    ],
)
def test_bad_input(tmp_path, call, message):
    with pytest.raises(UserError, match=message):
        call(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
