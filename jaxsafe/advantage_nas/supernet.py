# SPDX-License-Identifier: Apache-2.0
"""The image supernet: NAS-Bench-201's skeleton around cells that share one architecture.

3x3 convolution and batch norm; three stages of N cells with C, 2C and 4C channels, a residual block
of stride 2 before the second and the third; batch norm, ReLU, global mean, linear layer.

It follows NAS-Bench-201 (AutoDL-Projects). Where the AdvantageNAS authors' code departs from it, a
field of `Skeleton` or an argument of `space.nas_bench_201` restores that. Two departures have none:
their convolutions' biases, which the following batch norm cancels, and running statistics, which
nothing reads while searching: batches normalise themselves. A shared cell means shared gates:
their gradients are sums over cells.

Letters in shapes: B batch, H and W rows and columns, E edges, K candidates, L classes, N cells.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxsafe.advantage_nas import edges
from jaxsafe.advantage_nas.operations import batch_norm, moments, normalise
from jaxsafe.advantage_nas.space import Network, Space, Weights
from jaxsafe.core.checks import UserError, check_choice, check_range
from jaxsafe.nn.conv import conv2d
from jaxsafe.nn.mlp import bias_uniform, fan_in_uniform

FORMS = ("unrolled", "scan", "dense")
Norm = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Skeleton:
    """What stands around the cells; the defaults are NAS-Bench-201's.

    Attributes:
      image: `(H, W, channels)`; H and W are multiples of 4.
      classes: L.
      channels: C of the first stage.
      cells: N of each stage.
      form: "unrolled" writes every cell into the program; "scan" compiles one per stage, sooner,
        and needs twice the memory; "dense" runs every candidate and takes the sampled one's output,
        to compare with.
      native: leave convolutions' gradients to JAX (for GPUs).
      reference_head: no batch norm and ReLU before the global mean.
      reference_shortcut: the residual blocks' shortcuts take means over padded windows of 3x3.
    """

    image: tuple[int, int, int] = (32, 32, 3)
    classes: int = 10
    channels: int = 16
    cells: int = 5
    form: str = "unrolled"
    native: bool = False
    reference_head: bool = False
    reference_shortcut: bool = False

    def __post_init__(self) -> None:
        check_choice("form", self.form, FORMS)
        for name in ("classes", "channels", "cells"):
            check_range(name, getattr(self, name), low=1)
        for size in self.image[:2]:
            if size < 4 or size % 4:
                raise UserError(
                    f"images of {self.image[0]} x {self.image[1]} cannot be halved twice: "
                    "give sizes that are multiples of 4."
                )


@functools.cache
def image_network(space: Space, skeleton: Skeleton) -> Network:
    """Returns the supernet of `space`; a batch is `(images [B, H, W, channels], labels [B])`.

    The loss is the mean cross-entropy in nats, its metric the `accuracy` in [0, 1].
    """

    def init(key: jax.Array) -> Weights:
        return init_weights(key, space, skeleton)

    def loss(weights, gates, choice, batch, half="both", carry=(), key=None):
        images, labels = batch
        out = logits(space, skeleton, weights, gates, choice, images, half)
        losses = optax.softmax_cross_entropy_with_integer_labels(out, labels)
        metrics = {"accuracy": jnp.mean(jnp.argmax(out, -1) == labels)}
        return jnp.mean(losses), (carry, metrics)

    return Network(space, init, loss)


def init_weights(key: jax.Array, space: Space, skeleton: Skeleton) -> Weights:
    """Returns all weights; leaves of cells are `[N, E, ...]`. `key` is consumed."""
    stem_key, head_key, bias_key, *stage_keys = jax.random.split(key, 6)
    height, width, depth = skeleton.image
    channels = skeleton.channels
    weights: dict[str, Any] = {
        "stem": {"kernel": _kernel(stem_key, 3, depth, channels), **_affine(channels)}
    }
    for stage, stage_key in enumerate(stage_keys):
        keys = jax.random.split(stage_key, skeleton.cells + 1)
        node = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
        made = jax.vmap(lambda key, node=node: edges.init_cell(key, space, node))(keys[1:])
        weights[f"stage{stage}"] = made
        if stage < 2:
            weights[f"block{stage}"] = _init_block(keys[0], channels)
            height, width, channels = height // 2, width // 2, 2 * channels
    weights["head"] = {
        "kernel": fan_in_uniform()(head_key, (channels, skeleton.classes)),
        "bias": bias_uniform(channels)(bias_key, (skeleton.classes,)),
        **({} if skeleton.reference_head else _affine(channels)),
    }
    return weights


def _kernel(key: jax.Array, size: int, into: int, out: int) -> jax.Array:
    return fan_in_uniform()(key, (size, size, into, out))


def _affine(channels: int) -> dict[str, jax.Array]:
    return {"scale": jnp.ones(channels), "shift": jnp.zeros(channels)}


def _init_block(key: jax.Array, channels: int) -> Weights:
    keys = jax.random.split(key, 3)
    wide = 2 * channels
    return {
        "first": {"kernel": _kernel(keys[0], 3, channels, wide), **_affine(wide)},
        "second": {"kernel": _kernel(keys[1], 3, wide, wide), **_affine(wide)},
        "shortcut": _kernel(keys[2], 1, channels, wide),
    }


def logits(
    space: Space,
    skeleton: Skeleton,
    weights: Weights,
    gates: jax.Array,
    choice: Any,
    images: jax.Array,
    half: str = "both",
    norm: Norm = batch_norm,
    edge: Callable[..., jax.Array] = edges.edge,
) -> jax.Array:
    """Logits `[B, L]`.

    Args:
      space: of the cells.
      skeleton: around them.
      weights: of `init_weights`.
      gates: `[E]`, or a mixture `[E, K]` where `choice` is None.
      choice: `[E]` int32; see `edges.cell`.
      images: `[B, H, W, channels]`.
      half: which gradients will be taken; see `edges.edge`.
      norm: normalises each channel of `[B, H, W, C]`.
      edge: what an edge brings, as `edges.edge`.

    Raises:
      UserError: the images have another size than the skeleton's.
    """
    if images.shape[1:] != skeleton.image:
        raise UserError(
            f"images are {images.shape[1:]}, the skeleton's {skeleton.image}: give it theirs."
        )
    if skeleton.form == "dense" and choice is not None:
        gates = gates[:, None] * jax.nn.one_hot(jnp.asarray(choice), space.num_operations)
        choice = None
    stem = weights["stem"]
    x = conv2d(images, stem["kernel"], native=skeleton.native)
    x = _scaled(norm(x), stem)
    for stage in range(3):
        if stage > 0:
            x = _block(x, weights[f"block{stage - 1}"], skeleton, norm)
        x = _stage(space, skeleton, weights[f"stage{stage}"], gates, choice, x, half, edge)
    head = weights["head"]
    if not skeleton.reference_head:
        x = jax.nn.relu(_scaled(norm(x), head))
    return jnp.mean(x, (1, 2)) @ head["kernel"] + head["bias"]


def _scaled(x: jax.Array, weights: Weights) -> jax.Array:
    return x * weights["scale"] + weights["shift"]


def _stage(space, skeleton, weights, gates, choice, x, half, edge) -> jax.Array:
    def one(x: jax.Array, weights: Weights) -> tuple[jax.Array, None]:
        return edges.cell(space, weights, gates, choice, x, half, edge), None

    if skeleton.form == "scan":
        return lax.scan(one, x, weights)[0]
    for of_cell in edges.unstack(weights, skeleton.cells):
        x, _ = one(x, of_cell)
    return x


def _block(x: jax.Array, weights: Weights, skeleton: Skeleton, norm: Norm) -> jax.Array:
    """Residual block of stride 2, `[B, H, W, C]` to `[B, H / 2, W / 2, 2 C]`."""
    out = x
    for name, stride in (("first", 2), ("second", 1)):
        layer = weights[name]
        out = conv2d(jax.nn.relu(out), layer["kernel"], stride, 1, skeleton.native)
        out = _scaled(norm(out), layer)
    pooled = _padded_mean(x) if skeleton.reference_shortcut else _mean_of_four(x)
    return out + conv2d(pooled, weights["shortcut"])


def _mean_of_four(x: jax.Array) -> jax.Array:
    batch, height, width, channels = x.shape
    return jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), (2, 4))


def _padded_mean(x: jax.Array) -> jax.Array:
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, 0.0, lax.add, window, strides, pads) / 9


def recording(found: list[jax.Array]) -> tuple[Norm, Callable[..., jax.Array]]:
    """Returns `norm` and `edge` for `logits` that append their statistics `[2, C]` to `found`."""

    def norm(x: jax.Array) -> jax.Array:
        found.append(moments(x))
        return normalise(x, found[-1])

    def edge(operations, weights, gate, choice, x, half):
        y, statistics = edges.chosen(operations, weights, choice, x)
        found.append(statistics)
        return gate * y

    return norm, edge


def playing(given: Sequence[jax.Array]) -> tuple[Norm, Callable[..., jax.Array]]:
    """Returns `norm` and `edge` for `logits` that take their statistics from `recording`'s list."""
    left = iter(given)

    def norm(x: jax.Array) -> jax.Array:
        return normalise(x, next(left))

    def edge(operations, weights, gate, choice, x, half):
        return gate * edges.frozen(operations, weights, choice, x, next(left))

    return norm, edge
