# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of completions: against all logits, in chunks, and over every completion."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import lm
from jaxsafe.lm import batching, logprobs
from tests.lm import models

CONFIG = models.FAMILIES["qwen2"]


@pytest.fixture(scope="module")
def rows():
    """Three rows of prompts and completions, padded right, left, and not at all."""
    ids = models.tokens(CONFIG, (3, 12))
    mask = np.ones((3, 12), bool)
    completion = np.zeros((3, 12), bool)
    mask[0, 9:] = False
    completion[0, 4:9] = True
    mask[1, :3] = False
    completion[1, 8:] = True
    completion[2, [2, 3, 7, 8]] = True  # two turns of one dialogue
    return models.params(CONFIG), ids, jnp.asarray(mask), jnp.asarray(completion)


def reference(params, ids, mask, completion):
    """From all logits, in NumPy and float64."""
    logits = np.asarray(lm.apply_fn(CONFIG)(params, ids, mask), np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    out = np.zeros(ids.shape)
    for b, t in zip(*np.nonzero(np.asarray(completion)), strict=True):
        out[b, t] = scores[b, t - 1, int(ids[b, t])]
    return out


def test_completion_positions_alone_give_what_all_logits_give(rows):
    expected = reference(*rows)
    assert (expected != 0).sum() == 13
    for model, most in ((CONFIG, None), (CONFIG, 5), (lm.apply_fn(CONFIG), None)):
        score = jax.jit(lambda *a, m=model, n=most: logprobs.per_token(m, *a, max_completion=n))
        np.testing.assert_allclose(score(*rows), expected, rtol=0, atol=2e-5)


def test_sums_are_of_each_row_and_one_with_too_many_tokens_is_not_a_number(rows):
    found = jax.jit(lambda *a: logprobs.sums(CONFIG, *a, max_completion=4))(*rows)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], reference(*rows).sum(1)[1:], rtol=1e-5)


def test_prompt_logits_are_not_computed(rows):
    """The largest array with an axis of V is of the 5 positions asked for, or of 2 at a time."""
    for chunk, shape in ((None, "3,5"), (2, "3,2")):
        score = lambda *a, c=chunk: logprobs.sums(CONFIG, *a, max_completion=5, chunk=c)  # noqa: E731
        text = str(jax.make_jaxpr(score)(*rows))
        assert f"f32[3,12,{CONFIG.vocab_size}]" not in text
        assert f"f32[{shape},{CONFIG.vocab_size}]" in text


def test_chunks_change_neither_sums_nor_gradients(rows):
    params, *rest = rows

    def loss(p, chunk):
        total = logprobs.sums(CONFIG, p, *rest, max_completion=5, chunk=chunk)
        return (total * jnp.array([1.0, -2.0, 0.5])).sum()

    both = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    value, gradient = both(params, None)
    other, found = both(params, 2)
    np.testing.assert_allclose(other, value, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max()))


def test_all_completions_of_two_tokens_have_probability_one():
    config = dataclasses.replace(models.FAMILIES["qwen3"], vocab_size=6)
    params = models.params(config)
    pairs = jnp.array(list(itertools.product(range(6), repeat=2)), jnp.int32)
    ids = jnp.concatenate([jnp.tile(jnp.array([[3, 1]], jnp.int32), (36, 1)), pairs], axis=1)
    completion = jnp.tile(jnp.array([False, False, True, True]), (36, 1))
    score = jax.jit(lambda p: logprobs.sums(config, p, ids, jnp.ones_like(ids), completion))
    sums = score(params)
    np.testing.assert_allclose(jnp.exp(sums).sum(), 1.0, rtol=1e-5)
    assert jnp.exp(sums).max() < 0.9  # not one certain pair


def test_equal_logits_give_n_times_the_log_of_the_vocabulary(rows):
    _, ids, mask, completion = rows
    zero = jax.tree.map(jnp.zeros_like, rows[0])
    expected = -np.log(CONFIG.vocab_size) * np.asarray(completion).sum(1)
    found = jax.jit(lambda *a: logprobs.sums(CONFIG, *a))(zero, ids, mask, completion)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_packed_pieces_score_as_alone(rows):
    params = rows[0]
    pieces = [np.asarray(models.tokens(CONFIG, (n,), seed=n)).tolist() for n in (7, 4, 5)]
    packed = batching.pack(pieces, 11)
    begins = np.zeros(packed.ids.shape, bool)
    begins[:, 1:] = packed.segment_ids[:, 1:] != packed.segment_ids[:, :-1]
    begins[:, 0] = True
    score = jax.jit(lambda p, *a, s: logprobs.per_token(CONFIG, p, *a, segment_ids=s))
    target = packed.mask & ~begins
    found = score(params, packed.ids, packed.mask, target, s=packed.segment_ids)
    ids = batching.pad_right(pieces, 11)
    mask = np.arange(11) < np.array([[7], [4], [5]])
    alone = score(params, ids, mask, mask & (np.arange(11) > 0), s=mask.astype(np.int32)).sum(1)
    sums = [np.asarray(found)[packed.piece == i].sum() for i in range(3)]
    np.testing.assert_allclose(sums, alone, rtol=1e-5)
