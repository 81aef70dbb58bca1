# SPDX-License-Identifier: Apache-2.0
"""Tests of significance against exact values, and what is told of a planted bias."""

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.tsdi import analysis
from tests.tsdi import planted
from tests.tsdi.test_bias import CONFIG, P, centred, estimate


def test_mcnemar_counts_only_those_that_turned():
    before = np.array([1] * 10 + [0] * 10 + [0] * 9 + [1] * 1, bool)
    after = np.array([1] * 10 + [0] * 10 + [1] * 9 + [0] * 1, bool)
    effect = analysis.mcnemar(before, after)
    assert effect.mean == pytest.approx(8 / 30)
    # Two tails of a fair coin thrown ten times, nine heads or more.
    assert effect.p == pytest.approx(2 * 11 / 1024)
    assert effect.low > 0 and effect.high < 10 / 30
    assert analysis.mcnemar(before, before) == analysis.Effect(0.0, 0.0, 0.0, 1.0)


def test_the_bootstrap_finds_a_shift_and_its_width():
    rng = np.random.default_rng(0)
    before = rng.normal(size=400)
    noise = rng.normal(0.0, 1.0, 400)
    effect = analysis.paired_bootstrap(before, before + 0.3 + noise)
    assert effect.low < 0.3 < effect.high and effect.p < 0.001
    assert effect.high - effect.low == pytest.approx(2 * 1.96 / 400**0.5, rel=0.1)
    assert analysis.paired_bootstrap(before, before).p == 1.0


def test_the_bootstrap_keeps_its_level():
    rng = np.random.default_rng(1)
    p = [
        analysis.paired_bootstrap(x, x + rng.normal(size=60), 400).p
        for x in rng.normal(size=(300, 60))
    ]
    assert np.mean(np.array(p) < 0.05) < 0.1


def test_seeds_that_differ_widen_the_interval():
    """Means of five seeds with a spread of 1: the interval is that of seeds, not of prompts."""
    rng = np.random.default_rng(2)
    of_seed = rng.normal(size=(5, 1))
    after = of_seed + 0.1 * rng.normal(size=(5, 200))
    effect = analysis.paired_bootstrap(np.zeros((5, 200)), after)
    wide = 2 * 1.96 * of_seed.std() / 5**0.5
    assert effect.high - effect.low == pytest.approx(wide, rel=0.15)
    of_prompts = analysis.paired_bootstrap(np.zeros(200), after.mean(0))
    assert of_prompts.mean == pytest.approx(effect.mean)
    assert of_prompts.high - of_prompts.low < 0.1 * wide


@pytest.mark.parametrize("test", [analysis.mcnemar, analysis.paired_bootstrap])
@pytest.mark.parametrize("scores", [([1, 0], [1]), ([], []), ([[[1]]], [[[1]]])])
def test_scores_that_are_not_pairs_are_refused(test, scores):
    with pytest.raises(UserError, match="per prompt"):
        test(*scores)


def test_a_clear_bias_is_explained_and_a_blurred_one_is_not():
    pair, bias = planted.pair(P, 3)
    state, _ = estimate(CONFIG, pair)
    rows = analysis.by_position(state, CONFIG)
    assert [row["position"] for row in rows] == [0, 1, 2]
    mean = np.abs(centred(bias, state.reference))
    for i, row in enumerate(rows):
        assert row["split_half"] == pytest.approx(1.0, abs=1e-3)
        assert row["max_abs"] == pytest.approx(mean[i].max(), abs=1e-4)
        assert row["divergence"] > 0
    blurred = analysis.by_position(estimate(CONFIG, planted.pair(P, 3, noise=6.0)[0])[0], CONFIG)
    assert all(b["explained"] < 0.3 < r["explained"] for b, r in zip(blurred, rows, strict=True))


def test_the_most_shifted_tokens_come_first():
    pair, bias = planted.pair(P, 3)
    state, _ = estimate(CONFIG, pair)
    rows = analysis.top_tokens(state, CONFIG, 1, lambda i: f"<{i}>", count=2)
    order = np.argsort(-np.asarray(bias[1]))
    assert [row["id"] for row in rows] == [*order[:2], *order[-2:]]
    assert rows[0]["token"] == f"<{order[0]}>" and rows[0]["low"] <= rows[0]["bias"]
    with pytest.raises(UserError, match=r"position=3 is out of range: give one in \[0, 2\]"):
        analysis.top_tokens(state, CONFIG, 3, str)
