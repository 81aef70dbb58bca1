# SPDX-License-Identifier: Apache-2.0
"""The search on images: NAS-Bench-201's supernet and a data set cut in two halves."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsafe.advantage_nas import space as spaces
from jaxsafe.advantage_nas import supernet
from jaxsafe.advantage_nas.space import Network, Space
from jaxsafe.advantage_nas.types import Batch, Metrics
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.data import images

DIGITS = "digits"


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """The data set and the network around the cells."""

    folder: str = field(
        DIGITS,
        "Folder with CIFAR's archives or MNIST's IDX files; digits: those of scikit-learn.",
    )
    zero: bool = field(False, "Search the operation `none` too; the paper leaves it out.")
    channels: int = field(4, "C, channels of the first stage.", low=1)
    cells: int = field(1, "N, cells of each of the three stages.", low=1)
    form: str = field(
        "unrolled", "Cells in the program, or a scan over them.", choices=supernet.FORMS
    )
    native: bool = field(False, "JAX's own gradients of convolutions, for GPUs.")
    reference: bool = field(
        False, "The authors' network: no ReLU ahead of convolutions, other pooling, a bare head."
    )
    batch_size: int = field(32, "Images of a minibatch.", low=2)
    pad: int = field(1, "Pixels by which images are moved at random; both halves.", low=0)
    valid_share: float = field(0.5, "Part of the training images that moves theta.", 0.05, 0.95)
    eval_batch: int = field(128, "Images of a minibatch when architectures are scored.", low=2)


class Task(NamedTuple):
    """What a search runs on.

    Attributes:
      space: of the cells.
      network: the supernet.
      batch: `(key, step []) -> Batch`, pure.
      score: `(weights, choice [E]) -> {"loss", "accuracy" or "perplexity"}` on a fixed validation
        set, pure.
      data: names what it is, for headlines.
    """

    space: Space
    network: Network
    batch: Callable[[jax.Array, jax.Array], Batch]
    score: Callable[[Any, jax.Array], Metrics]
    data: str


@functools.cache
def data(folder: str) -> images.ImageSet:
    """The images of a folder, or scikit-learn's digits."""
    return images.digits() if folder == DIGITS else images.load(folder)


def make_space(config: ImageConfig) -> Space:
    """The cell of NAS-Bench-201, with or without `none`."""
    names = spaces.NAS_BENCH_201 if config.zero else spaces.NAS_BENCH_201[:4]
    return spaces.nas_bench_201(names, config.native, config.reference, config.reference)


def make_skeleton(config: ImageConfig, found: images.ImageSet) -> supernet.Skeleton:
    """The network around the cells, for the images found."""
    height, width, depth = found.train.images.shape[1:]
    return supernet.Skeleton(
        image=(height, width, depth),
        classes=found.classes,
        channels=config.channels,
        cells=config.cells,
        form=config.form,
        native=config.native,
        reference_head=config.reference,
        reference_shortcut=config.reference,
    )


def make(config: ImageConfig) -> Task:
    """Reads the images and builds the task.

    Raises:
      UserError: a folder or file is absent or damaged, or there are too few images.
    """
    found = data(config.folder)
    space = make_space(config)
    network = supernet.image_network(space, make_skeleton(config, found))
    train, valid = images.split(found.train, 1 - config.valid_share, seed=0)
    if len(valid.labels) < config.eval_batch:
        raise UserError(
            f"images.eval_batch={config.eval_batch} is more than the {len(valid.labels)} images "
            "that move theta: lower it."
        )

    mean, std = jnp.asarray(found.mean), jnp.asarray(found.std)

    def draw(key: jax.Array, part: images.Part) -> images.Batch:
        return images.draw_batch(key, part, mean, std, config.batch_size, config.pad, found.flip)

    def batch(key: jax.Array, step: jax.Array) -> Batch:
        key_train, key_valid = jax.random.split(jax.random.fold_in(key, step))
        return Batch(draw(key_train, train), draw(key_valid, valid))

    def score(weights: Any, choice: jax.Array) -> Metrics:
        return score_part(network, weights, choice, valid, found, config.eval_batch)

    return Task(space, network, batch, score, f"{found.name}, {len(train.labels)} images a half")


def score_part(
    network: Network,
    weights: Any,
    choice: jax.Array,
    part: images.Part,
    found: images.ImageSet,
    size: int,
) -> Metrics:
    """`loss` and `accuracy` of one architecture over whole minibatches of a part, in its order."""
    count = len(part.labels) // size
    pictures = jnp.asarray(part.images[: count * size]).reshape(
        count, size, *found.train.images.shape[1:]
    )
    mean, std = jnp.asarray(found.mean), jnp.asarray(found.std)
    labels = jnp.asarray(part.labels[: count * size]).reshape(count, size)

    def one(both: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        inputs = images.Batch(images.normalise(both[0], mean, std), both[1])
        loss, (_, metrics) = network.weight_loss(weights, choice, inputs)
        return loss, metrics["accuracy"]

    loss, accuracy = jax.lax.map(one, (pictures, labels))
    return {"loss": loss.mean(), "accuracy": accuracy.mean()}
