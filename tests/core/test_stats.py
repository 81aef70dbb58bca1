# SPDX-License-Identifier: Apache-2.0
"""IQM, bootstrap and binomial intervals against values worked out by hand or published."""

import json

import numpy as np
import pytest

from jaxsafe.core import stats
from jaxsafe.core.checks import UserError


def test_iqm_cuts_a_quarter_at_each_end():
    assert stats.iqm([100, 1, 2, 3, 4, 5, 6, -50]) == 3.5  # 2, 3, 4, 5 stay
    assert stats.iqm([0.0, 1.0, 5.0]) == 2.0  # fewer than four: the mean
    assert stats.iqm([9, 1, 2, 3, 1000]) == pytest.approx(14 / 3)  # floor(5 / 4) = 1 cut
    np.testing.assert_allclose(stats.iqm([[1, 2], [3, 4], [5, 6], [99, 8]], axis=0), [4, 5])


def test_bootstrap_is_deterministic_and_ordered():
    scores = np.random.default_rng(0).normal(size=(10, 3))
    first = stats.stratified_bootstrap_ci(scores)
    assert first == stats.stratified_bootstrap_ci(scores)
    assert first != stats.stratified_bootstrap_ci(scores, seed=1)
    low, high = first
    assert low < stats.iqm(scores) < high
    wide = stats.stratified_bootstrap_ci(scores, level=0.99)
    assert wide[0] < low and wide[1] > high


def test_bootstrap_of_two_values_by_hand():
    # The mean of two draws of {0, 1} is 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    two = [0.0, 1.0]
    assert stats.stratified_bootstrap_ci(two, np.mean, level=0.95) == (0.0, 1.0)
    assert stats.stratified_bootstrap_ci(two, np.mean, level=0.4) == (0.5, 0.5)


def test_resampling_stays_within_each_task():
    # Seeds agree within a task, so an interval has width only if tasks were mixed.
    scores = np.tile([0.0, 10.0, 200.0], (5, 1))
    assert stats.stratified_bootstrap_ci(scores, np.mean) == (70.0, 70.0)


def test_tasks_are_resampled_independently():
    # Two tasks with opposite seeds: drawing whole rows would always give the mean 0.
    scores = np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])
    low, high = stats.stratified_bootstrap_ci(scores, np.mean)
    assert low < -0.4 and high > 0.4


def test_bootstrap_covers_a_known_mean():
    rng = np.random.default_rng(7)
    hits = 0
    for i in range(200):
        sample = rng.normal(3.0, 1.0, size=30)
        low, high = stats.stratified_bootstrap_ci(sample, np.mean, num_samples=400, seed=i)
        hits += low <= 3.0 <= high
    # The percentile interval is a little narrow at n = 30: about 93%; 3 sigma is 5.4%.
    assert 0.87 <= hits / 200 <= 0.99


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.3085),
        (10, 10, 0.6915, 1.0),
        (1, 10, 0.0025, 0.4450),
        (5, 10, 0.1871, 0.8129),
        (81, 263, 0.2527, 0.3676),  # Newcombe 1998, table I
        (15, 148, 0.0578, 0.1617),
    ],
)
def test_clopper_pearson_equals_published_values(k, n, low, high):
    np.testing.assert_allclose(stats.clopper_pearson(k, n), (low, high), atol=6e-5)


def test_clopper_pearson_obeys_the_rule_of_three():
    # No failure in n trials: the one-sided 95% bound (two-sided 90%) solves (1 - p)^n = 0.05.
    _, high = stats.clopper_pearson(0, 1000, level=0.9)
    assert high == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-9)
    assert high == pytest.approx(3 / 1000, rel=5e-3)


def test_summary_is_plain_json():
    summary = stats.summarise([1, 2, 3, 4, 5, 6, 7, 100])
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["mean"] == 16.0 and summary["iqm"] == 4.5
    assert (summary["min"], summary["max"], summary["n"]) == (1.0, 100.0, 8)
    assert summary["std"] == pytest.approx(np.std([1, 2, 3, 4, 5, 6, 7, 100], ddof=1))
    assert 1 <= summary["ci_low"] <= 4.5 <= summary["ci_high"] <= 100
    one = stats.summarise([2.0])
    assert one["std"] == 0.0 and one["ci_low"] == one["ci_high"] == 2.0
    assert stats.summarise(np.ones((4, 3)))["n"] == 4


def test_band_skips_missing_seeds():
    y = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    centre, low, high = stats.band(y)
    np.testing.assert_array_equal(centre, [2.0, 5.0, np.nan])
    np.testing.assert_array_equal(low, [1.0, 5.0, np.nan])
    np.testing.assert_array_equal(high, [3.0, 5.0, np.nan])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.summarise([]), r"shape \(0,\): give at least one score"),
        (lambda: stats.summarise([1.0, np.nan]), "1 of 2 values that are not finite"),
        (lambda: stats.summarise(np.zeros((2, 2, 2))), r"shape \(2, 2, 2\)"),
        (lambda: stats.summarise(3.0), r"shape \(\)"),
        (lambda: stats.stratified_bootstrap_ci([1.0], level=95), "level=95"),
        (lambda: stats.stratified_bootstrap_ci([1.0], num_samples=0), "num_samples=0"),
        (lambda: stats.clopper_pearson(3, 2), "k=3, n=2"),
        (lambda: stats.clopper_pearson(0, 0), "k=0, n=0"),
        (lambda: stats.clopper_pearson(-1, 2), "k=-1, n=2"),
        (lambda: stats.clopper_pearson(1, 2, level=1.0), r"level=1\.0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(UserError, match=message):
        call()
