# SPDX-License-Identifier: Apache-2.0
"""Rows of unequal length into batches of a few widths, so that few programs are compiled."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxsafe.core import checks
from jaxsafe.core.checks import UserError

BUCKETS = (64, 128, 256, 512)


class Rows(NamedTuple):
    """A batch to be made: its width, and which rows of the data it takes; -1 stands for none."""

    width: int
    rows: np.ndarray  # [B] int64


class Packed(NamedTuple):
    """Pieces side by side, `[R, W]` each."""

    ids: np.ndarray  # int32
    segment_ids: np.ndarray  # int32, from 1 on within a row; 0 at padding
    piece: np.ndarray  # int32, which piece of the data; -1 at padding

    @property
    def mask(self) -> np.ndarray:
        """True at tokens."""
        return self.segment_ids > 0


def bucket_of(length: int, buckets: Sequence[int] = BUCKETS) -> int:
    """The least bucket that holds `length` tokens; raises `UserError` where none does."""
    for bucket in sorted(buckets):
        if length <= bucket:
            return bucket
    raise UserError(f"a row of {length} tokens fits no bucket of {tuple(buckets)}: truncate it.")


def plan(
    lengths: Sequence[int],
    batch_size: int,
    buckets: Sequence[int] = BUCKETS,
    seed: int | None = None,
) -> list[Rows]:
    """Every row in one batch, of rows of like length.

    Rows left over in one bucket go with the next wider one; of the last batch alone some rows may
    be -1, which are to weigh nothing.

    Args:
      lengths: tokens of each row.
      batch_size: B.
      buckets: widths.
      seed: of the shuffle of rows and of batches; None keeps the order.

    Raises:
      UserError: a row is longer than the widest bucket, or the batch size is below 1.
    """
    checks.check_range("batch_size", batch_size, 1)
    widths = [bucket_of(length, buckets) for length in lengths]
    order = np.arange(len(lengths))
    rng = None if seed is None else np.random.default_rng(seed)
    if rng is not None:
        rng.shuffle(order)
    batches: list[Rows] = []
    over: list[int] = []
    width = 0
    for bucket in sorted(set(widths)):
        over += [int(row) for row in order if widths[row] == bucket]
        width = bucket
        while len(over) >= batch_size:
            batches.append(Rows(bucket, np.array(over[:batch_size])))
            over = over[batch_size:]
    if over:
        batches.append(Rows(width, np.array(over + [-1] * (batch_size - len(over)))))
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def pad_right(rows: Sequence[Sequence[int]], width: int, pad_id: int = 0) -> np.ndarray:
    """Rows as `[B, width]` int32, padded at the end; raises `UserError` for a longer one."""
    out = np.full((len(rows), width), pad_id, np.int32)
    for i, row in enumerate(rows):
        if len(row) > width:
            raise UserError(f"rows[{i}] has {len(row)} tokens: truncate it to {width}.")
        out[i, : len(row)] = row
    return out


def pack(pieces: Sequence[Sequence[int]], width: int, pad_id: int = 0) -> Packed:
    """Pieces into as few rows of `width` as taking the longest first gives; none is split.

    Raises:
      UserError: a piece is longer than a row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(pieces)), key=lambda i: -len(pieces[i])):
        size = len(pieces[i])
        if size > width:
            raise UserError(f"pieces[{i}] has {size} tokens: truncate it to {width}.")
        if not size:
            continue
        row = next((r for r, free in enumerate(room) if free >= size), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(i)
        room[row] -= size
    shape = (len(rows), width)
    ids, segments = np.full(shape, pad_id, np.int32), np.zeros(shape, np.int32)
    which = np.full(shape, -1, np.int32)
    for r, members in enumerate(rows):
        begin = 0
        for number, i in enumerate(members):
            end = begin + len(pieces[i])
            ids[r, begin:end], segments[r, begin:end], which[r, begin:end] = (
                pieces[i],
                number + 1,
                i,
            )
            begin = end
    return Packed(ids, segments, which)
