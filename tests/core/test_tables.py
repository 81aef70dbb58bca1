# SPDX-License-Identifier: Apache-2.0
"""Tables line up, and no cell is lost."""

from jaxsafe.core import tables

ROWS = [
    {"method": "M2TD3", "worst": 812.4, "gap": 0.123456},
    {"method": "TD3", "worst": 4.0, "note": "fell"},
]


def test_text_columns_line_up():
    assert tables.text_table(ROWS).splitlines() == [
        "method  worst  gap    note",
        "M2TD3     812  0.123",
        "TD3         4         fell",
    ]


def test_markdown_has_the_same_cells():
    assert tables.markdown_table(ROWS).splitlines() == [
        "| method | worst | gap | note |",
        "| --- | --- | --- | --- |",
        "| M2TD3 | 812 | 0.123 |  |",
        "| TD3 | 4 |  | fell |",
    ]


def test_numbers_are_short_and_integers_whole():
    row = {"a": 1234567.8, "b": -1234.5, "c": 1e-7, "d": 99.96, "e": 123456, "f": float("nan")}
    assert tables.text_table([row]).splitlines()[1].split() == [
        "1,234,568",
        "-1,234",
        "1e-07",
        "100",
        "123456",
        "nan",
    ]


def test_a_table_without_rows_is_empty():
    assert tables.text_table([]) == ""
