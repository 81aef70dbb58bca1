# SPDX-License-Identifier: Apache-2.0
"""What a page says of results: intervals over seeds, and how rows are named."""

from jaxsafe.core import stats
from jaxsafe.core.pages import results
from tests.core.test_pages import SCORES


def test_intervals_are_those_of_the_seeds_and_repeated_numbers_are_left_out():
    row = {"method": "a", "score_per_seed": SCORES, "points": 7, "share": 0.5}
    row |= {f"score_{k}": v for k, v in stats.summarise(SCORES).items()}
    row |= {"share_low": 0.25, "share_high": 0.75, "omega_per_seed": [[1.0]] * 5}
    other = row | {"method": "b", "score_per_seed": [1.0, None, "-inf"], "share": 0.125}
    (first, second) = results.summary_rows([row, other])
    told = stats.summarise(SCORES)
    assert told["iqm"] == 3.0 and float(first["score"].split()[0]) == 3.0
    assert first["score"] == f"3 [{results.short(told['ci_low'])}, {told['ci_high']:.4g}]"
    assert second["score"] == "1 (1 of 3 finite)"
    assert first == first | {"method": "a", "share": "0.5 [0.25, 0.75]"}
    assert list(first) == ["method", "score", "share"]
    assert results.constants([row, other]) == {"points": "7"}
    assert results.summary_rows([{"method": "a", "x_per_seed": [2.5]}])[0]["x"] == "2.5"
    head, body = results.seed_table([row], range(40, 45))
    assert head[-1] == "seed 44" and body[0][:3] == ["a", "score", "4"]
    assert body[0][4:] == ["1", "10", "3", "1", "2", "10", "4"]
    assert body[1][2:7] == ["", "", "", "", "1"]


def test_rows_are_named_by_no_more_than_tells_them_apart():
    a, b = {"method": "a", "family": "x", "at": 0.0}, {"method": "b", "family": "y", "at": 0.5}
    assert results.labels([a, b]) == ["method"]
    assert results.labels([a, a | {"family": "y"}]) == ["family"]
    assert results.labels([a, b, a | {"family": "y"}]) == ["method", "family"]
    again = [a, b, a | {"at": 0.25}]
    named = results.labels(again)
    assert named == ["method", "family", "at"]
    told = [results.label(row, named, i) for i, row in enumerate(again, 1)]
    assert told == ["a \u00b7 x \u00b7 0", "b \u00b7 y \u00b7 0.5", "a \u00b7 x \u00b7 0.25"]
    assert results.labels([a, a]) == ["method"]
    assert results.labels([{"n": 1}, {"n": 2}]) == []
    assert results.label({"n": 1}, [], 1) == "row 1"
