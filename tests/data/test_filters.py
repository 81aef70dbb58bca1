# SPDX-License-Identifier: Apache-2.0
"""DSRL's filters, beside plain loops and by hand."""

import collections

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data.dsrl import Reference
from jaxsafe.data.filters import (
    Filters,
    add_noise,
    grid_filter,
    harder,
    outside,
    preprocess,
    relabel_outliers,
)
from jaxsafe.data.trajectories import KEYS, build, totals

TASK = Reference(0, 10, 8, 10, 40)


def episodes(returns, costs, length=10):
    """Episodes of these totals; the costs are ones from the start."""
    number = len(returns)
    steps = np.tile(np.arange(length), number)
    base = {key: np.zeros((number * length, 1)) for key in KEYS}
    return build(
        base
        | {
            "observations": np.random.default_rng(0).normal(2, 3, (number * length, 2)),
            "next_observations": np.random.default_rng(1).normal(0, 1, (number * length, 2)),
            "rewards": np.repeat(np.array(returns) / length, length),
            "costs": steps < np.repeat(costs, length),
            "timeouts": steps == length - 1,
        }
    )


def rng(seed=0):
    return np.random.default_rng(seed)


def counts_by_loop(x, y, bins, most, least, compat):
    """How many points each cell keeps, one point after the other."""
    cells = collections.Counter()
    for a, b in zip(x, y, strict=True):
        place = []
        for v, all_v, n in ((a, x, bins[0]), (b, y, bins[1])):
            cell = int((v - min(all_v)) // ((max(all_v) - min(all_v)) / n))
            place.append(cell if compat else min(cell, n - 1))
        cells[tuple(place)] += 1
    return sum(most if n > most else 0 if n <= least else n for n in cells.values())


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize(("most", "least"), [(5, 2), (10, 0), (1, 3)])
def test_grid_filter_equals_a_loop(compat, most, least):
    x, y = rng(1).normal(size=(2, 500))
    kept = grid_filter(rng(), x, y, (6, 8), most, least, compat)
    assert len(kept) == counts_by_loop(x, y, (6, 8), most, least, compat)
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(kept, grid_filter(rng(), x, y, (6, 8), most, least, compat))
    other = grid_filter(rng(1), x, y, (6, 8), most, least, compat)
    assert len(other) == len(kept) and (other != kept).any()


def test_grid_filter_by_hand():
    x = np.array([0, 0, 0, 0, 10, 10, 5.0])
    y = np.zeros(7)
    kept = grid_filter(rng(), x, y, (2, 3), most=2, least=1)
    assert (kept < 4).sum() == 2 and set(kept) - set(range(4)) <= {4, 5, 6}
    assert (kept >= 4).sum() == 2  # 5 and 10 share the last cell
    compat = grid_filter(rng(), x, y, (2, 3), most=2, least=1, dsrl_compat=True)
    assert set(compat) >= {4, 5} and 6 not in compat  # there 10 has a cell of its own
    assert len(grid_filter(rng(), [], [])) == 0


def test_all_points_of_a_crowded_cell_may_stay():
    stays = np.zeros(20)
    for seed in range(400):
        stays[grid_filter(rng(seed), np.zeros(20), np.zeros(20), most=5)] += 1
    assert (abs(stays / 400 - 0.25) < 0.1).all()


def test_outliers_by_hand():
    data = episodes([4, 6, 8, 9], [8, 3, 8, 4])
    got, changed = relabel_outliers(rng(), data, TASK, threshold=3, fraction=0.5)
    assert sorted(changed) == [2, 3]  # the others lack half of 10 or half of 8
    returns, costs = totals(got)
    np.testing.assert_allclose(returns, [4, 6, 12, 13.5], rtol=1e-6)
    np.testing.assert_array_equal(costs[:2], [8, 3])
    assert (costs[2:] < 3).all() and set(got.costs) <= {0, 1}
    np.testing.assert_array_equal(totals(data)[1], [8, 3, 8, 4])  # the input stays
    drawn = {totals(relabel_outliers(rng(s), data, TASK, 3, 0.5)[0])[1][2] for s in range(50)}
    assert drawn == {0, 1, 2}
    assert len(relabel_outliers(rng(), data, TASK, 3, 0.0)[1]) == 1  # at least one


def test_boxes_are_fractions_of_the_span():
    returns, costs = np.array([0, 5, 10, 10.0]), np.array([0, 4, 8, 0.0])
    box = (0.5, 1.0, 0.5, 1.0)
    np.testing.assert_array_equal(outside(returns, costs, [box]), [1, 0, 0, 1])
    np.testing.assert_array_equal(outside(returns, costs, []), [1, 1, 1, 1])
    both = [box, (0, 0.1, 0, 0.1)]
    np.testing.assert_array_equal(outside(returns, costs, both), [0, 0, 0, 1])
    wider = outside(returns, costs, [box], ((0, 16), (0, 10)))
    np.testing.assert_array_equal(wider, [1, 1, 0, 1])


def test_the_best_are_hidden():
    returns, costs = np.array([1, 5, 6, 20, 22.0]), np.array([0, 2, 3, 4, 9.0])
    np.testing.assert_array_equal(harder(returns, costs, 3, 1), [1, 0, 0, 1, 1])
    np.testing.assert_array_equal(harder(returns, costs, 3, -2), [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(harder(returns, costs, 3, -1), [1, 1, 1, 1, 0])
    assert harder(returns, costs, 3, 0).all() and harder(returns, costs, 9, -1).all()


def test_noise_has_the_scale_of_all_entries():
    data = episodes(np.ones(2000), np.zeros(2000))
    got = add_noise(rng(), data, 0.5)
    for key, std in (("observations", 3.0), ("next_observations", 1.0)):
        change = getattr(got, key) - getattr(data, key)
        assert change.std() == pytest.approx(0.5 * std, rel=0.02) and change.dtype == np.float32
    np.testing.assert_array_equal(got.rewards, data.rewards)


def test_all_filters_in_order():
    returns, costs = np.linspace(0, 10, 40), np.tile([8, 4, 2, 0], 10)
    data = episodes(returns, costs)
    same = preprocess(rng(), data, TASK, Filters())
    for a, b in zip(same, data, strict=True):
        np.testing.assert_array_equal(a, b)
    box = ((0.0, 1.0, 0.6, 10.0),)  # all that is good goes
    only = preprocess(rng(), data, TASK, Filters(inpaint=box))
    assert totals(only)[0].max() < 6
    both = Filters(inpaint=box, outliers=0.1, threshold=3, noise=0.1)
    got = preprocess(rng(), data, TASK, both)
    assert len(got.starts) == len(only.starts) + (totals(got)[0] > 6).sum()
    assert (totals(got)[0] > 6).any() and (got.observations != 0).all()
    # After the boxes, DSRL's `epsilon` would look up other episodes.
    hidden = preprocess(rng(), data, TASK, Filters(inpaint=box, epsilon=1.0, threshold=3))
    safe = totals(only)[1] <= 3
    best = totals(only)[0][safe].max()
    left = totals(hidden)
    assert left[0][left[1] <= 3].max() < best - 1
    assert (left[1] > 3).sum() == (~safe).sum()
    thin = preprocess(rng(), data, TASK, Filters(thin=True, bins=(2, 2), most=3, least=0))
    assert len(thin.starts) == 12


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(outliers=0.1), "threshold=None: outliers and epsilon need"),
        (Filters(epsilon=1.0), "threshold=None"),
        (Filters(outliers=0.9, threshold=3), "outliers=0.9 asks for 36 episodes and"),
        (Filters(outliers=0.1, threshold=0.5), "threshold=0.5 is out of range"),
        (Filters(inpaint=((0, 1, 0, 1),)), "inpaint leaves no episode"),
        (Filters(thin=True, most=50, least=50), "thin leaves no episode"),
        (Filters(noise=-1.0), "noise=-1.0 is out of range"),
        (Filters(thin=True, bins=(0, 5)), "bins=0 is out of range"),
    ],
)
def test_errors(filters, message):
    data = episodes(np.linspace(0, 10, 40), np.tile([8, 4, 2, 0], 10))
    with pytest.raises(UserError, match=message):
        preprocess(rng(), data, TASK, filters)
