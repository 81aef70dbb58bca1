# SPDX-License-Identifier: Apache-2.0
"""The losses at points worked out by hand, their slopes and their symmetries."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsafe.core.checks import UserError
from jaxsafe.sacpo import losses

TIGHT = {"rtol": 0, "atol": 5e-13}


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_at_the_reference_dpo_is_log_two(temperature):
    sums = jnp.array([-3.0, -70.0])
    m = losses.margin(sums, sums - 1, sums, sums - 1)
    np.testing.assert_allclose(losses.dpo(m, temperature), 0.693147180560, **TIGHT)
    conservative = losses.conservative_dpo(m, temperature, 0.3)
    np.testing.assert_allclose(conservative, 0.693147180560, **TIGHT)


def test_dpo_and_its_slope_at_a_margin_of_one():
    value, slope = jax.value_and_grad(losses.dpo)(1.0, 0.1)
    np.testing.assert_allclose([value, slope], [0.644396660074, -0.047502081252], **TIGHT)


def test_dpo_is_finite_far_out():
    far = jnp.array([-1e5, 1e5])
    np.testing.assert_allclose(losses.dpo(far, 0.1), [1e4, 0.0], **TIGHT)
    assert np.isfinite(jax.vmap(jax.grad(losses.dpo), (0, None))(far, 0.1)).all()


def test_kto_constants():
    ratios, desirable = jnp.array([2.0, 2.0]), jnp.array([True, False])
    value = losses.kto(ratios, desirable, jnp.float64(0.5), 0.1)
    np.testing.assert_allclose(value, [0.462570154656, 0.537429845344], **TIGHT)
    at_reference = losses.kto(0 * ratios, desirable, jnp.float64(0), 0.1, 1.0, 3.0)
    np.testing.assert_allclose(at_reference, [0.5, 1.5], **TIGHT)


def test_the_baseline_is_clamped_and_has_no_gradient():
    assert losses.kto_baseline(jnp.array([-3.0, 1.0])) == 0
    assert losses.kto_baseline(jnp.array([3.0, 1.0])) == 2
    np.testing.assert_array_equal(jax.grad(losses.kto_baseline)(jnp.array([3.0, 1.0])), 0)


def test_ipo_is_least_at_half_the_inverse_temperature():
    assert losses.ipo(jnp.float64(5.0), 0.1) == 0
    np.testing.assert_allclose(losses.ipo(jnp.float64(0.0), 0.1), 25.0, **TIGHT)


def test_swapping_winner_and_loser_turns_the_margin():
    sums = np.random.default_rng(0).normal(size=(4, 6))
    m = losses.margin(*sums)
    np.testing.assert_allclose(losses.margin(*sums[[1, 0, 3, 2]]), -m, rtol=1e-14)


def test_a_conservative_loss_is_least_where_the_odds_are_those_of_the_labels():
    """sigmoid(t m) = 1 - e, the share of right labels."""
    at = math.log(0.8 / 0.2) / 0.1
    assert abs(jax.grad(losses.conservative_dpo)(at, 0.1, 0.2)) < 1e-15


def test_an_imbalance_is_corrected_once_unless_asked():
    assert losses.kto_weights(40, 60, "none") == (1, 1)
    assert losses.kto_weights(40, 60, "interleave") == (1, 1)
    for balance in ("weights", "both"):
        assert losses.kto_weights(40, 60, balance) == (1, pytest.approx(2 / 3))
    with pytest.raises(UserError, match="cannot weigh 5 desirable by 0 undesirable"):
        losses.kto_weights(5, 0, "weights")
    with pytest.raises(UserError, match="Did you mean 'weights'"):
        losses.kto_weights(5, 1, "weight")


NUMBERS = st.lists(st.floats(-200, 200), min_size=4, max_size=4)
TEMPERATURES = st.floats(1e-3, 10)


@settings(max_examples=50, deadline=None)
@given(margins=NUMBERS, temperature=TEMPERATURES, smoothing=st.floats(0, 1))
def test_swapped_answers_mirror_the_losses_of_pairs(margins, temperature, smoothing):
    """log sigmoid(t m) - log sigmoid(-t m) = t m; labels wrong by e are right by 1 - e."""
    m = jnp.asarray(margins)
    right, wrong = losses.dpo(m, temperature), losses.dpo(-m, temperature)
    np.testing.assert_allclose(wrong - right, temperature * m, rtol=1e-9, atol=1e-9)
    assert np.all(right >= 0)
    np.testing.assert_allclose(
        losses.conservative_dpo(m, temperature, smoothing),
        losses.conservative_dpo(-m, temperature, 1 - smoothing),
        rtol=1e-9,
        atol=1e-9,
    )
    np.testing.assert_array_equal(losses.conservative_dpo(m, temperature, 0.0), right)


@settings(max_examples=50, deadline=None)
@given(sums=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), shift=st.floats(-50, 50))
def test_a_margin_is_odd_in_its_answers_and_blind_to_their_prompt(sums, shift):
    """What both models say of the prompt, and each of both answers, is no part of it."""
    chosen, rejected, ref_chosen, ref_rejected = map(jnp.asarray, sums)
    m = losses.margin(chosen, rejected, ref_chosen, ref_rejected)
    turned = losses.margin(rejected, chosen, ref_rejected, ref_chosen)
    np.testing.assert_allclose(turned, -m, atol=1e-11)
    shifted = losses.margin(chosen + shift, rejected + shift, ref_chosen, ref_rejected)
    np.testing.assert_allclose(shifted, m, atol=1e-11)
    np.testing.assert_array_equal(losses.margin(chosen, rejected, chosen, rejected), 0)


@settings(max_examples=50, deadline=None)
@given(ratios=NUMBERS, baseline=st.floats(0, 50), temperature=TEMPERATURES)
def test_kto_mirrors_good_and_bad_about_the_baseline(ratios, baseline, temperature):
    d = jnp.asarray(ratios)
    good, bad = jnp.ones(4, bool), jnp.zeros(4, bool)
    z0 = jnp.asarray(baseline)
    value = losses.kto(d, good, z0, temperature)
    np.testing.assert_allclose(value + losses.kto(d, bad, z0, temperature), 1, rtol=1e-12)
    mirrored = losses.kto(2 * z0 - d, bad, z0, temperature)
    np.testing.assert_allclose(value, mirrored, rtol=1e-9, atol=1e-12)
    weighed = losses.kto(d, jnp.asarray([True, False, True, False]), z0, temperature, 2.0, 3.0)
    assert np.all((weighed >= 0) & (weighed <= jnp.asarray([2.0, 3.0, 2.0, 3.0])))
