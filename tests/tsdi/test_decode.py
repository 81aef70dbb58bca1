# SPDX-License-Identifier: Apache-2.0
"""The correction against numbers worked out by hand, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import tsdi
from jaxsafe.core.checks import UserError
from jaxsafe.tsdi import decode
from jaxsafe.tsdi.types import Table
from tests.tsdi.test_bias import REF, TILT, tilted


def correction(bias=TILT, alpha=1.0, length=None):
    table = Table(jnp.atleast_2d(jnp.asarray(bias, jnp.float32)), jnp.zeros(1))
    return tsdi.correction(table, alpha, length)


def corrected(probabilities, bias, alpha=1.0, space="logprob"):
    logits = jnp.log(jnp.asarray(probabilities, jnp.float32))
    return jax.nn.softmax(tsdi.correct(logits, jnp.int32(0), correction(bias, alpha), space))


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (1.0, [0.1, 0.2, 0.3, 0.4]),
        (0.5, [0.257953537696, 0.189791606591, 0.172671642531, 0.379583213183]),
        (0.0, [0.509846953475, 0.138000563712, 0.076151355389, 0.276001127424]),
    ],
)
def test_a_tilt_comes_off_by_alpha(alpha, expected):
    np.testing.assert_allclose(corrected(tilted(REF[:1]), TILT, alpha)[0], expected, atol=1e-6)


def test_one_average_corrects_both_contexts_in_log_space():
    safe = np.stack([tilted(row) for row in REF])
    mean = (np.log(safe) - np.log(REF)).mean(0)
    np.testing.assert_allclose(corrected(safe, mean), REF, atol=1e-6)


def test_probabilities_correct_one_context_exactly_and_two_not():
    safe = np.stack([tilted(row) for row in REF])
    np.testing.assert_allclose(
        corrected(safe[:1], (safe - REF)[0], space="prob"), REF[:1], atol=1e-6
    )
    both = corrected(safe, (safe - REF).mean(0), space="prob")
    np.testing.assert_allclose(both[0], [0.176811, 0.209757, 0.234675, 0.378757], atol=1e-6)
    np.testing.assert_allclose(both[1], [0.623189, 0.090243, 0.165325, 0.121243], atol=1e-6)


def test_a_tilt_of_one_context_alone_is_half_corrected_and_harms_the_other():
    safe = np.stack([tilted(REF[0]), REF[1]])
    both = corrected(safe, (np.log(safe) - np.log(REF)).mean(0))
    np.testing.assert_allclose(both[0], [0.257954, 0.189792, 0.172672, 0.379583], atol=1e-6)
    np.testing.assert_allclose(both[1], [0.413754, 0.160672, 0.264903, 0.160672], atol=1e-6)


@pytest.mark.parametrize("space", ["logprob", "prob"])
@pytest.mark.parametrize("how", [{"alpha": 0.0}, {"length": 0}, {"bias": 0 * TILT}])
def test_nothing_to_take_off_leaves_the_logits_bit_for_bit(space, how):
    if space == "prob" and "bias" in how:
        pytest.skip("renormalised probabilities are equal to rounding only")
    logits = jax.random.normal(jax.random.key(0), (5, 4))
    out = tsdi.correct(logits, jnp.int32(0), correction(**how), space)
    assert (np.asarray(out) == np.asarray(logits)).all()


def test_rows_at_different_positions_and_beyond_the_length():
    bias = jax.random.normal(jax.random.key(0), (3, 4))
    logits = jax.random.normal(jax.random.key(1), (4, 4))
    at_work = correction(bias, length=2)
    together = tsdi.correct(logits, jnp.arange(4), at_work)
    for step in range(4):
        alone = tsdi.correct(logits[step : step + 1], jnp.int32(step), at_work)
        assert (together[step] == alone[0]).all()
    assert (together[2:] == logits[2:]).all() and (together[:2] != logits[:2]).all()


def test_alpha_minus_one_with_a_swapped_table_is_alpha_one():
    logits = jax.random.normal(jax.random.key(1), (2, 4))
    one = tsdi.correct(logits, jnp.int32(0), correction(TILT))
    two = tsdi.correct(logits, jnp.int32(0), correction(-TILT, alpha=-1.0))
    assert (one == two).all()


def test_probability_below_zero_is_clipped_and_told():
    safe = np.array([[0.05, 0.55, 0.4, 0.0]]) + 1e-9
    off = np.array([0.2, -0.1, -0.1, 0.0])
    logits, at_work = jnp.log(safe), correction(off)
    out = jax.nn.softmax(tsdi.correct(logits, jnp.int32(0), at_work, "prob"))[0]
    np.testing.assert_allclose(out, np.array([0, 0.65, 0.5, 0]) / 1.15, atol=1e-6)
    np.testing.assert_allclose(decode.clipped_mass(logits, jnp.int32(0), at_work), 0.15, atol=1e-6)
    assert not decode.clipped_mass(logits, jnp.int32(1), at_work).any()


def test_new_numbers_do_not_retrace():
    traced = []

    @jax.jit
    def step(logits, place, at_work):
        traced.append(1)
        return tsdi.processor()(logits, place, at_work)

    logits = jnp.zeros((2, 4))
    for bias, alpha, length in ((TILT, 1.0, 1), (2 * TILT, 0.5, 0)):
        step(logits, jnp.int32(0), correction(bias, alpha, length))
    assert len(traced) == 1


def test_raised_tokens_alone_are_lowered():
    """The largest of each row that are above 0; what safety training lowered is left alone."""
    rows = jnp.array([[3.0, -2.0, 1.0, 0.5], [-1.0, -2.0, 2.0, -0.1]])
    table = tsdi.Table(rows, jnp.ones_like(rows))
    np.testing.assert_array_equal(tsdi.raised(table, 1).bias, [[3, 0, 0, 0], [0, 0, 2, 0]])
    two = tsdi.raised(table, 2)
    np.testing.assert_array_equal(two.bias, [[3, 0, 1, 0], [0, 0, 2, 0]])
    np.testing.assert_array_equal(tsdi.raised(table, 4).bias, jnp.maximum(rows, 0))
    assert two.space == table.space and two.error is table.error
    # Ratios among all other tokens stay as the safe model has them.
    logits = jax.random.normal(jax.random.key(0), (1, 4))
    out = tsdi.correct(logits, jnp.int32(0), correction(tsdi.raised(table, 1).bias))
    np.testing.assert_allclose((logits - out)[0], [3, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("count", [0, 5])
def test_a_number_of_raised_tokens_that_there_are_not_is_refused(count):
    table = tsdi.Table(jnp.zeros((1, 4)), jnp.zeros((1, 4)))
    with pytest.raises(UserError, match=f"count={count} is out of range: give 1 to 4 tokens"):
        tsdi.raised(table, count)


def test_the_gate_spares_harmful_prompts():
    score = jnp.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(decode.gate(score, 0.0, 1.0, 2.0), [2, 2, 1, 0, 0], atol=1e-6)


def test_per_prompt_alpha():
    logits = jax.random.normal(jax.random.key(1), (2, 4))
    out = tsdi.correct(logits, jnp.int32(0), correction(TILT, alpha=jnp.array([0.0, 1.0])))
    assert (out[0] == logits[0]).all()
    np.testing.assert_allclose(out[1], logits[1] - TILT, atol=1e-6)


@pytest.mark.parametrize("length", [-1, 2])
def test_a_length_beyond_the_table_is_refused(length):
    with pytest.raises(UserError, match=f"length={length} is beyond the table's 1 positions"):
        correction(length=length)
