# SPDX-License-Identifier: Apache-2.0
"""Drawings say which operation each edge has."""

import re

import numpy as np
import pytest

from jaxsafe.advantage_nas import drawing
from jaxsafe.advantage_nas.space import NAS_BENCH_201, nas_bench_201, ptb
from jaxsafe.core.checks import UserError

CHOICE = [2, 0, 4, 1, 2, 3]


def words(path):
    """The texts of an SVG, which matplotlib leaves as comments beside their outlines."""
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", path.read_text())]


def test_every_edge_and_node_is_there(tmp_path):
    space = nas_bench_201(NAS_BENCH_201)
    path = drawing.draw_cell(tmp_path / "cell.svg", space, CHOICE, "found", np.full(6, 0.5))
    found = words(path)
    # Names of edges between neighbours stand apart from their numbers.
    near = [k for k, (a, b) in zip(CHOICE, space.edges, strict=True) if b - a == 1]
    assert found.count("0.50") == len(near) == 3
    for k in set(CHOICE):
        name = NAS_BENCH_201[k]
        assert found.count(f"{name} 0.50") == CHOICE.count(k) - near.count(k)
        assert found.count(name) == 1 + near.count(k)  # one in the legend
    assert {"found", "in", "1", "2", "out"} <= set(found)
    path = drawing.draw_cell(tmp_path / "cell.svg", ptb(), [0] * 6)
    found = words(path)
    assert found.count("identity") == 7 and "3" in found and "out" not in found


def test_png_is_written(tmp_path):
    path = drawing.draw_cell(tmp_path / "cell.png", nas_bench_201(), [0, 1, 2, 3, 2, 2])
    assert path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("choice", "probabilities", "message"),
    [
        ([0] * 5, None, r"choice \(5,\) does not fit"),
        ([0] * 6, np.ones(5), r"probabilities \(5,\) does not fit"),
        ([0, 0, 0, 0, 0, 4], None, "operation 4 is none of 4"),
        ([0, -1, 0, 0, 0, 0], None, "operation -1 is none"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, choice, probabilities, message):
    with pytest.raises(UserError, match=message):
        drawing.draw_cell(tmp_path / "x.png", nas_bench_201(), choice, "", probabilities)
