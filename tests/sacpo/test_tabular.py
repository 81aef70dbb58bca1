# SPDX-License-Identifier: Apache-2.0
"""The constrained optimum to printed digits, and the stages, merges and controls beside it."""

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.sacpo import pairwise, tabular

REFERENCE = [[0.4, 0.3, 0.2, 0.1]]
REWARD = [[1.0, 0.5, 0.0, 0.0]]
SAFETY = [[-1.0, 0.0, 0.5, 1.0]]
DIGITS = {"rtol": 0, "atol": 6e-13}


@pytest.fixture(scope="module")
def four():
    return tabular.solve(REFERENCE, REWARD, SAFETY, beta=0.5, bound=0.6)


@pytest.fixture(scope="module")
def forty():
    """5 prompts x 8 responses; the bound half-way from the reward optimum to the best."""
    rng = np.random.default_rng(0)
    reference = rng.dirichlet(np.ones(8), 5)
    reward, safety = rng.normal(size=(2, 5, 8))
    weights = rng.uniform(1, 2, 5)
    free = tabular.make(reference, reward, safety, 0.1, -np.inf, weights)
    low = tabular.expected(free, tabular.tilted(free, 0.0), free.safety)
    bound = (low + float(free.weights @ free.safety.max(1))) / 2
    return tabular.solve(reference, reward, safety, 0.1, bound, weights), bound


def test_four_responses_in_closed_form(four):
    helpful = [0.725999696939, 0.200310272100, 0.049126687307, 0.024563343654]
    optimum = [0.037386122161, 0.209473160530, 0.231509190294, 0.521631527015]
    np.testing.assert_allclose(four.helpful.policy[0], helpful, **DIGITS)
    np.testing.assert_allclose(four.optimum.policy[0], optimum, **DIGITS)
    found = [
        *(four.multiplier, four.temperature, four.helpful.reward, four.helpful.safety),
        *(four.optimum.reward, four.optimum.safety, four.optimum.objective),
    ]
    known = [
        *(1.505489060611, 0.332117989484, 0.826154832989, -0.676873009631),
        *(0.142122702427, 0.6, -0.223700008603),
    ]
    np.testing.assert_allclose(found, known, **DIGITS)


def test_both_orders_reach_the_optimum(four, forty):
    for solution in (four, forty[0]):
        for order in ("reward first", "safety first"):
            assert abs(solution.outcomes[order].divergence) < 1e-8, order
            np.testing.assert_allclose(
                solution.outcomes[order].policy, solution.optimum.policy, atol=1e-5
            )


def test_the_bound_is_met_exactly(forty):
    solution, bound = forty
    assert solution.multiplier > 0
    assert solution.optimum.safety == pytest.approx(bound, abs=1e-12)
    assert solution.helpful.safety < bound


def test_the_wrong_reference_keeps_the_bound_and_loses_reward(four, forty):
    """Stage two against pi_ref, and not against stage one's policy, is another algorithm."""
    wrong = four.outcomes["wrong reference"]
    np.testing.assert_allclose(
        [wrong.divergence, wrong.safety, wrong.reward],
        [0.104234673616, 0.757040341883, 0.052187379883],
        atol=1e-7,
    )
    assert forty[0].outcomes["wrong reference"].divergence > 0.05


def test_the_wrong_temperature_breaks_the_bound(four):
    wrong = four.outcomes["wrong temperature"]
    found = [wrong.divergence, wrong.safety]
    np.testing.assert_allclose(found, [0.162909053284, 0.244484554968], atol=1e-7)


def test_geometric_merges_are_optima_of_smaller_multipliers(four, forty):
    safety = [-0.381463947829, 0.002999733326, 0.354469316698]
    reward = [0.663864873002, 0.453267621536, 0.265481612857]
    merges = [four.outcomes[f"geometric {q:g}"] for q in (0.25, 0.5, 0.75)]
    np.testing.assert_allclose([m.safety for m in merges], safety, **DIGITS)
    np.testing.assert_allclose([m.reward for m in merges], reward, **DIGITS)
    for solution in (four, forty[0]):
        for q in (0.25, 0.5, 0.75):
            merged, known = (
                solution.outcomes[f"{x} {q:g}"].policy for x in ("geometric", "optimum")
            )
            assert abs((known * np.log(known / merged)).sum(1)).max() < 1e-12


def test_mixing_probabilities_is_no_such_merge(four):
    far = []
    for q in (0.25, 0.5, 0.75):
        mixed, known = (four.outcomes[f"{x} {q:g}"].policy for x in ("mixture", "optimum"))
        far.append((known * np.log(known / mixed)).sum())
    np.testing.assert_allclose(far, [0.0432, 0.0749, 0.0520], atol=6e-5)


def test_a_constant_per_prompt_changes_no_policy(forty):
    rng = np.random.default_rng(1)
    reference = rng.dirichlet(np.ones(4), 3)
    reward, safety = rng.normal(size=(2, 3, 4))
    shift = np.array([[5.0], [-3.0], [1.0]])
    np.testing.assert_allclose(
        pairwise.preferences(reward + shift), pairwise.preferences(reward), atol=1e-14
    )
    one = tabular.make(reference, reward, safety, 0.2, 0.0)
    moved = tabular.make(reference, reward + shift, safety, 0.2, 0.0)
    np.testing.assert_allclose(tabular.tilted(one, 2.0), tabular.tilted(moved, 2.0), atol=1e-12)


def test_a_bound_that_holds_already_leaves_the_helpful_policy_alone():
    solution = tabular.solve(REFERENCE, REWARD, SAFETY, beta=0.5, bound=-0.9)
    assert solution.multiplier == 0 and solution.temperature == np.inf
    for name in ("reward first", "safety first"):
        assert solution.outcomes[name].divergence < 1e-8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bound": 1.0}, r"bound=1.0 cannot be reached: give less than 1,"),
        ({"beta": 0.0}, r"beta=0.0 is out of range"),
        ({"reference": [[0.5, 0.5, 0.5, 0.5]]}, r"row sums from 2 to 2"),
        ({"reference": [[1.0, 0.0, 0.0, 0.0]]}, r"least value 0"),
        ({"reward": [[1.0, 0.5]]}, r"reward has shape \(1, 2\), reference \(1, 4\)"),
        ({"safety": [[1.0, 0.5, np.nan, 0.0]]}, r"safety holds a value that is not finite"),
        ({"weights": [0.0]}, r"weights=\[0.\] do not fit: give 1 positive"),
    ],
)
def test_bad_tables_are_named(change, message):
    good = {"reference": REFERENCE, "reward": REWARD, "safety": SAFETY, "beta": 0.5, "bound": 0.6}
    with pytest.raises(UserError, match=message):
        tabular.solve(**good | change)
