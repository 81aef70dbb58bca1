# SPDX-License-Identifier: Apache-2.0
"""Training a found architecture from scratch, scoring it, and what it costs.

The network is the supernet's with one architecture, `choice` `[E]`, given as an array: one program
trains any, and `lax.map` over architectures and keys trains many. Cells' batch norms have no scale
and shift, as in the search. For scoring they get the mean of their statistics over some training
batches ("precise" statistics), so that an image's label does not depend on the images beside it.

Letters in shapes: B batch, E edges, N test images, M statistics batches.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import lax

from jaxsafe.advantage_nas import edges, recurrent, supernet
from jaxsafe.advantage_nas.operations import batch_norm
from jaxsafe.advantage_nas.space import Network, Space, Weights
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.data import text as text_lib
from jaxsafe.nn.count import multiply_adds

Draw = Callable[[jax.Array, jax.Array], Any]


@dataclasses.dataclass(frozen=True)
class RetrainConfig:
    """SGD behind a clip and weight decay, with a cosine to 0. Static under jit."""

    steps: int = field(1000, "Steps of one training.", low=1)
    rate: float = field(0.1, "Learning rate of the first step.", low=0.0)
    momentum: float = field(0.9, "SGD's momentum.", low=0.0, high=0.9999)
    nesterov: bool = field(True, "Nesterov's momentum.")
    decay: float = field(5e-4, "Factor of the weights in their gradient.", low=0.0)
    clip: float = field(5.0, "Greatest norm of the gradient; inf: no clip.", low=0.0)


class State(struct.PyTreeNode):
    """One training under way."""

    weights: Weights
    opt: optax.OptState
    carry: Any  # of the network, as a hidden state
    choice: jax.Array  # [E] int32
    step: jax.Array  # [] int32
    key: jax.Array


def optimizer(config: RetrainConfig) -> optax.GradientTransformation:
    """Clip, decay, SGD."""
    rate = optax.cosine_decay_schedule(config.rate, config.steps)
    sgd = optax.sgd(rate, config.momentum or None, nesterov=config.nesterov)
    clip = [optax.clip_by_global_norm(config.clip)] if np.isfinite(config.clip) else []
    return optax.chain(*clip, optax.add_decayed_weights(config.decay), sgd)


def init(key: jax.Array, choice: jax.Array, network: Network, config: RetrainConfig) -> State:
    """Returns a fresh training of the architecture `choice` `[E]`. `key` is consumed."""
    key_weights, key = jax.random.split(key)
    weights = network.init(key_weights)
    opt = optimizer(config).init(weights)
    return State(weights, opt, network.init_carry(), jnp.asarray(choice), jnp.int32(0), key)


def update(
    state: State, draw: Draw, network: Network, config: RetrainConfig
) -> tuple[State, dict[str, jax.Array]]:
    """One step.

    Args:
      state: of the training.
      draw: `(key, step) -> batch`, pure; consumes `key`.
      network: static.
      config: static.

    Returns:
      the next state, and the network's metrics with `loss`.
    """
    draw_key, drop_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    batch = draw(draw_key, state.step)

    def value(weights: Weights):
        return network.weight_loss(weights, state.choice, batch, state.carry, drop_key)

    (loss, (carry, metrics)), grads = jax.value_and_grad(value, has_aux=True)(state.weights)
    updates, opt = optimizer(config).update(grads, state.opt, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    state = state.replace(weights=weights, opt=opt, carry=carry, step=state.step + 1)
    return state, metrics | {"loss": loss}


def chunk(
    state: State, length: int, draw: Draw, network: Network, config: RetrainConfig
) -> tuple[State, dict[str, jax.Array]]:
    """`length` steps; the metrics are `[length]`."""
    return lax.scan(
        lambda state, _: update(state, draw, network, config), state, None, length=length
    )


def statistics(
    space: Space,
    skeleton: supernet.Skeleton,
    weights: Weights,
    choice: jax.Array,
    batches: jax.Array,
) -> list[jax.Array]:
    """Mean and variance of every normalised map, `[2, C]` each, averaged over `[M, B, H, W, C]`."""

    def of_batch(images: jax.Array) -> list[jax.Array]:
        found: list[jax.Array] = []
        norm, edge = supernet.recording(found)
        _logits(space, skeleton, weights, choice, images, norm, edge)
        return found

    return jax.tree.map(lambda s: jnp.mean(s, 0), lax.map(of_batch, batches))


def _logits(space, skeleton, weights, choice, images, norm, edge) -> jax.Array:
    # Statistics are kept apart map by map, and live edges told apart, so cells are written out.
    unrolled = dataclasses.replace(skeleton, form="unrolled")
    gates = jnp.ones(space.num_edges)
    return supernet.logits(space, unrolled, weights, gates, choice, images, "both", norm, edge)


def image_score(
    space: Space,
    skeleton: supernet.Skeleton,
    weights: Weights,
    choice: jax.Array,
    train: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    batch: int = 256,
) -> dict[str, jax.Array]:
    """Top-1 `accuracy` in [0, 1] and mean cross-entropy `loss` in nats on a test set.

    Args:
      space: of the cells.
      skeleton: around them.
      weights: after training.
      choice: `[E]`.
      train: `[M, B, H, W, C]` normalised training images, for the batch norms' statistics.
      images: `[N, H, W, C]` normalised.
      labels: `[N]`.
      batch: images scored at a time.
    """
    found = statistics(space, skeleton, weights, choice, train)
    total = labels.shape[0]
    padding = -total % batch
    shape = (-1, batch, *images.shape[1:])
    images = jnp.concatenate([images, jnp.zeros((padding, *images.shape[1:]), images.dtype)])

    def of_batch(images: jax.Array) -> jax.Array:
        norm, edge = supernet.playing(found)
        return _logits(space, skeleton, weights, choice, images, norm, edge)

    logits = lax.map(of_batch, images.reshape(shape)).reshape(-1, skeleton.classes)[:total]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    right = jnp.argmax(logits, -1) == labels
    return {"accuracy": jnp.mean(right), "loss": jnp.mean(losses)}


def text_score(
    network: Network, weights: Weights, choice: jax.Array, text: jax.Array, length: int
) -> dict[str, jax.Array]:
    """`perplexity` and `nats` per word over all whole chunks of streams `[L, B]`.

    The hidden state starts at 0 and is carried throughout; nothing is dropped.

    Raises:
      UserError: there is no whole chunk.
    """

    def one(carry: Any, number: jax.Array):
        batch = text_lib.chunk(text, number, length)
        _, (carry, metrics) = network.weight_loss(weights, choice, batch, carry)
        return carry, metrics["nats"]

    count = text_lib.num_chunks(text, length)
    _, nats = lax.scan(one, network.init_carry(), jnp.arange(count))
    return {"nats": jnp.mean(nats), "perplexity": jnp.exp(jnp.mean(nats))}


def live_edges(space: Space, choice: Any) -> list[bool]:
    """Which edges `[E]` bring something of the cell's input to its output, past zero operations."""
    nonzero = [not space.operations[int(k)].is_zero for k in choice]
    fed, read = {0}, set()
    for (start, end), on in zip(space.edges, nonzero, strict=True):  # ends are in rising order
        if on and start in fed:
            fed.add(end)
    read = {space.num_nodes - 1} if space.output == "last" else set(range(1, space.num_nodes))
    for (start, end), on in sorted(zip(space.edges, nonzero, strict=True), key=lambda e: -e[0][1]):
        if on and end in read:
            read.add(start)
    return [
        on and start in fed and end in read
        for (start, end), on in zip(space.edges, nonzero, strict=True)
    ]


def image_cost(space: Space, skeleton: supernet.Skeleton, choice: Any) -> dict[str, int]:
    """`parameters` that an architecture reads and `multiply_adds` for one image, on the host.

    Edges that lead nowhere or come from nothing are not counted.

    Raises:
      UserError: `choice` has another length than the space has edges.
    """
    if len(choice) != space.num_edges:
        raise UserError(f"choice has {len(choice)} entries: give {space.num_edges}, one per edge.")
    live = live_edges(space, choice)
    weights = jax.eval_shape(lambda: supernet.init_weights(jax.random.key(0), space, skeleton))
    parameters = 0
    for name, part in weights.items():
        if not name.startswith("stage"):
            parameters += sum(leaf.size for leaf in jax.tree.leaves(part))
            continue
        for k, alive in zip(choice, live, strict=True):
            leaves = jax.tree.leaves(part[int(k)])
            parameters += alive * sum(leaf.size // space.num_edges for leaf in leaves)
    image = jax.ShapeDtypeStruct((1, *skeleton.image), jnp.float32)
    known = tuple(int(k) if alive else -1 for k, alive in zip(choice, live, strict=True))

    def only_live(operations, weights, gate, choice, x, half):
        if choice < 0:
            return jnp.zeros_like(x)
        return edges.edge(operations, weights, gate, choice, x, half)

    def run(weights: Weights, images: jax.Array) -> jax.Array:
        return _logits(space, skeleton, weights, known, images, batch_norm, only_live)

    return {"parameters": int(parameters), "multiply_adds": multiply_adds(run, weights, image)}


def text_cost(space: Space, language: recurrent.Language, choice: Any) -> dict[str, int]:
    """`parameters` that an architecture reads and `multiply_adds` for one word of one stream."""
    used = recurrent.used_parameters(space, language, choice)
    # Every matrix but the embedding is multiplied once a word.
    around = language.vocabulary * language.units + language.vocabulary
    return {"parameters": used, "multiply_adds": used - around}
