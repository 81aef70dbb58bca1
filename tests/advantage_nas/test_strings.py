# SPDX-License-Identifier: Apache-2.0
"""Strings of cells (NAS-Bench-201's form; page, section 4.2)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsafe.advantage_nas import strings
from jaxsafe.advantage_nas.strings import NB201_OPS, decode, encode
from jaxsafe.core.checks import UserError

BEST = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+"
    "|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
)


def test_a_published_string_and_back():
    choice = decode(BEST)
    assert [NB201_OPS[k] for k in choice] == [
        *("nor_conv_3x3", "nor_conv_3x3", "nor_conv_3x3"),
        *("skip_connect", "nor_conv_1x1", "nor_conv_3x3"),
    ]
    assert encode(choice) == BEST
    assert strings.edges(4) == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


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
