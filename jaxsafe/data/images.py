# SPDX-License-Identifier: Apache-2.0
"""Labelled images: a set inside scikit-learn, archives in a folder of the user's, augmentation.

Letters in shapes: N images, B batch, H and W rows and columns, C channels.
"""

import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError, check_range
from jaxsafe.data.image_files import Part, cifar_binary, cifar_python, idx_part, read_members


class ImageSet(NamedTuple):
    """Images with their labels.

    Attributes:
      name: e.g. "digits" or "cifar10".
      train: images `[N, H, W, C]` uint8 and labels `[N]` int32.
      test: likewise.
      classes: number of classes.
      flip: whether a mirrored image is as good.
      mean: `[C]` of the training images over 255.
      std: `[C]` likewise.
    """

    name: str
    train: Part
    test: Part
    classes: int
    flip: bool
    mean: np.ndarray
    std: np.ndarray


class Batch(NamedTuple):
    """Images `[B, H, W, C]` float32, normalised, and labels `[B]` int32."""

    images: jax.Array
    labels: jax.Array


def digits() -> ImageSet:
    """The 1,797 8x8 digits inside scikit-learn; a fixed fifth of them is the test set."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(np.reshape(pixels, (-1, 8, 8, 1)) * (255 / 16)).astype(np.uint8)
    part = Part(images, np.asarray(labels, np.int32))
    train, test = split(part, 0.8, seed=0)
    return _image_set("digits", train, test, 10, flip=False)


_CIFAR = {
    # name: (classes, Python archive, its folder, binary archive, its folder)
    "cifar10": (
        10,
        ("cifar-10-python.tar.gz", "cifar-10-batches-py"),
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin"),
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
    ),
    "cifar100": (
        100,
        ("cifar-100-python.tar.gz", "cifar-100-python"),
        ("cifar-100-binary.tar.gz", "cifar-100-binary"),
        ("train",),
        "test",
    ),
}
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_IDX_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load(folder: str | os.PathLike[str], classes: int = 10) -> ImageSet:
    """Reads what a folder holds: CIFAR-10, CIFAR-100 or IDX files (MNIST, Fashion-MNIST).

    CIFAR's archives may be packed or unpacked, for Python or binary; IDX files gzipped or not. Any
    of them may lie in the folder, or the folder may be the unpacked archive itself.

    Args:
      folder: where to look.
      classes: number of classes of IDX files, which do not tell.

    Raises:
      UserError: nothing is there, or a file is damaged; the message names file and offset.
    """
    base = pathlib.Path(folder)
    if not base.is_dir():
        raise UserError(f"{base}: there is no such folder: check the path.")
    for name, (count, python, binary, train, test) in _CIFAR.items():
        for places, read, ending in ((python, cifar_python, ""), (binary, cifar_binary, ".bin")):
            train_files = tuple(f + ending for f in train)
            at = _place(base, places, (*train_files, test + ending))
            if at is None:
                continue
            contents = read_members(at, (*train_files, test + ending))
            parts = {f: read(at / f, content, count) for f, content in contents.items()}
            joined = Part(*map(np.concatenate, zip(*(parts[f] for f in train_files), strict=True)))
            return _image_set(name, joined, parts[test + ending], count, flip=True)
    if (files := _idx_files(base)) is not None:
        train_part, test_part = idx_part(*files[:2]), idx_part(*files[2:])
        return _idx_set(base, train_part, test_part, classes)
    raise UserError(
        f"{base} holds no images that are known: put CIFAR's archive or MNIST's four IDX files "
        "there."
    )


def _place(base: pathlib.Path, places: tuple[str, str], files: tuple[str, ...]):
    """The archive or folder that holds the files, if there is one."""
    archive, inner = places
    for candidate in (base, base / inner):
        if all((candidate / f).is_file() for f in files):
            return candidate
    return base / archive if (base / archive).is_file() else None


def _idx_files(base: pathlib.Path) -> list[pathlib.Path] | None:
    found = []
    for name in (*_IDX, *_IDX_TEST):
        here = [
            base / (name + ending) for ending in ("", ".gz") if (base / (name + ending)).is_file()
        ]
        found.append(here[0] if here else None)
    if not any(found):
        return None
    for name, path in zip((*_IDX, *_IDX_TEST), found, strict=True):
        if path is None:
            raise UserError(f"{base} has no {name} (or {name}.gz): put all four IDX files there.")
    return [path for path in found if path is not None]


def _idx_set(base: pathlib.Path, train: Part, test: Part, classes: int) -> ImageSet:
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"{base}: training images are {train.images.shape[1:]}, test images "
            f"{test.images.shape[1:]}: give files of one set."
        )
    most = int(max(train.labels.max(), test.labels.max()))
    if most >= classes:
        raise UserError(f"{base} has label {most}, classes={classes}: give at least {most + 1}.")
    return _image_set("idx", train, test, classes, flip=False)


def _image_set(name: str, train: Part, test: Part, classes: int, flip: bool) -> ImageSet:
    axes = (0, 1, 2)
    mean = train.images.mean(axes, dtype=np.float64) / 255
    std = np.maximum(train.images.std(axes, dtype=np.float64) / 255, 1e-6)
    return ImageSet(
        name, train, test, classes, flip, mean.astype(np.float32), std.astype(np.float32)
    )


def split(part: Part, fraction: float, seed: int) -> tuple[Part, Part]:
    """Two parts without overlap, the first with that fraction of the images, drawn by `seed`.

    Raises:
      UserError: the fraction leaves a part empty.
    """
    check_range("fraction", fraction, 0, 1)
    order = np.random.default_rng(seed).permutation(len(part.labels))
    cut = round(fraction * len(order))
    if not 0 < cut < len(order):
        raise UserError(f"fraction={fraction} of {len(order)} images leaves a part empty.")
    first, second = (np.sort(rows) for rows in (order[:cut], order[cut:]))
    return Part(*(x[first] for x in part)), Part(*(x[second] for x in part))


def normalise(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """`(images / 255 - mean) / std`, `[B, H, W, C]` float32 of uint8; mean and std `[C]`."""
    return (images.astype(jnp.float32) / 255 - mean) / std


def augment(key: jax.Array, images: jax.Array, pad: int, flip: bool) -> jax.Array:
    """Crops each image at random from itself with `pad` zeros around, and mirrors every second one.

    Args:
      key: consumed.
      images: `[B, H, W, C]`, before they are normalised.
      pad: most rows and columns that an image is moved by.
      flip: whether to mirror.
    """
    batch, height, width, _ = images.shape
    move_key, flip_key = jax.random.split(key)
    moves = jax.random.randint(move_key, (2, batch, 1), -pad, pad + 1)
    rows = jnp.arange(height) + moves[0]
    columns = jnp.arange(width) + moves[1]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None
    ]
    if flip:
        mirrored = jax.random.bernoulli(flip_key, 0.5, (batch, 1))
        columns = jnp.where(mirrored, width - 1 - columns, columns)
    which = jnp.arange(batch)[:, None, None]
    rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    moved = images[which, rows[:, :, None], columns[:, None]]
    return jnp.where(inside[..., None], moved, 0).astype(images.dtype)


def draw_batch(
    key: jax.Array,
    part: Part,
    mean: jax.Array,
    std: jax.Array,
    size: int,
    pad: int = 0,
    flip: bool = False,
) -> Batch:
    """Draws `size` images with replacement, augmented and normalised; pure, for use inside `jit`.

    Args:
      key: consumed.
      part: images and labels as device arrays.
      mean: `[C]`.
      std: `[C]`.
      size: B.
      pad: see `augment`; 0 moves nothing.
      flip: see `augment`.
    """
    index_key, augment_key = jax.random.split(key)
    rows = jax.random.randint(index_key, (size,), 0, part.labels.shape[0])
    images, labels = jnp.asarray(part.images)[rows], jnp.asarray(part.labels)[rows]
    if pad or flip:
        images = augment(augment_key, images, pad, flip)
    return Batch(normalise(images, mean, std), labels)
