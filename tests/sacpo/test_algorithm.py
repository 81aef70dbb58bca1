# SPDX-License-Identifier: Apache-2.0
"""The update against losses worked out row by row, in every form its references can take."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.lm import decoder, logprobs
from jaxsafe.sacpo import algorithm, batches, losses
from jaxsafe.sacpo.types import Batch

from .rows import MODEL, config, device, some

CLOSE = {"rtol": 2e-5, "atol": 1e-6}


def by_hand(params, batch):
    """log pi(answer | prompt) `[B, K]`, one row at a time from all logits."""
    apply = decoder.apply_fn(MODEL)
    rows, k, width = batch.ids.shape
    flat = [np.asarray(x).reshape(rows * k, width) for x in batch[:3]]
    log_p = jax.nn.log_softmax(apply(params, *map(jnp.asarray, flat[:2])))
    found = [
        sum(float(log_p[n, t - 1, flat[0][n, t]]) for t in np.flatnonzero(flat[2][n]))
        for n in range(rows * k)
    ]
    return np.array(found).reshape(rows, k)


def moved(state, config, batch, times=3):
    """A learner some updates from its start."""
    step = jax.jit(algorithm.update, static_argnums=2)
    for _ in range(times):
        state, _ = step(state, batch, config)
    return state


@pytest.fixture(scope="module")
def pairs():
    return device(some(4, 2))


@pytest.fixture(scope="module")
def singles():
    return device(some(4, 1, seed=1)._replace(desirable=np.array([True, False, False, True])))


def test_at_the_start_a_loss_is_what_the_reference_gives(pairs, singles):
    for loss, known in (("dpo", np.log(2)), ("cdpo", np.log(2)), ("ipo", 25.0), ("kto", 0.5)):
        c = config(loss)
        batch = singles if loss == "kto" else pairs
        _, metrics = algorithm.update(algorithm.init(jax.random.key(0), c), batch, c)
        np.testing.assert_allclose(metrics["policy/loss"], known, rtol=1e-4)


@pytest.mark.parametrize("loss", ["dpo", "cdpo", "ipo"])
def test_pair_losses_are_the_mean_over_rows(pairs, loss):
    c = config(loss, temperature=0.3)
    state = moved(algorithm.init(jax.random.key(0), c), c, pairs)
    policy, reference = by_hand(state.params, pairs), by_hand(state.reference, pairs)
    margin = losses.margin(*policy.T, *reference.T)
    each = {
        "dpo": losses.dpo(margin, 0.3),
        "cdpo": losses.conservative_dpo(margin, 0.3, 0.1),
        "ipo": losses.ipo(margin, 0.3),
    }[loss]
    _, metrics = algorithm.update(state, pairs, c)
    np.testing.assert_allclose(metrics["policy/loss"], np.mean(each), **CLOSE)
    np.testing.assert_allclose(metrics["policy/margin"], 0.3 * np.mean(margin), **CLOSE)
    assert metrics["policy/accuracy"] == np.mean(margin > 0)


def test_kto_draws_its_mismatches_and_says_what_they_came_to(singles):
    c = config("kto", temperature=0.2)
    c = dataclasses.replace(c, undesirable_weight=3.0)
    state = moved(algorithm.init(jax.random.key(0), c), c, singles, 5)
    partner = algorithm.partners(jax.random.fold_in(state.key, state.step), 4)
    other = algorithm.mismatched(singles, partner)
    ratios = by_hand(state.params, other) - by_hand(state.reference, other)
    z0 = max(0.0, ratios.mean())
    own = (by_hand(state.params, singles) - by_hand(state.reference, singles))[:, 0]
    each = losses.kto(own, np.asarray(singles.desirable), jnp.float32(z0), 0.2, 1.0, 3.0)
    _, metrics = algorithm.update(state, singles, c)
    np.testing.assert_allclose(metrics["policy/mismatched_ratio"], ratios.mean(), **CLOSE)
    np.testing.assert_allclose(metrics["policy/baseline"], z0, **CLOSE)
    np.testing.assert_allclose(metrics["policy/loss"], np.mean(each), **CLOSE)


def test_a_mismatch_is_this_prompt_with_that_answer():
    rows = [[([1, 2], [3, 4, 5])], [([6, 7, 8], [9])], [([2], [3, 3, 3, 3])]]
    batch = device(batches.arrays(rows, 6))
    found = algorithm.mismatched(batch, jnp.array([1, 2, 0]))
    expected = batches.arrays([[([1, 2], [9])], [([6, 7, 8], [3, 3, 3])], [([2], [3, 4, 5])]], 6)
    for name in ("mask", "completion"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(np.where(found.mask, found.ids, 0), expected.ids)


def test_nobody_is_their_own_partner():
    for seed in range(20):
        partner = np.asarray(algorithm.partners(jax.random.key(seed), 5))
        assert sorted(partner) == list(range(5)) and (partner != np.arange(5)).all()


def test_mismatches_made_ahead_serve_cached_references(singles):
    c = config("kto")
    ahead = device(batches.with_mismatches(jax.tree.map(np.asarray, singles)))
    state = moved(algorithm.init(jax.random.key(0), c), c, singles)
    rolled = algorithm.mismatched(singles, jnp.array([1, 2, 3, 0]))
    np.testing.assert_allclose(
        by_hand(state.params, Batch(*(x[:, 1:] for x in ahead[:3]))),
        by_hand(state.params, rolled),
        **CLOSE,
    )
    cached = ahead._replace(reference=algorithm.answer_sums(state.reference, ahead, c))
    online, offline = (
        algorithm.update(s, b, c)[1]
        for s, b in ((state, ahead), (state.replace(reference=None), cached))
    )
    for name in online:
        np.testing.assert_allclose(online[name], offline[name], **CLOSE)


def test_a_cached_reference_gives_the_bits_of_an_online_one(pairs):
    c = config("dpo")
    state = moved(algorithm.init(jax.random.key(0), c), c, pairs)
    sums = jax.jit(algorithm.answer_sums, static_argnums=2)(state.reference, pairs, c)
    values = [
        jax.jit(algorithm.update, static_argnums=2)(s, b, c)[1]["policy/loss"]
        for s, b in (
            (state, pairs),
            (state.replace(reference=None), pairs._replace(reference=sums)),
        )
    ]
    np.testing.assert_array_equal(*values)


def test_the_likelihood_is_per_answer_token(pairs):
    c = config("sft")
    singles = Batch(*(x[:, :1] for x in pairs[:3]))
    state = algorithm.init(jax.random.key(0), c)
    _, metrics = algorithm.update(state, singles, c)
    expected = -by_hand(state.params, singles).sum() / np.asarray(singles.completion).sum()
    np.testing.assert_allclose(metrics["policy/loss"], expected, **CLOSE)
    assert state.reference is None


@pytest.mark.parametrize("loss", ["sft", "dpo", "kto"])
def test_a_batch_in_parts_is_one_batch(pairs, singles, loss):
    batch = pairs if loss == "dpo" else singles
    whole, parts = config(loss), config(loss, accumulation=2)
    state = moved(algorithm.init(jax.random.key(0), whole), whole, batch)
    one, two = (algorithm.update(state, batch, c) for c in (whole, parts))
    np.testing.assert_allclose(one[1]["policy/loss"], two[1]["policy/loss"], **CLOSE)
    np.testing.assert_allclose(one[1]["policy/grad_norm"], two[1]["policy/grad_norm"], rtol=1e-4)


def test_swapping_the_answers_turns_the_margin(pairs):
    c = config("dpo")
    state = moved(algorithm.init(jax.random.key(0), c), c, pairs)
    swapped = Batch(*(x[:, ::-1] for x in pairs[:3]))
    one, other = (algorithm.update(state, b, c)[1] for b in (pairs, swapped))
    np.testing.assert_allclose(one["policy/margin"], -other["policy/margin"], **CLOSE)


def test_without_a_reference_an_update_refuses(pairs, singles):
    c = config("dpo", reference="cached")
    with pytest.raises(ValueError, match="neither the batch nor the state has a reference"):
        algorithm.update(algorithm.init(jax.random.key(0), c), pairs, c)
    c = config("kto", reference="cached")
    with pytest.raises(ValueError, match="needs mismatched answers"):
        algorithm.update(algorithm.init(jax.random.key(0), c), singles, c)


def test_the_reference_is_the_policy_it_started_from():
    c = config("dpo")
    start = decoder.init(jax.random.key(3), MODEL)
    state = algorithm.init(jax.random.key(0), c, start)
    jax.tree.map(np.testing.assert_array_equal, state.reference, start)
    batch = device(some(4, 2))
    np.testing.assert_allclose(
        algorithm.answer_sums(state.params, batch, c),
        logprobs.sums(MODEL, start, *(x.reshape(8, -1) for x in batch[:3])).reshape(4, 2),
        **CLOSE,
    )
