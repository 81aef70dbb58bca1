# SPDX-License-Identifier: Apache-2.0
"""The search on images: NAS-Bench-201's supernet and a data set cut in two halves."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsafe.advantage_nas import retrain, strings, supernet
from jaxsafe.advantage_nas import space as spaces
from jaxsafe.advantage_nas.retrain import RetrainConfig
from jaxsafe.advantage_nas.space import Network, Space
from jaxsafe.advantage_nas.task import Task
from jaxsafe.advantage_nas.types import Batch, Metrics
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.data import images

DIGITS = "digits"
_STATISTICS = 4  # minibatches behind the batch norms of a retrained network


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """The data set and the network around the cells."""

    folder: str | None = field(
        DIGITS,
        "Folder with CIFAR's archives or MNIST's IDX files; digits: those of scikit-learn.",
    )
    zero: bool = field(False, "Search the operation `none` too; the paper leaves it out.")
    channels: int = field(4, "C, channels of the first stage.", low=1)
    cells: int = field(1, "N, cells of each of the three stages.", low=1)
    form: str = field(
        "unrolled",
        "unrolled: every cell in the program; scan: over the cells of a stage; dense: every "
        "candidate runs, to compare with.",
        choices=supernet.FORMS,
    )
    native: bool = field(False, "JAX's own gradients of convolutions, for GPUs.")
    reference: bool = field(
        False, "The authors' network: no ReLU ahead of convolutions, other pooling, a bare head."
    )
    batch_size: int = field(32, "Images of a minibatch.", low=2)
    pad: int = field(1, "Pixels by which images are moved at random; both halves.", low=0)
    valid_share: float = field(0.5, "Part of the training images that moves theta.", 0.05, 0.95)
    eval_batch: int = field(128, "Images of a minibatch when architectures are scored.", low=2)


@functools.cache
def data(folder: str) -> images.ImageSet:
    """The images of a folder, or scikit-learn's digits."""
    return images.digits() if folder == DIGITS else images.load(folder)


def make_space(config: ImageConfig) -> Space:
    """The cell of NAS-Bench-201, with or without `none`."""
    names = strings.NB201_OPS if config.zero else strings.PAPER_OPS
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
      UserError: no folder is given, it or a file is absent or damaged, or there are too few images.
    """
    if config.folder is None:
        raise UserError(
            "--images.folder is not given: name a folder with CIFAR's archive or MNIST's IDX "
            "files, or digits."
        )
    found = data(config.folder)
    space, skeleton = make_space(config), make_skeleton(config, found)
    network = supernet.image_network(space, skeleton)
    train, valid = images.split(found.train, 1 - config.valid_share, seed=0)
    if min(len(part.labels) for part in (train, valid, found.test)) < config.eval_batch:
        raise UserError(
            f"images.eval_batch={config.eval_batch} is more than a part of the {found.name} has: "
            f"lower it to {min(len(p.labels) for p in (train, valid, found.test))}."
        )
    mean, std = jnp.asarray(found.mean), jnp.asarray(found.std)

    def draw(key: jax.Array, part: images.Part) -> images.Batch:
        return images.draw_batch(key, part, mean, std, config.batch_size, config.pad, found.flip)

    def batch(key: jax.Array, step: jax.Array) -> Batch:
        key_train, key_valid = jax.random.split(jax.random.fold_in(key, step))
        return Batch(draw(key_train, train), draw(key_valid, valid))

    def score(weights: Any, choice: jax.Array) -> Metrics:
        return _score(network, weights, choice, _batches(valid, found, config.eval_batch))

    def train_one(key: jax.Array, choice: jax.Array, how: RetrainConfig) -> Metrics:
        state = retrain.init(key, choice, network, how)
        one = lambda key, step: draw(key, found.train)  # noqa: E731
        state, _ = retrain.chunk(state, how.steps, one, network, how)
        seen = _batches(found.train, found, config.eval_batch).images[:_STATISTICS]
        test = images.normalise(jnp.asarray(found.test.images), mean, std)
        labels = jnp.asarray(found.test.labels)
        return retrain.image_score(
            *(space, skeleton, state.weights, choice, seen, test, labels, config.eval_batch)
        )

    return Task(
        space=space,
        network=network,
        batch=batch,
        score=score,
        train=train_one,
        cost=lambda choice: retrain.image_cost(space, skeleton, choice),
        measure="accuracy",
        data=f"{found.name}, {len(train.labels):,} images for weights, {len(valid.labels):,} for "
        "theta",
    )


def _batches(part: images.Part, found: images.ImageSet, size: int) -> images.Batch:
    """Whole minibatches `[M, size, ...]` of a part in its order, normalised."""
    count = len(part.labels) // size
    pictures = jnp.asarray(part.images[: count * size]).reshape(count, size, *part.images.shape[1:])
    pictures = images.normalise(pictures, jnp.asarray(found.mean), jnp.asarray(found.std))
    return images.Batch(pictures, jnp.asarray(part.labels[: count * size]).reshape(count, size))


def _score(network: Network, weights: Any, choice: jax.Array, batches: images.Batch) -> Metrics:
    """`loss` and `accuracy` of one architecture, batches normalising themselves as in search."""

    def one(batch: images.Batch) -> tuple[jax.Array, jax.Array]:
        loss, (_, metrics) = network.weight_loss(weights, choice, batch)
        return loss, metrics["accuracy"]

    loss, accuracy = jax.lax.map(one, batches)
    return {"loss": loss.mean(), "accuracy": accuracy.mean()}
