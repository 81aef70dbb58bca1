# SPDX-License-Identifier: Apache-2.0
"""Which point next: expanders against a posterior really told the lucky value, and by full sets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.pls import acquisition, bounds
from tests.pls.test_literal import expanders, view_of
from tests.pls.worlds import LENGTHSCALE, World, smooth

SMALL = pls.SearchConfig(explore_steps=6, reward_steps=6)


def told(config, points=(5, 60, 120, 60)):
    """A problem of two constraints and a state that knows a few points."""
    world = World()
    world.truth = np.concatenate([world.truth, 1.0 + smooth(world.grid, 9, 1)])
    problem = world.problem(
        config,
        thresholds=[[1.0, 1.5]],
        lengthscale=[[LENGTHSCALE] * 2, [0.2, 0.4], [0.3, 0.25]],
        cost_sd=[1.0, 2.0],
        episode_sd=[0.1, 0.2, 0.3],
    )
    state = pls.init(jax.random.key(0), problem, config)
    for point in points:
        returns = jnp.asarray(world.truth[:, [point]].T[:, None] - [0.0, 1.5, 1.0], float)
        state, _ = pls.tell(state, pls.Evaluation(jnp.array([point]), returns), config)
    return state


def view(state, config):
    problem = state.problem
    lower, upper = bounds.intervals(
        state.lower, state.upper, problem.thresholds[0], problem, config
    )
    alpha = problem.alpha[state.step]
    return acquisition.View(
        problem, state.posterior, alpha, problem.thresholds[0], lower, upper, state.safe[0]
    )


@pytest.mark.parametrize("intersect", [True, False])
def test_an_expander_is_a_point_whose_lucky_value_makes_another_safe(intersect):
    """Two constraints, two lengthscales each: the fake observation is told, at each point."""
    config = dataclasses.replace(
        SMALL,
        intersect=intersect,
        alpha="constant",
        alpha_value=2.0,
        lengthscale_factors=(0.7, 1.0),
    )
    with jax.enable_x64(True):
        state = told(config)
        seen = view(state, config)
        problem, expected = state.problem, []
        for point in range(200):
            # A mean per model, so that each is told the one lower bound of all; the reward's own.
            lucky = jnp.broadcast_to(seen.lower[:, point][:, None], (2, 2))
            value = jnp.concatenate([state.posterior.mean[:1, :, point], lucky])
            after = bounds.observe(
                state.posterior, problem, point, value, problem.episode_var, config
            )
            _, upper = bounds.confidence(after, seen.alpha)
            upper = jnp.minimum(upper[1:], seen.upper) if intersect else upper[1:]
            safe = (upper <= problem.thresholds[0][:, None]).all(0)
            expected.append(bool((safe & ~seen.safe).any()))
        expected = np.array(expected) & np.asarray(seen.safe)
        np.testing.assert_array_equal(expanders(seen, config), expected)
    assert 0 < expected.sum() < seen.safe.sum()


def first_by_sets(expands, score, least):
    order = np.argsort(-score, kind="stable")
    good = [i for i in order if score[i] > least and expands[i]]
    return (True, int(good[0])) if good else (False, None)


@pytest.mark.parametrize("lipschitz", [6.0, 12.0, 20.0])
def test_the_first_expander_is_that_of_the_full_set(lipschitz):
    """Alone and side by side, where some searches want none and some have to try many points."""
    config = dataclasses.replace(SMALL, expander="lipschitz", lipschitz=lipschitz)
    world = World()
    seen = view_of(config, world.truth[1] - 1.0, world.seed)
    expands = expanders(seen, config)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(8, 200)).astype(np.float32)
    scores[2] = -np.inf  # none wanted
    scores[3] -= 5.0 * expands  # expanders come last
    scores[4] = np.where(expands, -np.inf, scores[4])  # none to be found
    scores[5] = np.round(scores[5])  # ties
    scores[:, ~np.asarray(seen.safe)] = -np.inf
    least = np.float32([-9, -9, -9, -9, -9, -9, 1, 9])

    def first(seen, score, least):
        return acquisition.first_expander(seen, score, least, config)

    expected = [first_by_sets(expands, s, b) for s, b in zip(scores, least, strict=True)]
    alone = [jax.jit(first)(seen, s, b) for s, b in zip(scores, least, strict=True)]
    one_view = jax.jit(jax.vmap(first, in_axes=(None, 0, 0)))(seen, scores, least)
    views = jax.tree.map(lambda x: jnp.stack([x] * 8), seen)
    own_views = jax.jit(jax.vmap(first))(views, scores, least)
    twice = jax.vmap(jax.vmap(first, in_axes=(None, 0, 0)), in_axes=(None, 0, 0))
    nested = twice(seen, scores.reshape(2, 4, 200), least.reshape(2, 4))
    nested = jax.tree.map(lambda x: x.reshape(8), nested)
    for got in (list(zip(*x, strict=True)) for x in (one_view, own_views, nested)):
        alone += got
    for (found, index), (exists, place) in zip(alone, expected * 4, strict=True):
        assert bool(found) == exists
        assert not exists or int(index) == place
    tries = [
        int((s > s[place]).sum()) for s, (ok, place) in zip(scores, expected, strict=True) if ok
    ]
    assert len(tries) >= 4
    assert (max(tries) > 2 * acquisition._BLOCK) == (lipschitz > 6.0)


def test_the_greatest_score_is_numpys():
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=(50, 30))).astype(np.float32)
    scores[0], scores[1] = -np.inf, 0.0
    scores[2, 7] = np.inf
    got = jax.vmap(acquisition.argmax)(scores)
    np.testing.assert_array_equal(got, scores.argmax(1))
    assert got.dtype == jnp.int32


def test_intervals_know_the_floor_and_the_threshold_of_seeds_alone():
    """Trap 2 mended: [floor, b] on seeds, whatever the model says elsewhere."""
    world = World()
    problem = world.problem(SMALL, floor=0.25)
    low, high = jnp.full((1, 200), -5.0), jnp.full((1, 200), 5.0)
    lower, upper = bounds.intervals(low, high, problem.thresholds[0], problem, SMALL)
    np.testing.assert_array_equal(lower[0], np.where(world.seed, 0.25, -5.0))
    np.testing.assert_array_equal(upper[0], np.where(world.seed, 1.0, 5.0))
    below = bounds.intervals(low, high - 5.5, problem.thresholds[0], problem, SMALL)
    assert (below[0] <= below[1]).all() and (below[1] == -0.5).all()
    loose = dataclasses.replace(SMALL, intersect=False)
    same = bounds.intervals(low, high, problem.thresholds[0], problem, loose)
    assert same[0] is low and same[1] is high


@pytest.mark.parametrize(
    ("split", "reward", "cost"),
    [("constraints", 0.12, 0.06), ("all", 0.04, 0.04), ("none", 0.12, 0.12)],
)
def test_delta_is_shared_out_as_asked(split, reward, cost):
    """Trap 6: a claim on both needs a share for each; two constraints, the third step."""
    config = dataclasses.replace(SMALL, delta=0.12, split_delta=split)
    table = pls.alpha_table(config, 200, 2)
    assert table.shape == (13, 3)
    expected = [np.sqrt(2 * np.log(200 * 9 * np.pi**2 / (6 * d))) for d in (reward, cost, cost)]
    np.testing.assert_allclose(table[2], expected)
