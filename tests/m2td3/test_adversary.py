# SPDX-License-Identifier: Apache-2.0
"""Candidates: in the set, on the simplex, restarted exactly where they should be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsafe.m2td3 import adversary
from jaxsafe.m2td3.draws import draw

TX = optax.adam(0.1)


@pytest.fixture(scope="module")
def candidates(config, world):
    fresh = adversary.init(jax.random.key(0), config, world, TX)
    moved = fresh
    for k in range(config.num_candidates):  # give every Adam state some history
        moved = adversary.descend(moved, jnp.int32(k), jnp.array([1.0, -1.0]), world, TX)
    return moved


def test_candidates_start_uniform_in_the_set(config, world):
    keys = jax.random.split(jax.random.key(1), 2000)
    many = jax.vmap(lambda k: adversary.init(k, config, world, TX))(keys)
    omega = np.asarray(jax.vmap(lambda c: adversary.omegas(c, world))(many)).reshape(-1, 2)
    assert np.all(np.abs(omega) <= 1.0)
    np.testing.assert_allclose(omega.mean(0), 0.0, atol=0.03)
    np.testing.assert_allclose(omega.std(0), 1 / np.sqrt(3), atol=0.02)
    np.testing.assert_allclose(many.probs, 1 / config.num_candidates)


def test_only_the_worst_candidate_moves_and_it_moves_downhill(candidates, world):
    gradient = jnp.array([2.0, -0.5])
    after = adversary.descend(candidates, jnp.int32(2), gradient, world, TX)
    others = np.array([0, 1, 3, 4])
    for before_leaf, after_leaf in zip(
        jax.tree.leaves((candidates.z, candidates.opt_state)),
        jax.tree.leaves((after.z, after.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(before_leaf[others], after_leaf[others])
        assert not np.array_equal(before_leaf[2], after_leaf[2])
    # A fresh Adam step has the size of the learning rate, against the gradient's sign.
    fresh = adversary.init(jax.random.key(3), _five(), world, TX)
    step = adversary.descend(fresh, jnp.int32(0), gradient, world, TX).z[0] - fresh.z[0]
    np.testing.assert_allclose(step, [-0.1, 0.1], rtol=1e-3)


def _five():
    from jaxsafe.m2td3 import Config

    return Config(num_candidates=5)


@settings(deadline=None, max_examples=50)
@given(
    probs=st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5).filter(lambda p: sum(p) > 0.01),
    worst=st.integers(0, 4),
    horizon=st.floats(1.0, 1e6),
)
def test_probabilities_stay_on_the_simplex(probs, worst, horizon):
    probs = np.asarray(probs, np.float32) / np.float32(sum(probs))
    after = np.asarray(adversary.reinforce(jnp.asarray(probs), jnp.int32(worst), horizon))
    assert np.all(after >= 0) and after.sum() == pytest.approx(1.0, abs=1e-5)
    assert after[worst] >= probs[worst] - 1e-6


def test_an_unselected_probability_falls_by_the_published_factor():
    """Papers page, section 2: len/2 updates with c = 1/len shrink it by about exp(-0.5)."""
    probs = jnp.full((5,), 0.2)
    for _ in range(500):
        probs = adversary.reinforce(probs, jnp.int32(0), 1000.0)
    assert probs[1] == pytest.approx(0.2 * 0.607, rel=2e-3)


def test_crowding_marks_the_first_of_a_pair():
    omega = jnp.array([[0.0, 0.0], [0.5, 0.5], [0.04, 0.05], [0.5, 0.55], [1.0, 1.0]])
    marks = adversary.close_to_later(omega, 0.1)
    np.testing.assert_array_equal(marks, [True, True, False, False, False])


def test_restart_touches_exactly_the_marked_rows(candidates, config, world):
    spread = jnp.array([[-2.0, -2.0], [2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [0.0, 0.0]])
    probs = jnp.array([0.30, 0.04, 0.30, 0.01, 0.35])
    before = candidates.replace(z=spread, probs=probs)
    after, count = adversary.restart(jax.random.key(7), before, config, world, TX)
    assert count == 2
    kept, restarted = np.array([0, 2, 4]), np.array([1, 3])
    np.testing.assert_array_equal(after.z[kept], before.z[kept])
    assert not np.any(np.all(after.z[restarted] == before.z[restarted], axis=1))
    for old, new in zip(
        jax.tree.leaves(before.opt_state), jax.tree.leaves(after.opt_state), strict=True
    ):
        np.testing.assert_array_equal(new[kept], old[kept])
        np.testing.assert_array_equal(new[restarted], 0)  # a fresh Adam state is all zeros
    # p_k <- (sum of the others) / (K - 1), k after k, then renormalised.
    expected = np.array([0.30, 0.04, 0.30, 0.01, 0.35])
    for k in restarted:
        expected[k] = (expected.sum() - expected[k]) / 4
    np.testing.assert_allclose(after.probs, expected / expected.sum(), rtol=1e-5)


def test_distance_is_in_physical_units_where_omega_is(candidates, config, world):
    """0.1 apart in [-1, 1] is 0.1 of a half-range of 1 plus 10: far in physical units."""
    near = jnp.arange(5.0)[:, None] * jnp.array([0.1, 0.1])
    before = candidates.replace(z=near, probs=jnp.full((5,), 0.2))
    wide = dataclasses.replace(config, restart_distance=0.15)
    raw = dataclasses.replace(wide, normalise_distance=False)
    assert adversary.restart(jax.random.key(8), before, wide, world, TX)[1] == 4
    assert adversary.restart(jax.random.key(8), before, raw, world, TX)[1] == 0


def test_one_candidate_survives_restarts_without_nan(config, world):
    one = dataclasses.replace(config, num_candidates=1)
    state = adversary.init(jax.random.key(9), one, world, TX)
    state, _ = adversary.restart(jax.random.key(10), state, one, world, TX)
    np.testing.assert_array_equal(state.probs, [1.0])


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_training_omegas_stay_in_the_set_and_follow_the_probabilities(
    noise, candidates, config, world
):
    probs = jnp.array([0.0, 1.0, 0.0, 0.0, 0.0])
    one = candidates.replace(probs=probs)
    many = dataclasses.replace(config, num_envs=3000, replay_capacity=3000)
    draws = draw(jax.random.key(11), jnp.int32(0), many, world)
    omega = adversary.training_omegas(draws, one, jnp.float32(noise), many, world)
    assert np.all(np.abs(omega) <= 1.0)
    centre = adversary.omegas(candidates, world)[1]
    clipped = np.clip(centre + noise * np.random.default_rng(0).normal(size=(9999, 2)), -1, 1)
    np.testing.assert_allclose(omega.mean(0), clipped.mean(0), atol=0.05)


def test_uniform_share_ignores_the_candidates(candidates, config, world):
    mixed = dataclasses.replace(
        config, method="m2td3_plus", uniform_omegas=0.5, num_envs=4000, replay_capacity=4000
    )
    draws = draw(jax.random.key(12), jnp.int32(0), mixed, world)
    omega = adversary.training_omegas(draws, candidates, jnp.float32(0.0), mixed, world)
    centres = np.asarray(adversary.omegas(candidates, world))
    at_centre = (np.abs(np.asarray(omega)[:, None] - centres).max(-1) < 1e-6).any(1)
    assert at_centre.mean() == pytest.approx(0.5, abs=0.03)
