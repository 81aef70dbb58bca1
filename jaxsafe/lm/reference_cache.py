# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of a frozen reference, computed once and kept on disk.

    key = {"model": fingerprint_tree(params), "data": ..., "template": ..., "lengths": ...}
    cache = fill(folder, key, ("chosen", "rejected"), row_ids, compute, batch=16)
    cache.values  # [N, 2], mapped

A cache holds one record a row: an id, made of the row's tokens, its values and a check sum. It is
written in order, so a killed writer is gone on with; one made under another key is refused
(`language_models.md` 2.5).
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsafe.core.checks import UserError

VERSION = 1
_META, _ROWS = "meta.json", "rows.bin"
Compute = Callable[[int, int], Any]  # rows [begin, end) to values [end - begin, columns]


@dataclasses.dataclass(frozen=True)
class Cache:
    """A complete cache, mapped read-only."""

    folder: pathlib.Path
    key: Mapping[str, str]
    columns: tuple[str, ...]
    values: np.ndarray  # [N, columns] float32
    row_ids: np.ndarray  # [N] of 16 bytes


def fingerprint_tree(tree: Any) -> str:
    """SHA-256 of a tree's names, shapes, dtypes and values: equal for equal parameters only."""
    digest = hashlib.sha256()
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    for path, leaf in leaves:
        data = np.asarray(jax.device_get(leaf))
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        digest.update(f"{name} {data.dtype} {data.shape}\n".encode())
        digest.update(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def fingerprint_files(*paths: str | pathlib.Path) -> str:
    """SHA-256 of files' names and bytes, such as a model's or a data set's."""
    digest = hashlib.sha256()
    for path in map(pathlib.Path, paths):
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {inner}\n".encode())
    return digest.hexdigest()


def row_id(prompt: Sequence[int], *completions: Sequence[int]) -> bytes:
    """16 bytes that tell a row of a data set by its tokens."""
    digest = hashlib.sha256()
    for part in (prompt, *completions):
        digest.update(np.asarray([len(part), *part], "<i8").tobytes())
    return digest.digest()[:16]


def _record(columns: int) -> np.dtype:
    return np.dtype([("id", "V16"), ("values", "<f4", (columns,)), ("check", "<u4")])


def _packed(ids: Sequence[bytes], values: np.ndarray) -> np.ndarray:
    """Records of rows."""
    records = np.zeros(len(ids), _record(values.shape[1]))
    records["id"] = np.frombuffer(b"".join(ids), "V16")
    records["values"] = values
    records["check"] = _checks(records)
    return records


def _checks(records: np.ndarray) -> np.ndarray:
    size = records.dtype.itemsize
    data = records.tobytes()
    starts = range(0, len(data), size)
    return np.array([zlib.crc32(data[i : i + size - 4]) for i in starts], np.uint32)


def _meta(key: Mapping[str, str], columns: Sequence[str], rows: int) -> dict[str, Any]:
    return {"version": VERSION, "key": dict(key), "columns": list(columns), "rows": rows}


def _check_meta(folder: pathlib.Path, wanted: dict[str, Any]) -> None:
    """Raises `UserError` naming the first thing in which the cache is another one."""
    path = folder / _META
    try:
        have = json.loads(path.read_text())
        pairs = {f"key.{name}": value for name, value in dict(have.pop("key")).items()}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is no reference cache's: delete {folder} or name another."
        ) from error
    have |= pairs
    want = {name: value for name, value in wanted.items() if name != "key"}
    want |= {f"key.{name}": value for name, value in wanted["key"].items()}
    for name in sorted(set(have) | set(want)):
        if have.get(name) != want.get(name):
            raise UserError(
                f"the reference cache {folder} was made with {name}={_short(have.get(name))}, now "
                f"it is {_short(want.get(name))}: delete the folder or name another."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]}..."


def fill(
    folder: str | pathlib.Path,
    key: Mapping[str, str],
    columns: Sequence[str],
    row_ids: Sequence[bytes],
    compute: Compute,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> Cache:
    """Computes what is not there yet, and opens the cache.

    A writer that was killed is gone on with at a whole batch, so that rows keep the batches, and
    with them the bits, of an unbroken run. Of a cache that was complete the first and the last row
    are computed anew, by `spot_check`.

    Args:
      folder: of this cache alone.
      key: everything the values depend on, as text: the model's fingerprint, tokenizer, template,
        truncation, lengths, dtype.
      columns: names of the values of a row.
      row_ids: from `row_id`, in the data's order.
      compute: values `[end - begin, columns]` of rows begin to end.
      batch: rows at a time; the last may be fewer.
      progress: called with rows done and rows in all.

    Raises:
      UserError: the folder holds a cache of another key, other columns or other rows, or other
        values than the model gives; or the disk is full.
    """
    folder, total = pathlib.Path(folder), len(row_ids)
    meta = _meta(key, columns, total)
    path, size = folder / _ROWS, _record(len(columns)).itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / _META).exists():
            _check_meta(folder, meta)
        elif any(folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no reference cache: name another.")
        else:
            part = folder / f"{_META}.part"
            part.write_text(json.dumps(meta, indent=2) + "\n")
            part.rename(folder / _META)
        with path.open("ab") as file:
            have = min(path.stat().st_size // size, total)
            done = have if have == total else have // batch * batch
            file.truncate(done * size)
            for begin in range(done, total, batch):
                end = min(begin + batch, total)
                values = np.asarray(compute(begin, end), np.float32).reshape(-1, len(columns))
                file.write(_packed(row_ids[begin:end], values).tobytes())
                file.flush()
                os.fsync(file.fileno())
                if progress is not None:
                    progress(end, total)
    except OSError as error:
        raise UserError(
            f"cannot write the reference cache {folder} ({error.strerror}): free space or make "
            "the folder writable, then go on."
        ) from error
    cache = load(folder, key, columns, row_ids)
    if done == total > 0:  # nothing was computed in this call
        spot_check(cache, compute, sorted({0, total - 1}), batch)
    return cache


def load(
    folder: str | pathlib.Path,
    key: Mapping[str, str],
    columns: Sequence[str],
    row_ids: Sequence[bytes],
) -> Cache:
    """Opens a complete cache.

    Raises:
      UserError: it is of another key, incomplete, damaged, or of other rows; the reason is told.
    """
    folder = pathlib.Path(folder)
    _check_meta(folder, _meta(key, columns, len(row_ids)))
    path, dtype = folder / _ROWS, _record(len(columns))
    have = path.stat().st_size if path.exists() else 0
    if have != len(row_ids) * dtype.itemsize:
        raise UserError(
            f"the reference cache {folder} holds {have // dtype.itemsize} of {len(row_ids)} rows: "
            "go on writing it."
        )
    # An empty file cannot be mapped.
    records = np.memmap(path, dtype, "r") if len(row_ids) else np.zeros(0, dtype)
    ids = np.frombuffer(b"".join(row_ids), "V16")
    for what, good in (
        ("is damaged", records["check"] == _checks(records)),
        ("is of other tokens", records["id"] == ids),
    ):
        if not good.all():
            row = int(np.argmin(good))
            raise UserError(
                f"row {row} of the reference cache {folder} {what}: delete the folder and make "
                "it anew."
            )
    return Cache(folder, dict(key), tuple(columns), records["values"], records["id"])


def spot_check(
    cache: Cache, compute: Compute, rows: Sequence[int], batch: int = 1, atol: float = 1e-3
) -> None:
    """Computes some rows anew, each among the rows of its batch.

    A batch of another shape sums in another order, so equality is not asked for.

    Args:
      cache: a complete one.
      compute: as in `fill`.
      rows: to look at.
      batch: as in `fill`.
      atol: difference that is let pass.

    Raises:
      UserError: a row differs by more.
    """
    for row in rows:
        begin = row // batch * batch
        values = np.asarray(compute(begin, min(begin + batch, len(cache.values))), np.float32)
        gap = np.abs(values.reshape(-1, len(cache.columns))[row - begin] - cache.values[row]).max()
        if not gap <= atol:
            raise UserError(
                f"row {row} of the reference cache {cache.folder} differs by {gap:.3g} from what "
                "the model gives now: delete the folder and make it anew."
            )
