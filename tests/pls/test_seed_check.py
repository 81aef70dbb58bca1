# SPDX-License-Identifier: Apache-2.0
"""Bounds on the seeds' costs: closed form, coverage, refusals."""

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.pls import seed_check


def test_hoeffdings_bound_has_its_closed_form():
    got = seed_check.check_seeds(np.full((1, 50), 2.0), 4.0, 0.0, 10.0, delta=0.05)
    np.testing.assert_allclose(got.upper, 2.0 + 10.0 * np.sqrt(np.log(20.0) / 100.0))
    assert got.safe.tolist() == [True]
    assert seed_check.check_seeds(np.full((1, 50), 2.0), 3.7, 0.0, 10.0).safe.tolist() == [False]


@pytest.mark.parametrize("method", seed_check.METHODS)
def test_the_bounds_hold_together_as_often_as_promised(method):
    """Rare great costs, four seeds at once: wrong in at most delta of 1,000 tries, and not mute."""
    rng = np.random.default_rng(0)
    costs = 10.0 * (rng.uniform(size=(1000, 4, 200)) < 0.03)
    checks = [seed_check.check_seeds(c, 2.0, 0.0, 10.0, 0.1, method) for c in costs]
    wrong = np.mean([(c.upper < 0.3).any() for c in checks])
    assert wrong <= 0.1
    assert np.mean([c.safe.all() for c in checks]) > 0.9


def test_bernstein_wins_where_costs_hardly_vary():
    costs = 1.0 + 0.01 * np.random.default_rng(0).uniform(size=(1, 500))
    a, b = (
        seed_check.check_seeds(costs, 5.0, 0.0, 100.0, 0.05, m).upper[0]
        for m in ("hoeffding", "bernstein")
    )
    assert b < a / 1.5


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        (np.zeros(5), "shape"),
        (np.zeros((2, 1)), "shape"),
        (np.full((1, 5), 11.0), "outside"),
        (np.full((1, 5), np.nan), "outside"),
    ],
)
def test_costs_that_do_not_fit_are_refused(costs, words):
    with pytest.raises(UserError, match=words):
        seed_check.check_seeds(costs, 5.0, 0.0, 10.0)
