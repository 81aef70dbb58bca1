# SPDX-License-Identifier: Apache-2.0
"""Offline episodes of images and actions without rewards, and the HDF5 format that holds them.

A file has three flat keys: `images [N, H, W, 3]` uint8, `actions [N, A]` and `ends [N]` bool or
0/1. Row i is an image and the action taken on seeing it; `ends` is set on the last image of an
episode, whose action leads nowhere and is not used. What a person or a program that knows better
says about images lies beside them in `truth [N, d]`, if there is one: learners ask for rows of it,
one annotation each.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.data import hdf5, trajectories

KEYS = ("images", "actions", "ends")


class ImageEpisodes(NamedTuple):
    """E episodes end to end, N images in all.

    Attributes:
      images: `[N, H, W, 3]` uint8.
      actions: `[N, A]` float32.
      starts: first row of each episode, `[E]` int64.
      lengths: images of each episode, `[E]` int64, at least 1.
      truth: `[N, d]` float32, d = 0 where nothing is known.
    """

    images: np.ndarray
    actions: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    truth: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        """Whether a row is the last of its episode, `[N]` bool."""
        ends = np.zeros(len(self.images), bool)
        ends[self.starts + self.lengths - 1] = True
        return ends

    @property
    def rows(self) -> np.ndarray:
        """Row of each step, `[E, T]` int64 with T the greatest length; -1 past an episode's end."""
        steps = np.arange(self.lengths.max())
        rows = self.starts[:, None] + steps
        return np.where(steps < self.lengths[:, None], rows, -1)


def build(
    columns: Mapping[str, Any],
    source: str = "the data",
    size: tuple[int, int] | None = None,
    action_low: np.ndarray | None = None,
    action_high: np.ndarray | None = None,
) -> ImageEpisodes:
    """Makes episodes of arrays by key, once they are found sound.

    Args:
      columns: `KEYS`, and `truth` where there is one.
      source: what to call the data in errors, a file name say.
      size: H and W that images must have; None takes what comes.
      action_low: `[A]` limits that actions must keep; None for none.
      action_high: `[A]`.

    Raises:
      UserError: a key is missing, has another shape, size or type, an action is not finite or out
        of its limits, or the last episode has no end; the message names source, key and row.
    """
    for key in KEYS:
        if key not in columns:
            raise UserError(f"{source}: key {key!r} is missing: give {', '.join(KEYS)}.")
    images = _images(source, np.asarray(columns["images"]), size)
    actions = _table(source, "actions", columns["actions"], len(images))
    _check_limits(source, actions, action_low, action_high)
    ends = _ends(source, np.asarray(columns["ends"]), len(images))
    truth = np.zeros((len(images), 0), np.float32)
    if "truth" in columns:
        truth = _table(source, "truth", columns["truth"], len(images))
    starts, stops = trajectories.boundaries(ends)
    return ImageEpisodes(images, actions, starts, stops - starts, truth)


def _images(source: str, images: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if images.dtype != np.uint8:
        raise UserError(f"{source}: key 'images' has type {images.dtype}: give uint8, 0 to 255.")
    if images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise UserError(
            f"{source}: key 'images' has shape {images.shape}: give [N, H, W, 3], N >= 1."
        )
    if size and images.shape[1:3] != tuple(size):
        raise UserError(
            f"{source}: images are {images.shape[1]} x {images.shape[2]}, expected {size[0]} x "
            f"{size[1]}: scale them, or set the image size to theirs."
        )
    return images


def _table(source: str, key: str, value: Any, rows: int) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise UserError(f"{source}: key {key!r} has type {array.dtype}: give numbers.")
    if array.ndim != 2 or not array.shape[1] or len(array) != rows:
        raise UserError(
            f"{source}: key {key!r} has shape {array.shape}: give [{rows}, width], one "
            "row per image."
        )
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    bad = ~np.isfinite(single).all(1)
    if bad.any():
        row = int(np.argmax(bad))
        raise UserError(
            f"{source}: key {key!r} row {row} is {array[row].tolist()}: give numbers that are "
            f"finite in 32 bits, or leave that episode out ({int(bad.sum())} such rows)."
        )
    return single


def _check_limits(
    source: str, actions: np.ndarray, low: np.ndarray | None, high: np.ndarray | None
) -> None:
    if low is None or high is None:
        return
    if actions.shape[1] != len(low):
        raise UserError(
            f"{source}: key 'actions' has {actions.shape[1]} columns and the task {len(low)} "
            "actions: take the task that the data come from."
        )
    slack = 1e-5 * (np.asarray(high) - np.asarray(low))
    out = ((actions < low - slack) | (actions > high + slack)).any(1)
    if out.any():
        row = int(np.argmax(out))
        raise UserError(
            f"{source}: key 'actions' row {row} is {actions[row].tolist()}, outside "
            f"{np.asarray(low).tolist()} to {np.asarray(high).tolist()}: clip it as the task did "
            f"({int(out.sum())} such rows)."
        )


def _ends(source: str, ends: np.ndarray, rows: int) -> np.ndarray:
    if ends.dtype.kind not in "biuf" or ends.shape not in ((rows,), (rows, 1)):
        raise UserError(
            f"{source}: key 'ends' has type {ends.dtype} and shape {ends.shape}: give [{rows}] of "
            "0 and 1."
        )
    ends = ends.reshape(-1)
    good = (ends == 0) | (ends == 1)
    if not good.all():
        row = int(np.argmin(good))
        raise UserError(f"{source}: key 'ends' row {row} is {ends[row]!s}: give 0 or 1.")
    if not ends[-1]:
        last = np.flatnonzero(ends)
        first = int(last[-1]) + 1 if len(last) else 0
        raise UserError(
            f"{source}: the episode of rows {first} to {rows - 1} is unfinished, 'ends' is 0 at "
            "the last: set it to 1 there, or leave that episode out."
        )
    return ends.astype(bool)


def load(path: str | os.PathLike[str], **checks: Any) -> tuple[ImageEpisodes, dict[str, Any]]:
    """Reads a file, whoever wrote it; returns its episodes and its attributes.

    Args:
      path: of the file.
      **checks: `size`, `action_low` and `action_high` of `build`.

    Raises:
      UserError: the file is absent, damaged or cut off, or its content is as `build` refuses.
    """
    path = pathlib.Path(path)
    content, attributes = hdf5.read(path, (*KEYS, "truth"))
    return build(content, str(path), **checks), attributes


def save(
    path: str | os.PathLike[str],
    episodes: ImageEpisodes,
    attributes: Mapping[str, str | int | float] | None = None,
) -> pathlib.Path:
    """Writes a file, whole or not at all; the same content gives the same bytes.

    Raises:
      UserError: the content is as `build` refuses, or the folder is absent.
    """
    path = pathlib.Path(path)
    columns = {"images": episodes.images, "actions": episodes.actions, "ends": episodes.ends}
    if episodes.truth.shape[1]:
        columns["truth"] = episodes.truth
    build(columns, f"what is to be written to {path}")
    with hdf5.written_whole(path, attributes) as file:
        for key, array in columns.items():
            how: dict[str, Any] = {"track_times": False, "fletcher32": True}
            if key == "images":  # Rendered images shrink to a fifth or less.
                how |= {"compression": "gzip", "compression_opts": 1}
                how |= {"chunks": (min(64, len(array)), *array.shape[1:])}
            file.create_dataset(key, data=array, **how)
    return path


def join(parts: list[ImageEpisodes]) -> ImageEpisodes:
    """Puts episodes of several sets end to end."""
    sizes = np.cumsum([0, *(len(part.images) for part in parts[:-1])])
    starts = [part.starts + size for part, size in zip(parts, sizes, strict=True)]
    return ImageEpisodes(
        images=np.concatenate([part.images for part in parts]),
        actions=np.concatenate([part.actions for part in parts]),
        starts=np.concatenate(starts),
        lengths=np.concatenate([part.lengths for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
    )
