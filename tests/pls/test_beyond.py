# SPDX-License-Identifier: Apache-2.0
"""What goes beyond the paper: thresholds, constraints, batches, noise, lengthscales, alarms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.core import checkpoint
from jaxsafe.core.checks import UserError
from jaxsafe.pls import bounds
from tests.core.test_checkpoint import assert_same
from tests.pls.test_search import play
from tests.pls.worlds import LENGTHSCALE, World, smooth

SMALL = pls.SearchConfig(explore_steps=6, reward_steps=6)


def test_one_cost_model_serves_many_thresholds():
    """Each threshold's safe set is the one a search of its own would have, and they are nested."""
    world = World()
    levels = np.array([-0.5, 0.25, 1.0])
    config = dataclasses.replace(SMALL, alpha="constant", alpha_value=2.0)
    picks, _, state, _ = play(world, config)
    points, safe = pls.serve(state, levels[:, None], config)
    assert safe.shape == (3, 200) and points.shape == (3,)
    for i, b in enumerate(levels):
        bound = np.asarray(state.upper[0]) <= b
        np.testing.assert_array_equal(safe[i], bound | world.seed)
        assert safe[i, points[i]]
        own = pls.for_thresholds(world.problem(config), [[b]])
        alone = pls.init(jax.random.key(0), own, config)
        for step, point in enumerate(picks):
            returns = jnp.asarray(world.returns(step, np.array([point]))[:, None], float)
            batch = pls.Evaluation(jnp.array([point]), returns)
            alone, _ = jax.jit(pls.tell, static_argnums=2)(alone, batch, config)
        np.testing.assert_array_equal(safe[i], alone.safe[0])
        assert points[i] == pls.recommend(alone, config)[0]
    assert (np.diff(np.asarray(safe).sum(1)) > 0).all()
    np.testing.assert_array_equal(safe[-1], state.safe[0])
    assert points[-1] == pls.recommend(state, config)[0]
    mapped = jax.vmap(lambda b: pls.serve(state, b[None, None], config)[1][0])(jnp.asarray(levels))
    np.testing.assert_array_equal(mapped, safe)


def test_thresholds_take_turns_and_share_what_is_seen():
    world = World()
    problem = world.problem(SMALL, thresholds=[0.25, 1.0])
    ask, tell = jax.jit(pls.ask, static_argnums=1), jax.jit(pls.tell, static_argnums=2)
    state = pls.init(jax.random.key(0), problem, SMALL)
    for step in range(6):
        query, state = ask(state, SMALL)
        assert query.threshold == step % 2 and state.safe[step % 2, query.point[0]]
        returns = world.returns(step, np.asarray(query.point))[:, None]
        state, _ = tell(state, pls.Evaluation(query.point, jnp.asarray(returns, float)), SMALL)
    assert state.posterior.count == 6
    assert not (state.safe[0] & ~state.safe[1]).any()
    assert pls.recommend(state, SMALL).shape == (2,)


def test_several_constraints_must_all_hold():
    world = World()
    other = 1.0 + smooth(world.grid, 14, 1)
    other -= other[0, np.argmax(world.seed)]  # safe on the seed by one
    world.truth = np.concatenate([world.truth, other])
    world.noise = np.concatenate([world.noise, world.noise[:, :1]], axis=1)
    problem = world.problem(SMALL, thresholds=[[1.0, 1.0]], lengthscale=LENGTHSCALE)
    np.testing.assert_allclose(
        problem.alpha[0], pls.srinivas_alpha(200, np.array([0.1, 0.05, 0.05]), 1), rtol=1e-6
    )
    bold = dataclasses.replace(SMALL, alpha="constant", alpha_value=2.0)
    problem = world.problem(bold, thresholds=[[1.0, 1.0]])
    picks, sets, state, _ = play(world, bold, problem)
    assert (world.truth[1:, picks] <= 1.0).all()
    both = (np.asarray(state.upper) <= 1.0).all(0) | world.seed
    np.testing.assert_array_equal(sets[-1], both)
    # Each of them leaves out something the other does not.
    either = (np.asarray(state.upper) <= 1.0) | world.seed
    assert 1 < both.sum() < either.sum(1).min()
    assert state.posterior.mean.shape == (3, 1, 200)
    alone = dataclasses.replace(SMALL, split_delta="none")
    first = pls.make_problem(alone, world.grid, world.seed, [[1.0, 1.0]], lengthscale=LENGTHSCALE)
    np.testing.assert_allclose(first.alpha[0], pls.srinivas_alpha(200, 0.1, 1), rtol=1e-6)


def test_a_batch_is_safe_and_spread_out():
    world = World()
    world.seed[world.truth[1] < 0.8] = True
    config = dataclasses.replace(SMALL, batch=4, explore_steps=2, reward_steps=1, expander="none")
    problem = world.problem(config)
    state = pls.init(jax.random.key(0), problem, config)
    query, _ = pls.ask(state, config)
    assert len(set(np.asarray(query.point).tolist())) == 4
    assert state.safe[0, query.point].all()
    picks, _, last, _ = play(world, config, problem)
    assert len(picks) == 12 and last.posterior.count == 12
    assert (world.truth[1, picks] <= 1.0).all()


def test_a_batch_told_at_once_is_told_one_by_one():
    world = World()
    config = dataclasses.replace(SMALL, batch=3, explore_steps=4, reward_steps=0)
    points = jnp.array([3, 50, 3])
    returns = jnp.asarray(np.random.default_rng(0).normal(size=(3, 1, 2)), float)
    state = pls.init(jax.random.key(0), world.problem(config), config)
    together, _ = pls.tell(state, pls.Evaluation(points, returns), config)
    order = jnp.array([2, 0, 1])
    turned, _ = pls.tell(state, pls.Evaluation(points[order], returns[order]), config)
    np.testing.assert_allclose(together.posterior.mean, turned.posterior.mean, atol=1e-5)
    np.testing.assert_array_equal(together.safe, turned.safe)


def test_the_noise_of_a_mean_is_an_episodes_by_their_number():
    world = World()
    returns = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)) * [1.0, 3.0], float)
    fixed = dataclasses.replace(SMALL, noise="fixed")
    problem = world.problem(fixed, episode_sd=[0.5, 2.0])
    np.testing.assert_allclose(
        bounds.evaluation_noise(returns, problem, fixed), [0.25 / 20, 4.0 / 20], rtol=1e-6
    )
    measured = dataclasses.replace(SMALL, noise="episodes", noise_weight=5.0)
    expected = (5 * np.array([0.25, 4.0]) + 19 * np.var(returns, axis=0, ddof=1)) / 24 / 20
    got = bounds.evaluation_noise(returns, problem, measured)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # Episodes without any spread leave the model's share, not certainty.
    flat = bounds.evaluation_noise(jnp.zeros((20, 2)), problem, measured)
    np.testing.assert_allclose(flat, 5 * np.array([0.25, 4.0]) / 24 / 20, rtol=1e-5)
    one = bounds.evaluation_noise(returns[:1], problem, measured)
    np.testing.assert_allclose(one, [0.25, 4.0], rtol=1e-6)


def test_bounds_over_lengthscales_are_the_widest_of_each():
    world, points = World(), [5, 60, 120]

    def upper(factors):
        config = dataclasses.replace(SMALL, lengthscale_factors=factors)
        state = pls.init(jax.random.key(0), world.problem(config), config)
        for step, point in enumerate(points):
            returns = jnp.asarray(world.returns(step, np.array([point]))[:, None], float)
            state, _ = pls.tell(state, pls.Evaluation(jnp.array([point]), returns), config)
        low, high = bounds.confidence(state.posterior, state.problem.alpha[3])
        return np.asarray(low), np.asarray(high)

    (low_a, high_a), (low_b, high_b), (low, high) = map(upper, [(0.5,), (1.0,), (0.5, 1.0)])
    np.testing.assert_allclose(high, np.maximum(high_a, high_b), atol=1e-5)
    np.testing.assert_allclose(low, np.minimum(low_a, low_b), atol=1e-5)
    assert (high_a > high_b + 0.1).any() and (high_b > high_a).any()


def test_a_margin_makes_the_prior_more_pessimistic():
    world = World()
    plain, cautious = (world.problem(SMALL, margin=m) for m in (0.0, 1.0))
    np.testing.assert_allclose(cautious.prior_mean[1] - plain.prior_mean[1], 1.0, rtol=1e-6)
    targets = world.problem(SMALL, cost_mean=world.grid[:, 1] * 5)
    np.testing.assert_allclose(targets.prior_mean[1], world.grid[:, 1] * 5, rtol=1e-6)


@pytest.mark.parametrize("retreat", [True, False])
def test_values_that_cannot_be_raise_an_alarm(retreat):
    """Neighbours so different that the bounds of before and after exclude each other."""
    world = World(noise_sd=1e-2)
    config = dataclasses.replace(
        SMALL, alpha="constant", alpha_value=2.0, retreat=retreat, explore_steps=4, reward_steps=0
    )
    seed = int(np.argmax(world.seed))
    near = int(np.argsort(((world.grid - world.grid[seed]) ** 2).sum(-1))[1])
    state = pls.init(jax.random.key(0), world.problem(config), config)
    for point, cost, alarms in [(seed, 0.0, 0), (near, 0.0, 0), (near, 9.0, 1), (near, 9.0, 2)]:
        state, metrics = pls.tell(
            state, pls.Evaluation(jnp.array([point]), jnp.array([[[0.0, cost]]])), config
        )
        assert int(metrics["search/alarms"]) == alarms == int(state.alarms)
        assert (metrics["search/empty"] > 0) == (alarms > 0)
    assert metrics["search/surprise"] > 5.0
    assert not state.safe[0, near] and state.safe[0, seed]
    assert (state.safe[0].sum() == 1) or not retreat


def test_a_seed_that_turns_out_unsafe_raises_an_alarm():
    world = World()
    state = pls.init(jax.random.key(0), world.problem(SMALL), SMALL)
    seed = jnp.array([int(np.argmax(world.seed))])
    state, metrics = pls.tell(state, pls.Evaluation(seed, jnp.array([[[0.0, 4.0]]])), SMALL)
    assert metrics["search/alarms"] == 1 and metrics["search/empty"] == 1


def test_the_state_is_finite_and_restores_bit_for_bit(tmp_path):
    world = World()
    _, _, state, _ = play(world, SMALL)
    checkpoint.save(tmp_path, 12, state)
    like = pls.init(jax.random.key(5), world.problem(SMALL), SMALL)
    assert_same(checkpoint.restore(tmp_path, 12, like), state)


BAD = [
    ({"grid": np.zeros(4)}, "grid has shape"),
    ({"seed": []}, "seed has shape"),
    ({"seed": [200]}, "seed holds"),
    ({"seed": np.ones(3, bool)}, "seed has shape"),
    ({"lengthscale": 0.0}, "lengthscale holds"),
    ({"lengthscale": [1.0, 2.0, 3.0]}, "lengthscale has shape"),
    ({"episode_sd": 0.0}, "episode_var holds"),
    ({"cost_sd": np.nan}, "holds nan"),
    ({"cost_mean": -9.0}, "unseen points safe"),
    ({"thresholds": np.inf}, "thresholds holds"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[words for _, words in BAD])
def test_a_problem_that_does_not_fit_is_refused(change, words):
    world = World()
    arguments = {"grid": world.grid, "seed": world.seed, "thresholds": 1.0, "lengthscale": 0.3}
    with pytest.raises(UserError, match=words):
        pls.make_problem(SMALL, **(arguments | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"explore_steps": 0, "reward_steps": 0}, "nothing to do"),
        ({"alpha": "constant"}, "no value"),
        ({"alpha_value": 2.0}, "not used"),
        ({"lengthscale_factors": ()}, "empty"),
        ({"expander": "gps"}, "Did you mean 'gp'"),
        ({"delta": 0.0}, "delta"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change, words):
    with pytest.raises(UserError, match=words):
        pls.validate(dataclasses.replace(SMALL, **change))


def test_an_alpha_to_be_calibrated_must_be():
    config = dataclasses.replace(SMALL, alpha="calibrated")
    with pytest.raises(UserError, match="calibrate"):
        pls.init(jax.random.key(0), World().problem(config), config)
