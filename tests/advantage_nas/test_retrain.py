# SPDX-License-Identifier: Apache-2.0
"""Retraining learns, scores do not depend on batches, and costs are those counted by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import recurrent, retrain, supernet
from jaxsafe.advantage_nas.space import NAS_BENCH_201, nas_bench_201, ptb
from jaxsafe.core.checks import UserError
from jaxsafe.data import images, text

SKELETON = supernet.Skeleton(image=(8, 8, 1), channels=4, cells=1)
CHOICE = np.array([2, 0, 3, 1, 2, 2])


def test_digits_are_learned_and_scored_image_by_image():
    space, found = nas_bench_201(), images.digits()
    network = supernet.image_network(space, SKELETON)
    config = retrain.RetrainConfig(steps=120)
    train = images.Part(*map(jnp.asarray, found.train))
    tests = images.normalise(jnp.asarray(found.test.images), found.mean, found.std)
    labels = jnp.asarray(found.test.labels)

    def draw(key, step):
        return images.draw_batch(key, train, found.mean, found.std, 32)

    @jax.jit
    def learn(key, choice):
        state = retrain.init(key, choice, network, config)
        return retrain.chunk(state, config.steps, draw, network, config)

    state, metrics = learn(jax.random.key(0), jnp.asarray(CHOICE))
    assert metrics["loss"].shape == (120,) and state.step == 120
    assert metrics["loss"][-10:].mean() < 0.4 * metrics["loss"][:5].mean()
    batches = images.normalise(train.images[:256], found.mean, found.std).reshape(4, 64, 8, 8, 1)

    def score(batch, tests, labels):
        weights = state.weights
        return retrain.image_score(
            space, SKELETON, weights, state.choice, batches, tests, labels, batch
        )

    whole = jax.jit(score, static_argnums=0)(128, tests, labels)
    assert whole["accuracy"] > 0.75
    # Alone or among others, an image gets the same label.
    few = jax.jit(score, static_argnums=0)(3, tests[:20], labels[:20])
    again = jax.jit(score, static_argnums=0)(32, tests[:20], labels[:20])
    for name in ("accuracy", "loss"):
        np.testing.assert_allclose(few[name], again[name], rtol=1e-4)


def test_played_statistics_of_one_batch_give_that_batchs_logits():
    space = nas_bench_201(NAS_BENCH_201)
    weights = supernet.init_weights(jax.random.key(0), space, SKELETON)
    batch = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))
    choice = jnp.array([2, 4, 3, 1, 0, 2])
    gates = jnp.ones(6)
    usual = supernet.logits(space, SKELETON, weights, gates, choice, batch)
    kept = retrain.statistics(space, SKELETON, weights, choice, batch[None])
    norm, edge = supernet.playing(kept)
    played = supernet.logits(space, SKELETON, weights, gates, choice, batch, norm=norm, edge=edge)
    np.testing.assert_allclose(played, usual, atol=1e-5)
    # Of two batches it is the mean.
    twice = retrain.statistics(space, SKELETON, weights, choice, jnp.stack([batch, 3 * batch]))
    first = retrain.statistics(space, SKELETON, weights, choice, 3 * batch[None])
    np.testing.assert_allclose(twice[0], (kept[0] + first[0]) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("choice", "live"),
    [
        ([2, 0, 3, 1, 2, 2], [1, 1, 1, 1, 1, 1]),
        ([4, 2, 2, 2, 2, 2], [0, 1, 0, 1, 0, 1]),  # node 1 gets nothing
        ([2, 2, 2, 2, 4, 4], [0, 0, 0, 1, 0, 0]),  # nodes 1 and 2 are not read
        ([2, 4, 2, 4, 4, 2], [1, 0, 1, 0, 0, 1]),
        ([4, 4, 4, 4, 4, 4], [0] * 6),
        ([4, 4, 2, 4, 2, 2], [0] * 6),
    ],
)
def test_edges_that_matter(choice, live):
    assert retrain.live_edges(nas_bench_201(NAS_BENCH_201), choice) == [bool(x) for x in live]


def by_hand(choice, live):
    """Parameters and multiply-adds at C = 4, N = 1, 8x8x1 images, 10 classes."""
    parameters = 9 * 4 + 8 + 2 * 16 + 160 + 10
    macs = 64 * 9 * 4 + 160
    for c, pixels in ((4, 64), (8, 16), (16, 4)):
        for k, alive in zip(choice, live, strict=True):
            size = alive * {0: 0, 1: c * c, 2: 9 * c * c, 3: 0, 4: 0}[k]
            parameters, macs = parameters + size, macs + size * pixels
        if c > 4:
            block = 9 * c * c // 2 + 9 * c * c + c * c // 2
            parameters += block + 4 * c
            macs += block * pixels
    return {"parameters": parameters, "multiply_adds": macs}


@pytest.mark.parametrize("form", ["unrolled", "scan"])
def test_costs_are_those_by_hand(form):
    space = nas_bench_201(NAS_BENCH_201)
    skeleton = dataclasses.replace(SKELETON, form=form)
    for choice in ([2, 0, 3, 1, 2, 2], [4, 2, 2, 2, 2, 1], [4] * 6, [1] * 6):
        live = retrain.live_edges(space, choice)
        assert retrain.image_cost(space, skeleton, choice) == by_hand(choice, live)
    full = retrain.image_cost(nas_bench_201(), SKELETON, [2, 1, 2, 1, 0, 3])
    assert full == by_hand([2, 1, 2, 1, 0, 3], [1] * 6)
    with pytest.raises(UserError, match="choice has 5 entries"):
        retrain.image_cost(space, SKELETON, [0] * 5)


def test_a_text_is_learned_and_its_perplexity_is_that_of_one_long_pass():
    language = recurrent.Language(vocabulary=6, streams=4, units=8, dropout=0.0, sum_loss=False)
    network = recurrent.recurrent_network(ptb(), language)
    streams = jnp.asarray(text.streams(np.tile(np.arange(6, dtype=np.int32), 40), 4))
    config = retrain.RetrainConfig(steps=150, rate=1.0, decay=0.0, clip=1.0)
    state = retrain.init(jax.random.key(0), jnp.asarray(CHOICE), network, config)

    def draw(key, step):
        return text.chunk(streams, step, 7)

    @jax.jit
    def learn(state):
        return retrain.chunk(state, config.steps, draw, network, config)

    score = jax.jit(lambda weights: retrain.text_score(network, weights, CHOICE, streams, 7))
    before, after = score(state.weights), score(learn(state)[0].weights)
    assert before["perplexity"] == pytest.approx(6, rel=0.05)
    assert after["perplexity"] < 1.5  # each word follows from the one before
    count = text.num_chunks(streams, 7) * 7
    _, (_, metrics) = network.weight_loss(
        state.weights, jnp.asarray(CHOICE), text.chunk(streams, 0, count), network.init_carry()
    )
    np.testing.assert_allclose(before["nats"], metrics["nats"], rtol=1e-5)
    cost = retrain.text_cost(ptb(), language, [4, 0, 1, 1, 2, 3])
    matrices = (2 * 2 + 11) * 64 + 6 * 8
    assert cost == {"parameters": matrices + 6 * 8 + 6, "multiply_adds": matrices}
