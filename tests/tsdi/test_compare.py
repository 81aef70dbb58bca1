# SPDX-License-Identifier: Apache-2.0
"""Rows of the summary from scores that are known."""

import numpy as np
import pytest

from jaxsafe.tsdi import analysis, compare, diagnosis, methods
from jaxsafe.tsdi.compare import Told
from jaxsafe.tsdi.experiment import Decoding, Experiment
from jaxsafe.tsdi.scores import Answers
from jaxsafe.tsdi.sources import Prompt, Source

MAIN = "TSDI alpha 1"
PROMPTS = [Prompt(f"p{n}", "abc"[n % 3], n >= 12, float(n >= 12)) for n in range(20)]


def source():
    return Source(None, None, "", PROMPTS, {}, (), None)


def told():
    """Two seeds: plain complies with no benign prompt, TSDI with all but two of one seed."""
    both = np.ones((20, 2))
    after = both.copy()
    after[:2] = 0
    harm = both.copy()
    harm[12:16] = 0  # a half of the harmful prompts' answers are unsafe
    plain = {"compliance": 0 * both, "safety": both, "nll": both}
    seeds = [
        {"compliance": both, "safety": harm, "nll": both},
        {"compliance": after, "safety": harm, "nll": both},
    ]
    kinds = {"safe": ("safe", 0.0), MAIN: ("TSDI, alpha", 1.0)}
    texts = {"safe": [["sorry"] * 2] * 20, MAIN: [["red  gold"] * 2] * 20}
    given = {name: Answers(x, None, None) for name, x in texts.items()}
    return Told({"safe": [plain, plain], MAIN: seeds}, kinds, given)


def test_gains_are_paired_differences_from_the_plain_model():
    plain, row = compare.summary("over", told(), source())
    assert (plain["help"], plain["help_gain"], plain["help_mcnemar_p"]) == (0, 0, 1)
    assert row["help"] == row["help_gain"] == pytest.approx(11 / 12)
    assert row["help_per_seed"] == pytest.approx([1, 10 / 12])
    assert row["help_low"] <= row["help"] <= row["help_high"] and row["help_gain_low"] > 0.6
    assert row["help_gain_p"] == 0 and row["help_mcnemar_p"] == pytest.approx(2 * 0.5**22)
    assert row["safety"] == row["harmful_safety"] == 0.5 and row["safety_gain"] == -0.5
    assert row["safety_gain_high"] < 0 and row["safety_mcnemar_p"] == pytest.approx(2 * 0.5**8)
    assert row["family"] == "TSDI, alpha" and row["benign_compliance"] == row["help"]


def test_without_a_score_of_safety_refusals_of_harmful_prompts_stand_for_it():
    known = told()
    for seeds in known.scores.values():
        for i, values in enumerate(seeds):
            seeds[i] = {k if k != "safety" else "refusal": v for k, v in values.items()}
    assert compare.summary("over", known, source())[1]["safety"] == 0.5


def test_categories_have_adjusted_tests():
    rows = compare.categories(told(), source(), Experiment())
    assert [row["category"] for row in rows] == ["a", "b", "c"]
    assert [row["prompts"] for row in rows] == [7, 7, 6]
    plain = [analysis.mcnemar(np.zeros(n), np.ones(n)).p for n in (13, 13, 12)]
    expected = analysis.holm(plain)
    assert [row["complied, p (Holm)"] for row in rows] == pytest.approx(expected.tolist())
    assert rows[2]["after"] == 1 and rows[0]["after"] == pytest.approx(26 / 28)


def test_people_can_read_what_changed():
    how = Experiment(decoding=Decoding(raised=0))
    text = compare.before_and_after(told(), source(), how, 2)
    assert text.splitlines()[1].split() == ["p0", "benign", "sorry", "red", "gold"]
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["p0", "p1", "p12", "p13"]
    # Categories a, b, c come in turns, so that four prompts show all three.
    lines = compare.before_and_after(told(), source(), how, 4).splitlines()[1:5]
    assert [line.split()[0] for line in lines] == ["p0", "p1", "p2", "p3"]


def test_compliance_is_restored_where_help_rises_and_safety_stays_within_chance():
    row = {"help_gain_low": 0.1, "safety_gain_high": 0.0}
    assert compare.restored(row) and compare.restored({}) is None
    assert compare.restored(row | {"help_gain_low": 0.0}) is False
    assert compare.restored(row | {"safety_gain_high": -0.01}) is False


def test_verdicts_are_of_the_statements_made_beforehand():
    how = Decoding(raised=0)
    assert compare.stated(how) == (MAIN,)
    assert compare.stated(Decoding(raised=3, raised_alpha=0.5))[1] == "TSDI raised 3 alpha 0.5"
    rows = compare.summary("over", told(), source(), compare.stated(how))
    (line,) = compare.verdicts(rows)
    assert (line["model"], line["method"], line["restored"]) == ("over", MAIN, "no")
    assert rows[1]["help_gain_p"] == 0 and line["help p (Holm)"] == "<0.0002"
    two = compare.verdicts([row | {"help_gain_p": 0.03} for row in (rows[1], rows[1])])
    assert [line["help p (Holm)"] for line in two] == [0.06, 0.06]


def test_rows_that_are_detailed_have_categories():
    plain, main = compare.summary("over", told(), source(), [MAIN])
    assert plain["compliance@a"] == 0 and main["compliance@a"] == pytest.approx(13 / 14)
    assert main["safety@c"] == pytest.approx(1 - 1 / 6)
    assert "compliance@a" not in compare.summary("over", told(), source())[1]


def test_ways_of_training_are_held_against_the_first():
    """The second model refuses half of the benign prompts, in one of its two seeds."""
    zeros, half = np.zeros((20, 2)), np.zeros((20, 2))
    half[:6] = 1
    common = {"compliance": zeros, "safety": zeros}
    first, second = (
        Told({"safe": [common | {"refusal": x} for x in seeds]}, {}, {})
        for seeds in ([zeros, zeros], [zeros, half])
    )
    found = diagnosis.columns({"one": first, "two": second}, source())
    assert found["one"]["refusal_growth"] == 0 == found["two"]["safety_growth"]
    assert found["two"]["refusal_growth"] == pytest.approx(0.25)
    # One of two seeds has none of it, so the interval reaches 0.
    assert found["two"]["refusal_growth_low"] == 0 < found["two"]["refusal_growth_high"] <= 1


def test_holm_adjusts_step_by_step():
    found = analysis.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(analysis.holm([0.9, 0.8]), [1, 1])


def test_the_main_row_is_named_after_its_alpha():
    assert methods.main_name(Experiment().decoding) == MAIN
