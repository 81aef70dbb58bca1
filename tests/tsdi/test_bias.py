# SPDX-License-Identifier: Apache-2.0
"""The estimate against planted biases and numbers worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import tsdi
from jaxsafe.tsdi import bias, pool
from tests.tsdi import planted

REF = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
TILT = np.array([2.0, 0.0, -1.0, 0.0])
CONFIG = tsdi.Config(positions=3, draws=64, prompt_length=4, batch_size=8)
P = CONFIG.prompt_length


def tilted(reference, tilt=TILT):
    weights = reference * np.exp(tilt)
    return weights / weights.sum(-1, keepdims=True)


def estimate(config, pair, seed=0, model=planted.MODEL):
    state = bias.init(jax.random.key(0), config, planted.VOCAB)
    step = jax.jit(lambda s, b: bias.update(s, b, config, model, pair))
    words = jnp.arange(planted.VOCAB)
    draw = jax.jit(lambda key: pool.batch(key, words, pool.Template(), config))
    for i in range(config.draws // config.batch_size):
        key = jax.random.fold_in(jax.random.key(seed), i)
        state, metrics = step(state, draw(key))
    return state, metrics


def centred(x, reference):
    return x - (reference * x).sum(-1, keepdims=True)


def test_the_difference_of_two_distributions():
    safe = np.log(tilted(REF[0]))
    d = bias.difference(jnp.asarray(safe), jnp.log(REF[0]), "logprob")
    np.testing.assert_allclose(
        d, [1.628940403469, -0.371059596531, -1.371059596531, -0.371059596531], atol=1e-6
    )
    np.testing.assert_allclose(
        np.exp(safe), [0.509846953475, 0.138000563712, 0.076151355389, 0.276001127424], atol=1e-12
    )


def test_the_mean_difference_of_probabilities_is_not_free_of_context():
    safe = np.log(np.stack([tilted(row) for row in REF]))
    d = bias.difference(jnp.asarray(safe), jnp.log(REF), "prob").mean(0)
    np.testing.assert_allclose(
        d, [0.333035662421, -0.071756082706, -0.158523778866, -0.102755800850], atol=1e-6
    )


@pytest.mark.parametrize("space", ["logprob", "centred_logit"])
@pytest.mark.parametrize("draws", [8, 64])
def test_a_planted_bias_is_found_at_any_number_of_draws(space, draws):
    config = dataclasses.replace(CONFIG, space=space, draws=draws)
    pair, planted_bias = planted.pair(P, 3)
    state, _ = estimate(config, pair)
    found = tsdi.table(state, config)
    np.testing.assert_allclose(found.bias, centred(planted_bias, state.reference), atol=2e-6)
    assert state.count == draws


def test_the_error_falls_as_the_root_of_the_draws_and_is_the_stated_one():
    pair, _ = planted.pair(P, 3, noise=0.5)
    misses, stated = [], []
    for draws in (128, 2048):
        config = dataclasses.replace(CONFIG, draws=draws, batch_size=64, space="centred_logit")
        runs = [estimate(config, pair, seed)[0] for seed in range(6)]
        mean = np.mean([run.mean for run in runs], 0)
        misses.append(np.mean([(run.mean - mean) ** 2 for run in runs]) ** 0.5)
        stated.append(np.mean([tsdi.table(run, config).error for run in runs]))
    assert misses[1] / misses[0] == pytest.approx(0.25, abs=0.06)
    # Six runs spread about their own mean, hence sqrt(5/6).
    np.testing.assert_allclose(np.array(misses) / np.sqrt(5 / 6) / stated, 1.0, atol=0.15)


def test_chunks_of_any_size_give_one_estimate():
    pair, _ = planted.pair(P, 3, noise=0.5)
    words, whole = jnp.arange(planted.VOCAB), dataclasses.replace(CONFIG, batch_size=64)
    batch = pool.batch(jax.random.key(3), words, pool.Template(), whole)
    at_once, state = (bias.init(jax.random.key(0), whole, planted.VOCAB) for _ in range(2))
    at_once, _ = bias.update(at_once, batch, whole, planted.MODEL, pair)
    for i in range(0, 64, 16):
        part = jax.tree.map(lambda x, i=i: x[i : i + 16], batch)
        state, _ = bias.update(state, part, whole, planted.MODEL, pair)
    for name in ("count", "mean", "squares", "reference", "divergence"):
        np.testing.assert_allclose(
            getattr(state, name), getattr(at_once, name), rtol=2e-5, atol=2e-6, err_msg=name
        )
    assert (at_once.squares / 63 > 0.01).any()


def test_shifted_logits_change_nothing_and_swapped_models_negate():
    pair, _ = planted.pair(P, 3, noise=0.5)
    base = tsdi.table(estimate(CONFIG, pair)[0], CONFIG)
    moved = pair._replace(safe=pair.safe | {"rows": pair.safe["rows"] + 5.0})
    np.testing.assert_allclose(
        tsdi.table(estimate(CONFIG, moved)[0], CONFIG).bias, base.bias, atol=1e-5
    )
    swapped, _ = estimate(CONFIG, tsdi.Pair(pair.reference, pair.safe))
    np.testing.assert_allclose(swapped.mean, -estimate(CONFIG, pair)[0].mean, atol=1e-6)


def test_equal_models_have_no_bias():
    pair, _ = planted.pair(P, 3)
    state, metrics = estimate(CONFIG, tsdi.Pair(pair.safe, pair.safe))
    assert not np.asarray(tsdi.table(state, CONFIG).bias).any()
    assert metrics["bias/divergence"] == 0


def test_halves_agree_where_the_bias_is_free_of_context_and_less_where_it_is_not():
    clear, _ = estimate(CONFIG, planted.pair(P, 3)[0])
    np.testing.assert_allclose(bias.split_half(clear, CONFIG), 1.0, atol=1e-4)
    blurred, _ = estimate(CONFIG, planted.pair(P, 3, noise=6.0)[0])
    assert (np.asarray(bias.split_half(blurred, CONFIG)) < 0.9).all()
    np.testing.assert_allclose(blurred.halves.mean(0), blurred.mean, atol=1e-5)


def test_shrinkage_draws_what_is_within_the_error_to_zero():
    config = dataclasses.replace(CONFIG, shrinkage=2.0)
    state, _ = estimate(config, planted.pair(P, 3, noise=3.0)[0])
    plain, shrunk = tsdi.table(state, CONFIG), tsdi.table(state, config)
    near = np.abs(plain.bias) <= 2 * plain.error
    assert near.any() and not near.all()
    assert not np.asarray(shrunk.bias)[near].any()
    np.testing.assert_allclose(
        np.abs(plain.bias - shrunk.bias)[~near], 2 * plain.error[~near], rtol=1e-4
    )


def test_the_same_key_gives_the_same_table():
    pair, _ = planted.pair(P, 3, noise=1.0)
    one, two, other = (estimate(CONFIG, pair, seed)[0].mean for seed in (1, 1, 2))
    assert (one == two).all() and (one != other).any()


def test_no_position_is_no_table():
    config = dataclasses.replace(CONFIG, positions=0)
    state, metrics = estimate(config, planted.pair(P, 3)[0])
    assert tsdi.table(state, config).bias.shape == (0, planted.VOCAB)
    assert metrics["bias/error"] == 0
