# SPDX-License-Identifier: Apache-2.0
"""Folders of safetensors files, one tensor at a time: read in place, written as they come.

The format (https://huggingface.co/docs/safetensors): eight bytes of length, a JSON header of names,
dtypes, shapes and offsets, then the data. The library's own numpy side would hold a whole file in
memory to write it, and cannot tell a bfloat16 from other two bytes.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_MAX_HEADER = 100_000_000  # bytes, as the library has it


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor on disk."""

    file: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the beginning of the file

    def open(self) -> np.ndarray:
        """The tensor, mapped: only what is looked at is read."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


@dataclasses.dataclass(frozen=True)
class Pending:
    """A tensor to be written; `make` is called when its turn comes."""

    dtype: np.dtype
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def read_folder(folder: str | pathlib.Path) -> dict[str, Stored]:
    """The tensors of `model.safetensors`, or of the files its index names, by name.

    Raises:
      UserError: no such file, a damaged one, or an index that names a tensor where there is none.
    """
    folder = pathlib.Path(folder)
    if (folder / SINGLE).is_file():
        return read_file(folder / SINGLE)
    index = folder / INDEX
    if not index.is_file():
        raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}: give a model's folder.")
    try:
        places = json.loads(index.read_text())["weight_map"]
        files = {name: read_file(_inside(index, name)) for name in sorted(set(places.values()))}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{index} is no index with a weight_map: download it anew.") from error
    for name, file in places.items():
        if name not in files[file]:
            raise UserError(f"{index} places {name} in {file}, which lacks it: download both anew.")
    extra = [name for tensors in files.values() for name in tensors if name not in places]
    if extra:
        raise UserError(f"{index} does not name {extra[0]}, which a file holds: download it anew.")
    return {name: files[file][name] for name, file in places.items()}


def _inside(index: pathlib.Path, name: str) -> pathlib.Path:
    """The file that an index names, which is to lie beside it."""
    if pathlib.PurePath(name).name != name or name in ("", ".."):
        raise UserError(
            f"{index} names the file {name!r}, not one of its folder: download it anew."
        )
    return index.parent / name


def read_file(path: pathlib.Path) -> dict[str, Stored]:
    """The tensors of one file by name; raises `UserError` where it is missing or damaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER):
                raise ValueError(f"its header would end after its {size} bytes")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {name: _stored(path, 8 + length, size, name, x) for name, x in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read ({reason}): download or write it anew.") from error


def _stored(path: pathlib.Path, base: int, size: int, name: str, entry: Any) -> Stored:
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(type(n) is int and 0 <= n < 2**48 for n in (*shape, begin, end)):
        raise ValueError(f"{name} has shape {shape} and bytes {begin} to {end}")
    count = math.prod(shape)
    if not begin <= end <= size - base or end - begin != count * dtype.itemsize:
        raise ValueError(f"{name} has {end - begin} bytes at {begin}, not {count} of {dtype}")
    if not count:
        np.zeros(shape, dtype)  # its other sides may be more than an array can have
    return Stored(path, dtype, shape, base + begin)


def write_folder(
    folder: str | pathlib.Path, tensors: Mapping[str, Pending], shard_bytes: int = 5 * 10**9
) -> None:
    """Writes tensors in order to one file, or to several with an index where they outgrow one.

    What was there is replaced once the new files are whole.

    Args:
      folder: made if it is not there.
      tensors: by name. One at a time is in memory.
      shard_bytes: largest file; one tensor may exceed it.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = _split(tensors, shard_bytes)
    count = len(shards)
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    names = names if count > 1 else [SINGLE]
    for name, shard in zip(names, shards, strict=True):
        write_file(folder / f"{name}.part", {key: tensors[key] for key in shard})
    for old in [*folder.glob("model-*-of-*.safetensors"), folder / SINGLE, folder / INDEX]:
        old.unlink(missing_ok=True)
    for name in names:
        (folder / f"{name}.part").rename(folder / name)
    if count > 1:
        places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _split(tensors: Mapping[str, Pending], shard_bytes: int) -> list[list[str]]:
    """Names in order, in groups of at most `shard_bytes` where that can be."""
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, tensor in tensors.items():
        if shards[-1] and tensor.nbytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= tensor.nbytes
    return shards


def write_file(path: pathlib.Path, tensors: Mapping[str, Pending]) -> None:
    """Writes one file; raises `UserError` where the disk does not take it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": _NAMES[np.dtype(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, tensor in tensors.items():
                data = tensor.make()
                if (data.dtype, data.shape) != (tensor.dtype, tensor.shape):
                    raise TypeError(f"{name} was to be {tensor}, not {data.dtype}{data.shape}")
                file.write(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path} ({error.strerror}): free space or make the folder writable."
        ) from error
