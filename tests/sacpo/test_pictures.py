# SPDX-License-Identifier: Apache-2.0
"""Which points of the picture a line joins."""

from jaxsafe.sacpo import pictures


def rows(*names):
    return [
        {"policy": name}
        | {f"{x}{end}": 0.5 for x in ("reward", "safety") for end in ("", "_low", "_high")}
        for name in names
    ]


def test_lines_are_over_ratios_and_where_a_ratio_has_more_merges_over_these():
    swept = rows("safe@1", "sft", "safe@0.5", "p_sacpo@1:0.2", "p_sacpo@1:0.7", "p_sacpo@0.5:0.2")

    def names(kind, given=swept):
        return [[row["policy"] for row in line] for line in pictures._lines(given, kind)]

    assert names("safe") == [["safe@1", "safe@0.5"]]
    assert names("sft") == [["sft"]]
    assert names("p_sacpo") == [["p_sacpo@1:0.2", "p_sacpo@1:0.7"], ["p_sacpo@0.5:0.2"]]
    one = rows("p_sacpo@1:0.2", "p_sacpo@0.5:0.2")
    assert names("p_sacpo", one) == [["p_sacpo@1:0.2", "p_sacpo@0.5:0.2"]]


def test_a_picture_is_written(tmp_path):
    path = tmp_path / "pareto.png"
    pictures.pareto(path, rows("sft", "safe@1", "safe@0.5", "p_sacpo@1:0.2"), 0.9)
    assert path.read_bytes().startswith(b"\x89PNG")
