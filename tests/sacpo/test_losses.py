# SPDX-License-Identifier: Apache-2.0
"""The losses at points worked out by hand, their slopes and their symmetries."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
