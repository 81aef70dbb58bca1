# SPDX-License-Identifier: Apache-2.0
"""A search over devices is the search whose loss is the mean over their shares."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import algorithm, data_parallel
from jaxsafe.advantage_nas.config import Config, EstimatorConfig
from jaxsafe.advantage_nas.space import nas_bench_201
from jaxsafe.advantage_nas.supernet import Skeleton, image_network
from jaxsafe.advantage_nas.types import Batch
from jaxsafe.core.checks import UserError
from tests.advantage_nas import worlds

IMAGES = image_network(nas_bench_201(), Skeleton((4, 4, 3), 5, 2, 1, "scan"))


def images(key, size=8):
    made = jax.random.normal(key, (2, size, 4, 4, 3))
    return Batch(*((half, jnp.arange(size) % 5) for half in made))


def in_halves(network):
    """The network whose loss is the mean over two halves of a batch."""

    def loss(weights, gates, choice, batch, half, carry, key):
        found = []
        for i in range(2):
            share = jax.tree.map(lambda x, i=i: x.reshape(2, -1, *x.shape[1:])[i], batch)
            own = jax.random.fold_in(key, i)
            found.append(network.loss(weights, gates, choice, share, half, carry, own))
        (a, (carry, m)), (b, (_, n)) = found
        return (a + b) / 2, (carry, jax.tree.map(lambda x, y: (x + y) / 2, m, n))

    return dataclasses.replace(network, loss=loss)


@pytest.mark.device8
@pytest.mark.parametrize(
    ("network", "batch", "method"),
    [
        (worlds.NETWORK, worlds.batch, "advantage"),
        (worlds.NETWORK, worlds.batch, "darts"),
        (IMAGES, images, "advantage"),
    ],
)
def test_two_devices_take_the_step_of_the_mean_over_halves(network, batch, method):
    config = Config(
        epochs=4, freeze_epochs=0, steps_per_epoch=3, estimator=EstimatorConfig(method=method)
    )
    spread = jax.jit(data_parallel.updates(config, network, jax.devices()[:2]))
    halves = in_halves(network)
    alone = jax.jit(lambda state, batch: algorithm.update(state, batch, config, halves))
    one = two = algorithm.init(jax.random.key(0), config, network)
    for step in range(2):
        minibatch = batch(jax.random.key(step))
        one, expected = alone(one, minibatch)
        two, found = spread(two, minibatch)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)  # noqa: E731
    jax.tree.map(close, found, expected)
    jax.tree.map(close, two.replace(key=()), one.replace(key=()))


def test_on_one_device_it_is_the_plain_update():
    config = Config(epochs=4, freeze_epochs=0, steps_per_epoch=3)
    network = dataclasses.replace(
        worlds.NETWORK, loss=lambda *arguments: worlds.NETWORK.loss(*arguments[:-1], None)
    )
    state = algorithm.init(jax.random.key(0), config, network)
    minibatch = worlds.batch(jax.random.key(1))
    expected = algorithm.update(state, minibatch, config, network)
    found = data_parallel.updates(config, network, jax.devices()[:1])(state, minibatch)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, found[1], expected[1])
    jax.tree.map(close, found[0].replace(key=()), expected[0].replace(key=()))


def test_what_cannot_be_spread_is_named():
    config = Config(epochs=4, freeze_epochs=0, steps_per_epoch=3)
    text = dataclasses.replace(worlds.NETWORK, init_carry=lambda: jnp.zeros((8, 3)))
    with pytest.raises(UserError, match="'series' carries rows"):
        data_parallel.updates(config, text, jax.devices()[:1])


@pytest.mark.device8
def test_rows_that_do_not_divide_are_named():
    config = Config(epochs=4, freeze_epochs=0, steps_per_epoch=3)
    state = algorithm.init(jax.random.key(0), config, worlds.NETWORK)
    update = data_parallel.updates(config, worlds.NETWORK, jax.devices()[:2])
    with pytest.raises(UserError, match="7 rows of a batch do not divide over 2 devices"):
        update(state, worlds.batch(jax.random.key(0), 7))
