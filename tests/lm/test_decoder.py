# SPDX-License-Identifier: Apache-2.0
"""The decoder's known answers: what can be said of its logits without another library."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import lm
from jaxsafe.core.checks import UserError
from jaxsafe.lm import layers
from tests.lm import models

FAMILIES = list(models.FAMILIES)
TINY = lm.DecoderConfig(4096, 256, 4, 4, 4, 64, 688)


@functools.partial(jax.jit, static_argnums=0)
def logits(config, params, *arguments, **kwargs):
    return lm.Decoder(config).apply({"params": params}, *arguments, **kwargs)


def test_the_tiny_models_parameters_are_counted():
    """`language_models.md` section 7: 2 * 4096 * 256 + 4 * (4 * 256^2 + 3 * 256 * 688 + ...)."""
    assert lm.num_params(TINY) == 5_261_568
    for config in models.FAMILIES.values():
        tree = jax.eval_shape(lambda c=config: lm.init(jax.random.key(0), c))
        assert sum(leaf.size for leaf in jax.tree.leaves(tree)) == lm.num_params(config)


def test_llama3_scaling_keeps_blends_and_divides():
    """The page's constants: theta 500000, head_dim 128, factor 8, low 1, high 4, old 8192."""
    plain = layers.frequencies(128, 500_000.0)
    scaled = layers.frequencies(128, 500_000.0, lm.Llama3Scaling())
    assert (scaled[:29] == plain[:29]).all()
    np.testing.assert_allclose(scaled[35:], plain[35:] / 8, rtol=2e-7)
    expected = {
        28: 0.00321144599475,
        29: 0.00216657076350,
        31: 0.000856751412920,
        34: 0.000178507812768,
        35: 0.0000955621235396,
        63: 3.06892598891e-7,
    }
    for index, value in expected.items():
        np.testing.assert_allclose(scaled[index], value, rtol=2e-7)


def test_rotation_keeps_norms_and_products_depend_on_distance_only():
    config = models.FAMILIES["qwen3"]
    q, k = (jax.random.normal(jax.random.key(i), (8,)) for i in range(2))

    def at(x, position):
        return layers.rotate(x, *layers.rope_tables(jnp.int32(position), config))

    np.testing.assert_allclose(jnp.linalg.norm(at(q, 11)), jnp.linalg.norm(q), rtol=1e-6)
    np.testing.assert_allclose(at(q, 9) @ at(k, 4), at(q, 25) @ at(k, 20), rtol=1e-4)
    assert abs(at(q, 9) @ at(k, 4) - at(q, 9) @ at(k, 5)) > 1e-3
    np.testing.assert_array_equal(at(q, 0), q)


@pytest.mark.parametrize("family", ["qwen3", "llama3"])
def test_tables_that_are_looked_up_are_those_that_are_computed(family):
    config = models.FAMILIES[family]
    positions = jnp.array([[0, 7, 3], [900, 2, 7]])
    for found, expected in zip(
        layers.rope_tables(positions, config, 901),
        layers.rope_tables(positions, config),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_layers_the_model_is_a_table_of_bigrams():
    """Zero output projections leave rms(E[id]) W, which NumPy computes here."""
    config = models.FAMILIES["mistral"]
    params = models.params(config)
    for name in ("o", "down"):
        kernel = params["layers"][name]["kernel"]
        params["layers"][name]["kernel"] = jnp.zeros_like(kernel)
    ids = models.tokens(config, (2, 7))
    embed = np.asarray(params["embed"], np.float64)[np.asarray(ids)]
    normed = embed / np.sqrt((embed**2).mean(-1, keepdims=True) + config.rms_eps)
    expected = (normed * np.asarray(params["final_norm"])) @ np.asarray(params["head"]["kernel"])
    np.testing.assert_allclose(logits(config, params, ids), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_packed_neighbours_change_nothing(family):
    """Three pieces in one row, and the first alone in it: on the right, on the left, between."""
    config = models.FAMILIES[family]
    params, pieces = models.params(config), models.tokens(config, (3, 7))
    alone = logits(config, params, pieces)
    rows = np.full((4, 24), 5, np.int32)
    segments = np.zeros((4, 24), np.int32)
    places = [(0, 0, 0), (0, 7, 1), (0, 14, 2), (1, 17, 0), (2, 0, 0), (3, 4, 0)]
    for row, begin, piece in places:
        rows[row, begin : begin + 7] = pieces[piece]
        segments[row, begin : begin + 7] = 1 + piece
    found = logits(config, params, rows, segments > 0, segment_ids=segments)
    assert jnp.isfinite(found).all()
    for row, begin, piece in places:
        part = found[row, begin : begin + 7]
        np.testing.assert_allclose(part, alone[piece], rtol=0, atol=2e-5)


def test_padding_needs_no_segments():
    config = models.FAMILIES["qwen2"]
    params, ids = models.params(config), models.tokens(config, (1, 7))
    rows, mask = np.full((2, 12), 5, np.int32), np.zeros((2, 12), bool)
    for row, begin in ((0, 5), (1, 0)):
        rows[row, begin : begin + 7], mask[row, begin : begin + 7] = ids[0], True
    found = logits(config, params, rows, mask)
    alone = logits(config, params, ids)[0]
    np.testing.assert_allclose(found[0, 5:], alone, rtol=0, atol=2e-5)
    np.testing.assert_allclose(found[1, :7], alone, rtol=0, atol=2e-5)


def test_later_tokens_and_tokens_out_of_the_window_are_not_seen():
    """Three layers with a window of four reach back 3 * (4 - 1) = 9 tokens and no further."""
    config = models.FAMILIES["mistral"]
    params, ids = models.params(config), models.tokens(config, (1, 16))
    base = logits(config, params, ids)
    changed = logits(config, params, ids.at[0, 3].add(1))
    moved = jnp.abs(changed - base).max(axis=-1)[0] > 1e-6
    assert not moved[:3].any() and moved[3:11].all() and not moved[13:].any()


@pytest.mark.slow
def test_remat_and_unrolled_layers_change_no_gradient():
    """Slow to compile four times; `tests/parity` compares each with torch's gradient too."""
    base = models.FAMILIES["qwen2"]
    params, ids = models.params(base), models.tokens(base, (2, 8))

    def gradient(**change):
        config = dataclasses.replace(base, **change)

        def loss(p):
            out = jax.nn.log_softmax(lm.apply_fn(config)(p, ids, jnp.ones_like(ids)))
            return -jnp.take_along_axis(out[:, :-1], ids[:, 1:, None], -1).mean()

        return jax.jit(jax.value_and_grad(loss))(params)

    value, expected = gradient()
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(expected))
    for change in ({"remat": "full"}, {"remat": "dots"}, {"scan_layers": False}):
        other, found = gradient(**change)
        np.testing.assert_allclose(other, value, rtol=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected
        )


def test_bfloat16_computes_near_float32_and_ends_in_it():
    config = models.FAMILIES["llama"]
    params, ids = lm.init(jax.random.key(0), config), models.tokens(config, (2, 8))
    half = logits(dataclasses.replace(config, dtype="bfloat16"), params, ids)
    whole = logits(config, params, ids)
    assert half.dtype == jnp.float32
    gap = jnp.abs(half - whole).max() / jnp.abs(whole).max()
    assert 0 < gap < 0.03


def test_the_head_reads_any_choice_of_hidden_states():
    config = models.FAMILIES["qwen2"]
    params, ids = {"params": models.params(config)}, models.tokens(config, (2, 8))
    model = lm.Decoder(config)
    hidden = model.apply(params, ids, method="hidden")
    some = model.apply(params, hidden[:, 5:7], method="head")
    np.testing.assert_allclose(some, model.apply(params, ids)[:, 5:7], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads=3 does not divide num_heads=4"),
        ({"head_dim": 5}, "head_dim=5 is odd"),
        ({"window_layers": (True,)}, "window_layers has 1 flags: give num_layers=3"),
        ({"dtype": "bfloat"}, "dtype='bfloat' is unknown. Did you mean 'bfloat16'"),
        ({"vocab_size": 0}, "vocab_size=0 is out of range"),
    ],
)
def test_what_no_decoder_can_be_is_refused(change, message):
    config = dataclasses.replace(models.FAMILIES["llama"], **change)
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        lm.validate(config)
