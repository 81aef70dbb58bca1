# SPDX-License-Identifier: Apache-2.0
"""Sampled preferences follow their law, and gaps are what they are said to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.sacpo import pairwise, study, tabular
from jaxsafe.sacpo.experiment import Tables


@pytest.fixture(scope="module")
def given():
    return study.problem(Tables(prompts=3, responses=4))


def test_the_bound_is_between_what_is_free_and_what_is_best(given):
    low = tabular.expected(given, tabular.tilted(given, 0.0), given.safety)
    best = float(given.weights @ given.safety.max(1))
    assert given.bound == pytest.approx((low + best) / 2) and low < given.bound < best


def test_wins_are_drawn_from_the_reference_and_the_law(given):
    with jax.enable_x64(True):
        number = 400_000
        wins = np.asarray(
            study.sampled_wins(jax.random.key(0), given, jnp.asarray(given.reward), number)
        )
    assert wins.sum() == number and not np.trace(wins, axis1=1, axis2=2).any()
    reference = np.exp(given.log_reference)
    pairs = wins + wins.swapaxes(1, 2)
    for x in range(3):
        np.testing.assert_allclose(wins[x].sum() / number, given.weights[x], atol=4e-3)
        one = 2 * reference[x, 0] * reference[x, 1] / (1 - np.square(reference[x]).sum())
        np.testing.assert_allclose(pairs[x, 0, 1] / wins[x].sum(), one, atol=6e-3)
    law = pairwise.preferences(given.reward)
    seen = pairs > 2000
    np.testing.assert_allclose((wins / np.maximum(pairs, 1))[seen], law[seen], atol=0.04)


def test_measures_of_policies_that_are_known(given):
    at = tabular.multiplier(given)
    optimum, helpful = (tabular.tilted(given, x) for x in (at, 0.0))
    found = study.measure(given, np.stack([optimum, helpful]), at)
    for name in study.MEASURES:
        assert found[name][0] == pytest.approx(0, abs=1e-12)
    assert found["lagrangian_gap"][1] > 0 and found["violation"][1] > 0
    # The helpful policy breaks the bound, and so beats the best that keeps it.
    assert found["optimality_gap"][1] < 0

    def lagrangian(policy):
        known = tabular.outcome(given, policy, optimum)
        return known.objective + at * known.safety

    gap = lagrangian(optimum) - lagrangian(helpful)
    assert found["lagrangian_gap"][1] == pytest.approx(gap, rel=1e-9)


def test_more_pairs_bring_both_orders_nearer(given):
    rows = study.run(given, Tables(prompts=3, responses=4, pairs=(200, 20_000)), 0, 4)
    assert [(r["pairs"], r["order"]) for r in rows] == [
        (n, order) for n in (200, 20_000) for order in ("reward first", "safety first")
    ]
    for few, many in zip(rows[:2], rows[2:], strict=True):
        assert many["divergence"] < few["divergence"] / 10
        assert many["lagrangian_gap"] < few["lagrangian_gap"] / 10
        assert many["divergence_low"] <= many["divergence"] <= many["divergence_high"]
