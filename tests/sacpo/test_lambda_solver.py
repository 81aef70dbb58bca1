# SPDX-License-Identifier: Apache-2.0
"""Lambda from samples against lambda in closed form, and when the samples do not tell."""

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.sacpo import lambda_solver, tabular

BETA = 0.5


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    reference = rng.dirichlet(2 * np.ones(6), 40)
    reward, safety = rng.normal(size=(2, 40, 6))
    return tabular.make(reference, reward, safety, BETA, 0.0)


def whole(problem):
    """Scores of so many samples that each response comes in proportion to the reference."""
    counts = np.round(np.exp(problem.log_reference) * 20_000).astype(int)
    picks = [np.repeat(np.arange(6), n) for n in counts]
    size = min(map(len, picks))
    rng = np.random.default_rng(1)
    picks = np.stack([rng.permutation(p)[:size] for p in picks])
    return [np.take_along_axis(x, picks, 1) for x in (problem.reward, problem.safety)]


def test_expectations_are_those_of_the_tilted_policy(problem):
    r, g = whole(problem)
    for at in (0.0, 0.7, 3.0):
        point = lambda_solver.expect(r, g, BETA, at)
        known = tabular.tilted(problem, at)
        assert point.safety == pytest.approx(
            tabular.expected(problem, known, problem.safety), abs=3e-3
        )
        assert point.reward == pytest.approx(
            tabular.expected(problem, known, problem.reward), abs=3e-3
        )


def test_the_multiplier_is_the_closed_forms(problem):
    level = 0.6
    choice = lambda_solver.choose(*whole(problem), BETA, level)
    known = tabular.multiplier(problem._replace(bound=level))
    assert choice.multiplier == pytest.approx(known, rel=0.02)
    assert choice.temperature == pytest.approx(BETA / choice.multiplier)
    assert choice.point.safety == pytest.approx(level, abs=1e-9)


def test_constants_per_prompt_do_not_matter_where_there_are_labels(problem):
    r, g = (x[:, :500] for x in whole(problem))
    labels = (g > 0.2).astype(float)
    shift = np.linspace(-4, 4, 40)[:, None]
    one = lambda_solver.choose(r, g, BETA, 0.8, labels)
    moved = lambda_solver.choose(r + shift, g - shift, BETA, 0.8, labels)
    assert one.multiplier == pytest.approx(moved.multiplier, rel=1e-6)
    assert one.point.safety >= 0.8 and one.point.standard_error > 0


def test_a_level_that_holds_already_needs_no_second_stage(problem):
    choice = lambda_solver.choose(*whole(problem), BETA, -10.0)
    assert choice.multiplier == 0 and choice.temperature == np.inf


def test_few_samples_are_refused(problem):
    r, g = (x[:, :4] for x in whole(problem))
    best = g.max(1).mean()
    with pytest.raises(UserError, match=r"effective samples per prompt of 4, fewer than least"):
        lambda_solver.choose(r, g, BETA, best - 0.01)
    with pytest.raises(UserError, match=r"level=9 is not reached up to lambda=100"):
        lambda_solver.choose(r, g, BETA, 9.0)


def test_implicit_scores_of_two_stages_give_their_weights_back(problem):
    """r^ and g^ of exact stages weigh the reference's samples as the true scores do."""
    at = 1.3
    helpful, both = (tabular.tilted(problem, x) for x in (0.0, at))
    r = lambda_solver.implicit_scores(helpful, problem.log_reference, BETA)
    g = lambda_solver.implicit_scores(both, helpful, BETA / at)
    for lam in (0.0, 0.5, 2.0):
        # Every response once, so that weights are tilts of the uniform law.
        found = lambda_solver.expect(r, g, BETA, lam, problem.safety)
        known = lambda_solver.expect(problem.reward, problem.safety, BETA, lam, problem.safety)
        assert found.safety == pytest.approx(known.safety, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"safety": np.zeros((2, 3))}, r"safety has shape \(2, 3\), reward \(2, 2\)"),
        ({"reward": np.full((2, 2), np.inf)}, "reward holds a value that is not finite"),
        ({"beta": 0.0}, "beta=0.0 is out of range"),
    ],
)
def test_bad_scores_are_named(change, message):
    good = {"reward": np.zeros((2, 2)), "safety": np.zeros((2, 2)), "beta": 1.0, "level": 0.0}
    with pytest.raises(UserError, match=message):
        lambda_solver.choose(**good | change)
