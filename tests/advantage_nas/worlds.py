# SPDX-License-Identifier: Apache-2.0
"""A supernet that compiles in a second: two edges in series on vectors, a label to guess."""

import jax
import jax.numpy as jnp

from jaxsafe.advantage_nas import operations
from jaxsafe.advantage_nas.space import Network, Space
from jaxsafe.advantage_nas.types import Batch

WIDTH, CLASSES = 4, 3
OPS = (lambda x, w: x, lambda x, w: jnp.tanh(x @ w), lambda x, w: jnp.zeros_like(x))


def _init(key):
    keys = jax.random.split(key, 2)
    shape = (2, WIDTH, WIDTH)
    return {
        "edges": jax.random.normal(keys[0], shape) / 2,
        "head": jax.random.normal(keys[1], (WIDTH, CLASSES)) / 2,
    }


def _loss(weights, gates, choice, batch, half, carry, key):
    """The carry counts the minibatches of its stream; dropout uses the key."""
    x, label = batch
    if key is not None:
        x = x * jax.random.bernoulli(key, 0.9, x.shape) / 0.9
    mixture = gates if choice is None else gates[:, None] * jax.nn.one_hot(choice, len(OPS))
    for row, w in zip(mixture, weights["edges"], strict=True):
        x = x + sum(g * op(x, w) for g, op in zip(row, OPS, strict=True))
    logits = jax.nn.log_softmax(x @ weights["head"])
    loss = -jnp.mean(jnp.take_along_axis(logits, label[:, None], axis=1))
    accuracy = jnp.mean(jnp.argmax(logits, axis=1) == label)
    return loss, (carry + 1, {"accuracy": accuracy})


# Names of the operations only; the loss has its own.
SPACE = Space(
    "series",
    num_nodes=3,
    edges=((0, 1), (1, 2)),
    operations=(
        operations.from_function("identity", lambda x: x),
        operations.from_function("tanh", jnp.tanh),
        operations.zero("zero"),
    ),
)
NETWORK = Network(SPACE, _init, _loss, lambda: jnp.int32(0))


def batch(key, size=8):
    """A minibatch of each half: the label is the place of the greatest of three numbers."""
    x = jax.random.normal(key, (2, size, WIDTH))
    label = jnp.argmax(x[..., :CLASSES], axis=-1)
    return Batch((x[0], label[0]), (x[1], label[1]))
