# SPDX-License-Identifier: Apache-2.0
"""Adapters, the optimiser, gradients in parts, and batches of few widths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsafe import lm
from jaxsafe.core.checks import UserError
from jaxsafe.lm import batching, logprobs, lora, optimiser
from tests.lm import models

CONFIG = models.FAMILIES["qwen2"]
LORA = lora.Lora(rank=2, alpha=8.0, targets=("q", "v", "down"))


@pytest.fixture(scope="module")
def adapters():
    drawn = lora.init(jax.random.key(0), CONFIG, LORA)
    for i, pair in enumerate(drawn.values()):
        pair["b"] = 0.3 * jax.random.normal(jax.random.key(i + 1), pair["b"].shape)
    return drawn


@jax.jit
def logits(params):
    return lm.apply_fn(CONFIG)(params, models.tokens(CONFIG, (2, 8)), jnp.ones((2, 8), bool))


def test_fresh_adapters_change_nothing_and_others_do_as_merged(adapters):
    params = models.params(CONFIG)
    base = logits(params)
    fresh = lora.init(jax.random.key(3), CONFIG, LORA)
    np.testing.assert_array_equal(logits(lora.attach(params, fresh, LORA)), base)
    attached = logits(lora.attach(params, adapters, LORA))
    assert jnp.abs(attached - base).max() > 0.1
    merged = logits(lora.merge(params, adapters, LORA))
    np.testing.assert_allclose(attached, merged, rtol=0, atol=1e-5 * float(jnp.abs(merged).max()))
    np.testing.assert_array_equal(logits(params), base)  # the reference is what it was


def test_adapters_are_written_as_peft_has_them_and_read_back(adapters, tmp_path):
    lora.save(tmp_path, adapters, LORA, base="somewhere")
    options, back = lora.load(tmp_path, CONFIG)
    assert options == LORA
    jax.tree.map(np.testing.assert_array_equal, back, adapters)
    other = dataclasses.replace(CONFIG, num_layers=2, window_layers=None)
    with pytest.raises(UserError, match=r"has base_model.model.model.layers.2.* no place"):
        lora.load(tmp_path, other)
    with pytest.raises(UserError, match=r"should be \[2, 32\], .* has \[2, 16\]"):
        lora.load(tmp_path, dataclasses.replace(CONFIG, hidden_size=32))
    with pytest.raises(UserError, match="is no LoRA adapter's"):
        lora.load(tmp_path / "none", CONFIG)
    for change, message in (
        ({"targets": ("qv",)}, "targets='qv' is unknown"),
        ({"targets": ("q", "q")}, "name each once"),
        ({"rank": 0}, "rank=0 is out of range"),
    ):
        with pytest.raises(UserError, match=message):
            lora.init(jax.random.key(0), CONFIG, dataclasses.replace(LORA, **change))


def batch():
    ids = models.tokens(CONFIG, (8, 10))
    completion = jnp.zeros(ids.shape, bool).at[:, 5:].set(True)
    return {"ids": ids, "mask": jnp.ones_like(completion), "completion": completion}


def loss(params, rows):
    sums = logprobs.sums(CONFIG, params, rows["ids"], rows["mask"], rows["completion"])
    return -sums.mean(), {"longest": -sums.min(), "mean": sums.mean()}


def test_a_batch_in_parts_has_the_gradient_of_the_whole():
    params = models.params(CONFIG)
    results = [
        jax.jit(lambda p, n=n: optimiser.value_and_grad(loss, p, batch(), n))(params)
        for n in (1, 4)
    ]
    (whole, metrics), expected = results[0]
    (value, other), found = results[1]
    np.testing.assert_allclose(value, whole, rtol=1e-6)
    np.testing.assert_allclose(other["mean"], metrics["mean"], rtol=1e-6)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * float(jnp.abs(b).max() + 1))


def test_rates_rise_and_fall_as_written():
    """transformers' formula: 3 of 100 updates of warm-up, from 0; half of it at the middle."""
    rate = optimiser.rates(optimiser.Optimiser(learning_rate=2e-5), 100)
    found = [float(rate(i)) for i in (0, 1, 3, 100)]
    np.testing.assert_allclose(found, [0, 2e-5 / 3, 2e-5, 0], atol=1e-12)
    expected = 1e-5 * (1 + np.cos(np.pi * (51.5 - 3) / 97))
    np.testing.assert_allclose(rate(51.5), expected, rtol=1e-5)
    for schedule, middle in (("linear", 0.5), ("constant", 1.0)):
        options = optimiser.Optimiser(1.0, warmup_ratio=0.0, schedule=schedule)
        np.testing.assert_allclose(optimiser.rates(options, 10)(5), middle)
    with pytest.raises(UserError, match="schedule"):
        optimiser.rates(optimiser.Optimiser(schedule="cosin"), 10)


def test_adamw_clips_and_decays_matrices_only():
    """One step by hand: the first is rate * sign(g), and decay rate * decay * w on kernels."""
    options = optimiser.Optimiser(0.1, warmup_ratio=0.0, schedule="constant", weight_decay=0.5)
    params = {"q": {"kernel": jnp.full((1, 2, 2), 3.0), "bias": jnp.full((1, 2), 3.0)}}
    gradient = jax.tree.map(lambda x: -2.0 * jnp.ones_like(x), params)
    rule = optimiser.make(options, 10)
    update, _ = rule.update(gradient, rule.init(params), params)
    new = optax.apply_updates(params, update)
    np.testing.assert_allclose(new["q"]["bias"], 3.1, rtol=1e-5)
    np.testing.assert_allclose(new["q"]["kernel"], 3.1 - 0.1 * 0.5 * 3, rtol=1e-5)
    clip = optimiser.make(dataclasses.replace(options, clip=1.0, eps=1.0, weight_decay=0.0), 10)
    update, _ = clip.update(gradient, clip.init(params), params)
    each = 1 / np.sqrt(6)  # six entries of norm 1 together
    np.testing.assert_allclose(update["q"]["bias"], 0.1 * each / (each + 1), rtol=1e-5)


def test_master_weights_keep_changes_that_half_precision_loses():
    """An update of 1e-3 of 1: bfloat16 has steps of 2^-8 there, float32 masters add them up."""
    params = {"w": jnp.ones(4)}
    half = optimiser.cast(params, "bfloat16")
    assert half["w"].dtype == jnp.bfloat16
    gradient = jax.grad(lambda p: optimiser.cast(p, "bfloat16")["w"].sum().astype(jnp.float32))(
        params
    )
    assert gradient["w"].dtype == jnp.float32
    rule = optax.sgd(1e-3)
    state = rule.init(params)
    for _ in range(10):
        update, state = rule.update(gradient, state)
        params = optax.apply_updates(params, update)
        half = optax.apply_updates(half, jax.tree.map(lambda x: x.astype(jnp.bfloat16), update))
    np.testing.assert_allclose(params["w"], 0.99, rtol=1e-5)
    assert (half["w"] == 1).all()


def test_every_row_is_in_one_batch_of_its_width():
    lengths = np.random.default_rng(0).integers(1, 257, 103)
    for seed in (None, 1, 2):
        batches = batching.plan(lengths, 8, (64, 128, 256), seed)
        rows = np.concatenate([batch.rows for batch in batches])
        assert sorted(rows[rows >= 0]) == list(range(103))
        assert (rows == -1).sum() == 8 * len(batches) - 103 < 8
        for batch in batches:
            assert len(batch.rows) == 8
            assert (lengths[batch.rows[batch.rows >= 0]] <= batch.width).all()
        narrow = sum(int((b.rows >= 0).sum()) for b in batches if b.width == 64)
        assert narrow == (lengths <= 64).sum() // 8 * 8
    one, two = (batching.plan(lengths, 8, (256,), seed)[0].rows.tolist() for seed in (1, 2))
    assert one != two and batching.plan([], 4) == []
    with pytest.raises(UserError, match="a row of 300 tokens fits no bucket"):
        batching.plan([300], 8, (64, 256))


def test_packing_loses_no_token_and_splits_none():
    rng = np.random.default_rng(1)
    pieces = [rng.integers(1, 99, n).tolist() for n in rng.integers(0, 20, 40)]
    packed = batching.pack(pieces, 24)
    assert len(packed.ids) < 0.6 * len(pieces)
    for i, piece in enumerate(pieces):
        where = np.nonzero(packed.piece == i)
        assert packed.ids[where].tolist() == piece
        if piece:
            assert len(set(where[0])) == 1 and np.ptp(where[1]) == len(piece) - 1
            assert len(set(packed.segment_ids[where])) == 1
    assert packed.mask.sum() == sum(map(len, pieces))
    with pytest.raises(UserError, match=r"pieces\[0\] has 30 tokens"):
        batching.pack([[1] * 30], 24)
    with pytest.raises(UserError, match=r"rows\[1\] has 3 tokens: truncate it to 2"):
        batching.pad_right([[1], [1, 2, 3]], 2)
