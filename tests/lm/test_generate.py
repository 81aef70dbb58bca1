# SPDX-License-Identifier: Apache-2.0
"""Generation: cached against full logits, sampling laws, processors, mixtures, one program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import lm
from jaxsafe.core.checks import UserError
from jaxsafe.lm import decoding, sharding
from jaxsafe.lm.choosing import Generation
from jaxsafe.lm.generate import _run, pad_prompts
from tests.lm import models

PROMPTS = [[5, 9, 3, 7, 1], [4, 8], [2, 2, 6, 30, 11, 12, 36, 1, 17]]


@pytest.fixture(scope="module")
def ready():
    config = models.FAMILIES["qwen2"]
    params = models.params(config)
    return config, params, lm.prepare(params, config)


def full_logits(config, params, ids, mask):
    return lm.apply_fn(config)(params, jnp.asarray(ids), jnp.asarray(mask))


@pytest.mark.parametrize("family", ["mistral", pytest.param("qwen3", marks=pytest.mark.slow)])
def test_cached_logits_are_those_of_the_whole_row(family):
    """To 1e-5 of the largest, for every token after prompts padded by 0, 3 and 7 slots."""
    config = models.FAMILIES[family]
    params = models.params(config)
    model = lm.prepare(params, config)
    ids, mask = pad_prompts(PROMPTS, buckets=(9,))
    later = np.asarray(models.tokens(config, (3, 6)))
    whole = np.concatenate([ids, later], axis=1)
    seen = np.concatenate([mask, np.ones((3, 6), bool)], axis=1)
    expected = jax.jit(lambda p: full_logits(config, p, whole, seen))(params)
    logits, cache = decoding.prefill(model, jnp.asarray(ids), jnp.asarray(mask), 6)
    step = jax.jit(decoding.step, static_argnums=3)
    scale = float(jnp.abs(expected).max())
    for i in range(6):
        np.testing.assert_allclose(logits, expected[:, 8 + i], rtol=0, atol=1e-5 * scale)
        logits, cache = step(model, cache, jnp.asarray(later[:, i]), 9, jnp.int32(i))
    np.testing.assert_allclose(logits, expected[:, 14], rtol=0, atol=1e-5 * scale)


def test_sampled_tokens_follow_the_law(ready):
    """Chi-square of 4000 draws at a fixed key: plain, of top-k and of top-p."""
    config, params, model = ready
    ids, mask = pad_prompts(PROMPTS[:1], buckets=(5,))
    logits = np.asarray(full_logits(config, params, ids, mask)[0, -1], np.float64)
    law = np.exp(logits / 2.0 - (logits / 2.0).max())
    law /= law.sum()
    order = np.argsort(-law)
    nucleus = order[: int(np.searchsorted(np.cumsum(law[order]), 0.8)) + 1]
    assert 3 < len(nucleus) < len(law) - 3
    for change, kept in (
        ({}, order),
        ({"top_k": 5}, order[:5]),
        ({"top_p": 0.8}, nucleus),
    ):
        options = Generation(max_new=1, temperature=2.0, samples=4000, **change)
        out = lm.generate.generate(model, PROMPTS[:1], options, jax.random.key(3), buckets=(5,))
        counts = np.bincount(np.asarray(out.tokens)[:, 0], minlength=len(law))
        assert counts.sum() == 4000 and not counts[np.setdiff1d(order, kept)].any()
        expected = 4000 * law[kept] / law[kept].sum()
        common = expected >= 5  # rarer ones together
        cells = np.append(expected[common], expected[~common].sum())
        seen = np.append(counts[kept][common], counts[kept][~common].sum())
        cells, seen = cells[cells > 0], seen[cells > 0]
        statistic = ((seen - cells) ** 2 / cells).sum()
        freedom = len(cells) - 1
        assert statistic < freedom + 4 * np.sqrt(2 * freedom), change


def test_caches_grow_by_doubling():
    """And not for a few tokens; whatever the sizes, the answers are those of one loop."""
    assert decoding.capacities(128, 128) == [255]
    assert decoding.capacities(128, 1) == [128]
    assert decoding.capacities(128, 512) == [256, 512, 639]
    assert decoding.capacities(250, 20) == [269]
    assert decoding.capacities(512, 1024) == [1024, 1535]


MANY = [*PROMPTS, [8, 1], [3, 30, 12, 4]]
OPTIONS = {
    # Some greedy answers have 24 early, some never.
    "greedy": Generation(9, stop_ids=(24,), log_probs=True),
    "sampled": Generation(9, stop_ids=(7,), log_probs=True, temperature=3.0, samples=2),
}


@pytest.fixture(scope="module", params=OPTIONS)
def together(ready, request):
    """Options, and answers to five prompts at once, whose lengths differ."""
    options = OPTIONS[request.param]
    out = lm.generate.generate(ready[2], MANY, options, jax.random.key(0))
    assert len(set(np.asarray(out.lengths).tolist())) > 1
    assert len({tuple(row) for row in np.asarray(out.tokens).tolist()}) == 5 * options.samples
    return options, out


def assert_same_answers(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found[:3], expected[:3])
    np.testing.assert_allclose(found.log_probs, expected.log_probs, rtol=0, atol=1e-5)


def test_answers_group_after_group_are_those_of_all_at_once(ready, together):
    """Five prompts in groups of two: they do not divide."""
    options, expected = together
    out = lm.generate.generate(ready[2], MANY, options, jax.random.key(0), at_once=2)
    assert_same_answers(out, expected)


@pytest.mark.device8
def test_devices_share_prompts(ready, together):
    options, expected = together
    mesh = sharding.make_mesh(data=2, devices=jax.devices()[:2])
    model, settings = lm.generate.on_mesh(ready[2], mesh), {"at_once": 2, "mesh": mesh}
    out = lm.generate.generate(model, MANY, options, jax.random.key(0), **settings)
    assert_same_answers(out, expected)


def test_answers_do_not_depend_on_how_a_cache_grows(ready, monkeypatch):
    _, _, model = ready
    _run.clear_cache()
    options = Generation(9, stop_ids=(7,))
    expected = lm.generate.generate(model, PROMPTS, options)
    monkeypatch.setattr(decoding, "capacities", lambda t, new: [t, t + 3, t + new - 1])
    _run.clear_cache()
    found = lm.generate.generate(model, PROMPTS, options)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    _run.clear_cache()


def test_log_probs_are_of_the_models_law_and_rows_of_samples_differ(ready):
    config, params, model = ready
    options = Generation(6, temperature=3.0, samples=3, log_probs=True, stop_ids=(7,))
    out = lm.generate.generate(model, PROMPTS, options, jax.random.key(0), buckets=(9,))
    assert out.tokens.shape == out.log_probs.shape == (9, 6)
    assert len({tuple(row) for row in np.asarray(out.tokens[:3]).tolist()}) == 3
    ids, mask = pad_prompts(PROMPTS, buckets=(9,))
    whole = np.concatenate([np.repeat(ids, 3, axis=0), out.tokens], axis=1)
    new = np.arange(6) < np.asarray(out.lengths)[:, None]
    seen = np.concatenate([np.repeat(mask, 3, axis=0), new], axis=1)
    scores = jax.nn.log_softmax(full_logits(config, params, whole, seen)[:, 8:-1])
    expected = np.take_along_axis(np.asarray(scores), np.asarray(out.tokens)[..., None], 2)[..., 0]
    np.testing.assert_allclose(out.log_probs, np.where(new, expected, 0), rtol=0, atol=1e-4)


def test_answers_end_at_stops_and_the_loop_with_the_last_of_them(ready):
    """Padding may be the stop id itself; every row's tokens are those without stops, cut."""
    _, _, model = ready
    free = np.asarray(lm.generate.generate(model, PROMPTS, Generation(8)).tokens)
    stops = tuple({int(free[0, 2]), int(free[1, 5]), int(free[2, 0])})
    options = Generation(8, stop_ids=stops, pad_id=stops[0])
    out = lm.generate.generate(model, PROMPTS, options)
    for row, whole, length, stopped in zip(
        *map(np.asarray, (out.tokens, free, out.lengths, out.stopped)), strict=True
    ):
        hits = np.flatnonzero(np.isin(whole, stops))
        assert stopped == bool(len(hits)) and length == (hits[0] + 1 if len(hits) else 8)
        assert (row[:length] == whole[:length]).all() and (row[length:] == stops[0]).all()


def add_table(logits, step, table):
    return logits + jnp.where(step < 2, table, 0.0)


def ban_even(logits, step):
    return jnp.where(jnp.arange(logits.shape[-1]) % 2 == 0, -1e30, logits)


def test_processors_change_logits_and_their_tables_need_no_new_program(ready):
    config, _, model = ready
    odd = np.asarray(lm.generate.generate(model, PROMPTS, Generation(5), processor=ban_even).tokens)
    assert (odd % 2 == 1).all()
    _run.clear_cache()
    plain = np.asarray(lm.generate.generate(model, PROMPTS, Generation(5)).tokens)
    for token in (3, 11):
        table = jnp.zeros(config.vocab_size).at[token].set(1e4)
        out = lm.generate.generate(model, PROMPTS, Generation(5), processor=add_table, extra=table)
        assert (np.asarray(out.tokens)[:, :2] == token).all()
    none = lm.generate.generate(
        model, PROMPTS, Generation(5), processor=add_table, extra=jnp.zeros(config.vocab_size)
    )
    np.testing.assert_array_equal(none.tokens, plain)
    assert _run._cache_size() == 2


def test_one_bucket_is_one_program(ready):
    """Other prompts and lengths, keys, temperatures and nuclei; a wider bucket is another one."""
    config, _, model = ready
    _run.clear_cache()
    for i, (temperature, top_p) in enumerate(((1.0, 0.9), (0.7, 0.5), (2.0, 0.99))):
        prompts = [row[: 2 + i] for row in PROMPTS]
        options = Generation(4, temperature=temperature, top_p=top_p)
        lm.generate.generate(model, prompts, options, jax.random.key(i), buckets=(8, 16))
    assert _run._cache_size() == 1
    other = lm.prepare(models.params(config, seed=5), config)
    options = Generation(4, temperature=1.0, top_p=0.5)
    lm.generate.generate(
        other, [row[:3] for row in PROMPTS], options, jax.random.key(9), buckets=(8, 16)
    )
    assert _run._cache_size() == 1
    lm.generate.generate(model, PROMPTS, options, jax.random.key(9), buckets=(8, 16))
    assert _run._cache_size() == 2


def test_a_mixture_is_the_normalised_product_of_laws(ready):
    """Its first token's law against NumPy's; the ends q = 0 and 1 are the models' own answers."""
    config, params, model = ready
    params2 = models.params(config, seed=9)
    pair = (model, lm.prepare(params2, config))
    ends = [np.asarray(lm.generate.generate(one, PROMPTS, Generation(5)).tokens) for one in pair]
    assert (ends[0] != ends[1]).any()
    _run.clear_cache()
    for q in (0.0, 1.0):
        out = lm.generate.generate(pair, PROMPTS, Generation(5), mix=(1 - q, q))
        np.testing.assert_array_equal(out.tokens, ends[int(q)])
    out = lm.generate.generate(pair, PROMPTS, Generation(5), mix=(0.4, 0.6))
    assert _run._cache_size() == 1
    ids, mask = pad_prompts(PROMPTS)
    whole = np.concatenate([ids, out.tokens], axis=1)
    seen = np.concatenate([mask, np.ones((3, 5), bool)], axis=1)
    one, two = (jax.nn.log_softmax(full_logits(config, p, whole, seen)) for p in (params, params2))
    best = jnp.argmax(0.4 * one + 0.6 * two, axis=-1)[:, ids.shape[1] - 1 : -1]
    np.testing.assert_array_equal(out.tokens, best)


def test_adapters_decode_as_merged(ready):
    from jaxsafe.lm import lora

    config, params, _ = ready
    options = lora.Lora(rank=2, targets=("q", "down"))
    adapters = lora.init(jax.random.key(0), config, options)
    adapters["q"]["b"] = jax.random.normal(jax.random.key(1), adapters["q"]["b"].shape)
    attached = lora.attach(params, adapters, options)
    merged = lora.merge(params, adapters, options)
    one, two = (
        lm.generate.generate(lm.prepare(p, config), PROMPTS, Generation(4))
        for p in (attached, merged)
    )
    np.testing.assert_array_equal(one.tokens, two.tokens)


@pytest.mark.parametrize(
    ("prompts", "change", "message"),
    [
        ([], {}, "prompts is empty"),
        ([[1], []], {}, r"prompts\[1\] is empty"),
        ([[1]], {"max_new": 0}, "max_new=0 is out of range"),
        ([[1]], {"top_p": 0.0}, "top_p=0.0 is out of range"),
        ([[1]], {"min_new": 5}, r"min_new=5 is out of range: give a value in \[0, 4\]"),
        ([[1]], {"temperature": 1.0}, "temperature=1.0 samples: give a key"),
    ],
)
def test_what_cannot_be_generated_is_refused(ready, prompts, change, message):
    options = dataclasses.replace(Generation(4), **change)
    with pytest.raises(UserError, match=message):
        lm.generate.generate(ready[2], prompts, options)
