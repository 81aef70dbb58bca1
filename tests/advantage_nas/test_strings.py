# SPDX-License-Identifier: Apache-2.0
"""Strings of cells, and which cells are one (NAS-Bench-201's form; page, section 4.2)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsafe.advantage_nas import enumeration, strings
from jaxsafe.advantage_nas.strings import NB201_OPS, canonical, decode, encode
from jaxsafe.core.checks import UserError

BEST = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+"
    "|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
)
# What stands for each operation; all map 0 to 0.
FUNCTIONS = {
    "skip_connect": lambda x: x,
    "nor_conv_1x1": lambda x: math.sin(1.7 * x),
    "nor_conv_3x3": lambda x: math.tanh(2.3 * x) + 0.31 * x * x,
    "avg_pool_3x3": lambda x: math.expm1(0.6 * x),
    "none": lambda x: 0.0,
}


def value(choice, x=0.7371):
    """The cell's output where each operation is a generic function."""
    nodes, edge = [x], 0
    for i in range(1, strings.num_nodes(len(choice))):
        total = 0.0
        for j in range(i):
            total += FUNCTIONS[NB201_OPS[choice[edge]]](nodes[j])
            edge += 1
        nodes.append(total)
    return nodes[-1]


def test_a_published_string_and_back():
    choice = decode(BEST)
    assert [NB201_OPS[k] for k in choice] == [
        *("nor_conv_3x3", "nor_conv_3x3", "nor_conv_3x3"),
        *("skip_connect", "nor_conv_1x1", "nor_conv_3x3"),
    ]
    assert encode(choice) == BEST
    assert strings.edges(4) == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


def test_equal_canonical_forms_are_equal_cells_and_only_those():
    """Over all 15,625 cells, against what they compute with generic functions."""
    every = enumeration.architectures(6, 5)
    forms = [canonical(cell) for cell in every]
    values = np.round([value(cell) for cell in every], 9)
    pairs = set(zip(forms, values, strict=True))
    assert len(set(forms)) == len(set(values)) == len(pairs)
    assert len(pairs) == 4930
    assert set(values[np.array(forms) == strings.NOTHING]) == {0.0}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (  # a skip hands on its source
            "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|",
            "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|nor_conv_1x1~2|",
        ),
        (  # what reads nothing is nothing
            "|none~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|nor_conv_3x3~1|nor_conv_3x3~2|",
            "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|",
        ),
        (  # nodes 1 and 2 trade places
            "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|none~0|skip_connect~1|avg_pool_3x3~2|",
            "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|none~0|avg_pool_3x3~1|skip_connect~2|",
        ),
    ],
)
def test_isomorphic_cells_share_their_form(left, right):
    assert canonical(decode(left)) == canonical(decode(right)) != strings.NOTHING
    assert canonical(decode(left)) != canonical(decode(BEST))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|conv~0|", r"'conv' in .* is no operation of"),
        ("|nor_conv_3x1~0|", r"Did you mean 'nor_conv_3x3'\?"),
        ("|none~1|", r"is no cell at '\|none~1\|'"),
        ("|none~0|+|none~0|", r"is no cell at '\|none~0\|'"),
        ("none~0", "is no cell"),
        ("", "is no cell"),
    ],
)
def test_bad_strings_are_named(text, message):
    with pytest.raises(UserError, match=message):
        decode(text)


def test_bad_choices_are_named():
    with pytest.raises(UserError, match="4 edges make no cell"):
        encode([0, 0, 0, 0])
    with pytest.raises(UserError, match=r"choice\[1\]=7 is no operation: give 0 to 4"):
        encode([0, 7, 0])


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(2, 6), st.permutations(NB201_OPS), st.integers(1, 5))
def test_every_cell_comes_back_from_its_string(data, nodes, ops, count):
    ops, num_edges = ops[:count], nodes * (nodes - 1) // 2
    index = st.integers(0, count - 1)
    cell = np.asarray(data.draw(st.lists(index, min_size=num_edges, max_size=num_edges)))
    text = encode(cell, ops)
    assert len(text.split("+")) == nodes - 1
    np.testing.assert_array_equal(decode(text, ops), cell)


PIECES = ("|", "~", "+", "0", "1", "00", "\u0661", " ", "\n", *NB201_OPS, "|none~0|")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_a_text_is_a_cells_own_string_or_refused(text):
    try:
        cell = decode(text)
    except UserError as error:
        assert "is no" in str(error)
    else:
        assert encode(cell) == text
