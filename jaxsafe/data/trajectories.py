# SPDX-License-Identifier: Apache-2.0
"""Offline trajectories with costs, and DSRL's HDF5 format that holds them.

A file has seven flat keys, `observations [N, S] next_observations [N, S] actions [N, A] rewards [N]
costs [N] terminals [N] timeouts [N]`, of N transitions in the order they happened. The last four
may be `[N, 1]`, and the last two bool or 0/1 of any type. An episode ends where `terminals` or
`timeouts` is set; what follows the last end is an episode cut short. Other keys are kept, those in
groups under their path, joined by `/` (liuzuxin/DSRL, `dsrl/offline_env.py`).
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxsafe.core.checks import UserError, check_choice
from jaxsafe.data import hdf5

TABLES = ("observations", "next_observations", "actions")
COLUMNS = ("rewards", "costs")
FLAGS = ("terminals", "timeouts")
KEYS = (*TABLES, *COLUMNS, *FLAGS)
TRAILING = ("drop", "keep")


class Trajectories(NamedTuple):
    """E episodes end to end, N transitions in all.

    Attributes:
      observations: `[N, S]` float32.
      next_observations: `[N, S]` float32.
      actions: `[N, A]` float32.
      rewards: `[N]` float32.
      costs: `[N]` float32.
      terminals: `[N]` bool, the state has no future.
      timeouts: `[N]` bool, the time limit was reached.
      starts: first row of each episode, `[E]` int64.
      ends: one past the last row of each episode, `[E]` int64.
    """

    observations: np.ndarray
    next_observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    costs: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode, `[E]`."""
        return self.ends - self.starts


class Loaded(NamedTuple):
    """What a file holds.

    Attributes:
      trajectories: its seven keys, and where episodes begin and end.
      attributes: of the file, e.g. where its data come from.
      extras: its other datasets by path.
    """

    trajectories: Trajectories
    attributes: dict[str, Any]
    extras: dict[str, np.ndarray]


def build(
    columns: Mapping[str, Any], source: str = "the data", trailing: str = "drop"
) -> Trajectories:
    """Makes trajectories of arrays by key, once they are found sound.

    Args:
      columns: the seven `KEYS`, in any of the shapes and types that a file may have.
      source: what to call the data in errors, a file name say.
      trailing: whether an episode that is cut short at the end is dropped, as DSRL and OSRL do, or
        kept as an episode without an end.

    Raises:
      UserError: a key is missing, has a wrong shape or type, a value is not finite or a flag is
        neither 0 nor 1, or no episode is left; the message names source, key and row.
    """
    check_choice("trailing", trailing, TRAILING)
    for key in KEYS:
        if key not in columns:
            raise UserError(f"{source}: key {key!r} is missing: give {', '.join(KEYS)}.")
    arrays = {key: _checked(source, key, columns[key]) for key in KEYS}
    size = len(arrays["rewards"])
    for key, array in arrays.items():
        if len(array) != size:
            raise UserError(
                f"{source}: key {key!r} has {len(array)} rows and 'rewards' has {size}: "
                "give one row per transition in each."
            )
    widths = [arrays[key].shape[1] for key in ("observations", "next_observations")]
    if widths[0] != widths[1]:
        raise UserError(
            f"{source}: key 'next_observations' has {widths[1]} columns and 'observations' has "
            f"{widths[0]}: give both the same."
        )
    starts, ends = boundaries(arrays["terminals"] | arrays["timeouts"], trailing)
    if not len(ends):
        raise UserError(
            f"{source}: no episode ends in rows 0 to {size - 1} of 'terminals' and 'timeouts': "
            "set one of them where an episode ends, or read with trailing='keep'."
        )
    return Trajectories(**{k: x[: ends[-1]] for k, x in arrays.items()}, starts=starts, ends=ends)


def boundaries(done: np.ndarray, trailing: str = "drop") -> tuple[np.ndarray, np.ndarray]:
    """Returns `(starts [E], ends [E])` of episodes that end where `done` `[N]` is set."""
    ends = np.flatnonzero(done) + 1
    if trailing == "keep" and len(done) and (not len(ends) or ends[-1] != len(done)):
        ends = np.append(ends, len(done))
    return np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)], ends.astype(np.int64)


def _checked(source: str, key: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise UserError(f"{source}: key {key!r} has type {array.dtype}: give numbers.")
    if key in TABLES:
        good, wanted = array.ndim == 2 and array.shape[1] > 0, "[N, width]"
    else:
        good, wanted = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1), "[N] or [N, 1]"
    if not good or not len(array):
        raise UserError(f"{source}: key {key!r} has shape {array.shape}: give {wanted}, N >= 1.")
    if key in FLAGS:
        array = array.reshape(-1)
        _check_rows(source, key, array, (array == 0) | (array == 1), "give 0 or 1")
        return array.astype(bool)
    # What 32 bits cannot hold is infinite, and told below.
    with np.errstate(over="ignore", invalid="ignore"):
        single = array.astype(np.float32)
    finite = np.isfinite(single)
    _check_rows(source, key, array, finite, "give numbers that are finite in 32 bits")
    return single if key in TABLES else single.reshape(-1)


def _check_rows(source: str, key: str, array: np.ndarray, good: np.ndarray, fix: str) -> None:
    if not good.all():
        bad = np.unravel_index(int(np.argmin(good)), good.shape)
        row = ", ".join(map(str, bad))
        raise UserError(
            f"{source}: key {key!r} row {row} is {array[bad]!s}: {fix}, or leave that episode out "
            f"({int((~good).sum())} such values)."
        )


def load(path: str | os.PathLike[str], trailing: str = "drop") -> Loaded:
    """Reads a file of DSRL's format, whoever wrote it.

    Args:
      path: of the file.
      trailing: as in `build`.

    Raises:
      UserError: the file is absent, damaged or cut off, or its content is as `build` refuses; the
        message names file, key and row.
    """
    path = pathlib.Path(path)
    content, attributes = hdf5.read(path, KEYS)
    columns = {key: content.pop(key) for key in KEYS if key in content}
    return Loaded(build(columns, str(path), trailing), attributes, content)


def save(
    path: str | os.PathLike[str],
    trajectories: Trajectories,
    attributes: Mapping[str, str | int | float] | None = None,
    extras: Mapping[str, np.ndarray] | None = None,
) -> pathlib.Path:
    """Writes a file of DSRL's format, whole or not at all; the same content gives the same bytes.

    Args:
      path: of the file; one that is there is replaced.
      trajectories: as `build` makes them; flags are stored as bool.
      attributes: of the file, e.g. from `jaxsafe.data.generate.provenance`.
      extras: more datasets of numbers, by path.

    Raises:
      UserError: the content is as `build` refuses, an attribute or an extra is of another type, or
        the folder is absent.
    """
    path = pathlib.Path(path)
    columns = {key: getattr(trajectories, key) for key in KEYS}
    build(columns, f"what is to be written to {path}", trailing="keep")
    for given, kinds in ((attributes, "biufU"), (extras, "biuf")):
        for name, value in (given or {}).items():
            if np.asarray(value).dtype.kind not in kinds:
                raise UserError(f"{path}: {name!r} is a {type(value).__name__}: give numbers.")
    with hdf5.written_whole(path, attributes) as file:
        for key, array in (columns | dict(extras or {})).items():
            # Checksums, so that a damaged number is an error and not a number.
            file.create_dataset(key, data=array, track_times=False, fletcher32=np.ndim(array) > 0)
    return path


def to_go(values: np.ndarray, trajectories: Trajectories) -> np.ndarray:
    """Undiscounted sums from each step to the end of its episode, `[N]` float64.

    Args:
      values: `[N]`, rewards or costs.
      trajectories: whose episodes they are.
    """
    remaining = np.zeros(len(values) + 1)
    remaining[:-1] = np.cumsum(values[::-1], dtype=np.float64)[::-1]
    return remaining[:-1] - np.repeat(remaining[trajectories.ends], trajectories.lengths)


def totals(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """Undiscounted returns and cost returns of the episodes, `[E]` float64 each."""
    columns = (trajectories.rewards, trajectories.costs)
    sums = [np.add.reduceat(x.astype(np.float64), trajectories.starts) for x in columns]
    return sums[0], sums[1]


def select(trajectories: Trajectories, episodes: np.ndarray) -> Trajectories:
    """Returns the episodes of these indices `[K]`, in that order; an index may come again."""
    episodes = np.asarray(episodes, np.int64).reshape(-1)
    lengths = trajectories.lengths[episodes]
    ends = np.cumsum(lengths)
    starts = ends - lengths
    rows = np.arange(lengths.sum()) + np.repeat(trajectories.starts[episodes] - starts, lengths)
    columns = {key: getattr(trajectories, key)[rows] for key in KEYS}
    return Trajectories(**columns, starts=starts, ends=ends)
