# SPDX-License-Identifier: Apache-2.0
"""The places where the paper's text cannot work as printed: each switch shows how it fails."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.core.checks import UserError
from jaxsafe.pls import acquisition, bounds, guarantee
from tests.pls.worlds import World

from .test_guarantee import outcomes

BASE = pls.SearchConfig(explore_steps=3, reward_steps=3)
FINE = guarantee.Study(side=50)


def start(config):
    problem = guarantee.make(FINE, config)
    return pls.init(jax.random.key(0), problem, config)


def test_without_a_lipschitz_constant_one_safe_point_is_2500():
    """Trap 1: with L = 0 membership does not depend on the point."""
    literal = dataclasses.replace(BASE, safe_rule="lipschitz", lipschitz=0.0)
    assert start(literal).safe.sum() == 2500
    assert start(BASE).safe.sum() == 1


def test_with_a_lipschitz_constant_the_printed_rule_works():
    """It is the ball around each safe point, of radius (b - u) / L, by brute force."""
    config = dataclasses.replace(BASE, safe_rule="lipschitz", lipschitz=2.0)
    world = World()
    problem = world.problem(config)
    upper = jnp.asarray(world.truth[1:], float)
    before = jnp.asarray(world.truth[1] < 0.5)
    got = bounds.safe_set(upper, problem.thresholds[0], before, problem, config)
    gaps = np.sqrt(((world.grid[:, None] - world.grid[None]) ** 2).sum(-1))
    reach = world.truth[1][:, None] + 2.0 * gaps <= 1.0
    expected = (reach & np.asarray(before)[:, None]).any(0) | world.seed
    np.testing.assert_array_equal(got, expected)
    assert before.sum() < got.sum() < 200


def test_intervals_up_to_b_everywhere_call_everything_safe():
    """Trap 2: an upper bound that starts at b is never above b."""
    literal = dataclasses.replace(BASE, initial_intervals="everywhere")
    assert start(literal).safe.sum() == 2500


def view_of(config, truth, seed):
    """A view in which the cost is known but for half a unit either side."""
    problem = World().problem(config)
    problem = problem.replace(seed=jnp.asarray(seed))
    cost = jnp.asarray(truth, float)[None]
    upper = cost + 0.5
    safe = (upper[0] <= 1.0) | problem.seed
    posterior = bounds.prior(problem, config.capacity)
    alpha, b = problem.alpha[0], problem.thresholds[0]
    return acquisition.View(problem, posterior, alpha, b, cost - 0.5, upper, safe)


def expanders(view, config):
    ask = jax.vmap(lambda i: acquisition.is_expander(view, i, config))
    return np.asarray(ask(jnp.arange(200))) & np.asarray(view.safe)


def test_the_printed_sign_makes_every_safe_point_an_expander():
    """Trap 3: minus L d is smaller the farther a point is; plus L d asks for nearness."""
    world = World()
    working = dataclasses.replace(BASE, expander="lipschitz", lipschitz=6.0)
    printed = dataclasses.replace(BASE, expander="literal", lipschitz=6.0)
    view = view_of(working, world.truth[1], world.seed)
    gaps = np.sqrt(((world.grid[:, None] - world.grid[None]) ** 2).sum(-1))
    low, safe = np.asarray(view.lower[0]), np.asarray(view.safe)
    brute = ((low[:, None] + 6.0 * gaps <= 1.0) & ~safe).any(1) & safe
    got = expanders(view, working)
    np.testing.assert_array_equal(got, brute)
    assert 0 < got.sum() < safe.sum() < 200
    np.testing.assert_array_equal(expanders(view, printed), safe)
    # And with L = 0 either sign does.
    zero = dataclasses.replace(BASE, expander="literal", lipschitz=0.0)
    np.testing.assert_array_equal(expanders(view, zero), safe)


def test_a_prior_of_mean_0_and_variance_1_calls_a_cost_of_20_safe():
    """Trap 4: u = 4.6096 < 20 on 2,500 points."""
    grid = np.stack(np.meshgrid(np.arange(50.0), np.arange(50.0)), -1).reshape(-1, 2)
    arguments = {"lengthscale": [50.0, 5.0], "cost_mean": 0.0}
    with pytest.raises(UserError, match=r"calls 2499 unseen points safe.*4\.6096.*20"):
        pls.make_problem(BASE, grid, [0], 20.0, **arguments)
    config = dataclasses.replace(BASE, check_prior=False)
    problem = pls.make_problem(config, grid, [0], 20.0, **arguments)
    assert pls.init(jax.random.key(0), problem, config).safe.all()
    fixed = pls.make_problem(BASE, grid, [0], 20.0, lengthscale=[50.0, 5.0], cost_sd=10.0)
    assert pls.init(jax.random.key(0), fixed, BASE).safe.sum() == 1


def test_the_last_point_is_not_what_to_deploy():
    """Trap 8: UCB's last point may be a look at something unknown."""
    small = guarantee.Study(side=15)
    config = dataclasses.replace(BASE, explore_steps=5, reward_steps=5, expander="none")
    printed = dataclasses.replace(config, recommend="last")
    ours, theirs = (outcomes(c, small, 40)[0] for c in (config, printed))
    np.testing.assert_array_equal(ours.unsafe, theirs.unsafe)
    assert np.mean(ours.regret[:, -1]) < np.mean(theirs.regret[:, -1])


def test_the_text_taken_literally_violates_on_nearly_every_function():
    small = guarantee.Study(side=15)
    config = dataclasses.replace(BASE, explore_steps=5, reward_steps=5)
    literal = outcomes(pls.paper_compat(config), small, 40)[0]
    ours = outcomes(config, small, 40)[0]
    assert literal.unsafe.any(1).mean() > 0.9
    assert not ours.unsafe.any()


@pytest.mark.parametrize(
    ("size", "delta", "step", "alpha"),
    [
        (2500, 0.1, 1, 4.6096),
        (2500, 0.1, 5, 5.2618),
        (2500, 0.1, 10, 5.5190),
        (2500, 0.1, 20, 5.7647),
        (2500, 0.1, 40, 6.0003),
        (2500, 0.05, 1, 4.7576),
        (625, 0.1, 1, 4.2984),
        (625, 0.1, 20, 5.5190),
    ],
)
def test_alpha_has_the_papers_values(size, delta, step, alpha):
    assert abs(pls.srinivas_alpha(size, delta, step) - alpha) < 5e-5


@pytest.mark.parametrize("noise_var", [1e-4, 0.25])
@pytest.mark.parametrize(("alpha", "radius"), [(4.6096, 0.2144), (3.0, 0.3246), (2.0, 0.4724)])
def test_the_safe_radius_around_one_seed_has_its_closed_form(alpha, radius, noise_var):
    """d <= l sqrt(ln(rho (rho + q^2) / q^2)), with q = alpha s / (b - y): by a fine grid."""
    config = pls.SearchConfig(
        explore_steps=0, reward_steps=2, alpha="constant", alpha_value=alpha, expander="none"
    )
    lengthscale = 0.7
    line = np.linspace(0.0, 1.0, 2001)[:, None]
    problem = pls.make_problem(
        config, line, [0], 3.0, lengthscale=lengthscale, episode_sd=noise_var**0.5, cost_sd=2.0
    )
    state = pls.init(jax.random.key(0), problem, config)
    batch = pls.Evaluation(jnp.array([0]), jnp.array([[[0.0, 1.0]]]))
    state, _ = pls.tell(state, batch, config)
    reached = line[np.flatnonzero(np.asarray(state.safe[0]))[-1], 0]
    q, rho = alpha * 2.0 / 2.0, 4.0 / (4.0 + noise_var)
    # Where the logarithm is negative the noise leaves the seed alone.
    expected = lengthscale * math.sqrt(max(math.log(rho * (rho + q**2) / q**2), 0.0))
    assert abs(reached - expected) < 1e-3
    if noise_var < 1e-3:
        assert abs(expected - radius * lengthscale) < 1e-3
    else:
        assert (expected == 0.0) == (alpha > 4.0)
