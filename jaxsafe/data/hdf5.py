# SPDX-License-Identifier: Apache-2.0
"""HDF5 files: reading what may be damaged, with errors that name file and key; writing whole.

A damaged header can promise terabytes. Before anything is read, what a dataset promises is held
against what the file stores. Variable-length strings keep their lengths where they cannot be
checked, so what has them is left out; `fixed` makes strings that are read.
"""

import contextlib
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from jaxsafe.core.checks import UserError, check_memory

# Deflate packs at most 1032 to 1; other filters are not far from it.
_MOST_PACKED = 2000
_ONE_CHUNK = 1 << 24
_LONGEST_ATTRIBUTE = 1 << 20


def read(path: pathlib.Path, keys: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns `(datasets by path, attributes of the file)`.

    Args:
      path: of the file.
      keys: which datasets must be numbers; of the others only those that are numbers are read.

    Raises:
      UserError: the file is absent or no HDF5 file, it or a dataset is damaged, or it would not fit
        in memory.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file: check the path.")
    try:
        size = os.path.getsize(path)
        with _as_user_error(path, "the file cannot be opened"), h5py.File(path, "r") as file:
            content: dict[str, np.ndarray] = {}
            for key, dataset in _datasets(path, file).items():
                if dataset.dtype.kind in "biuf":
                    content[key] = _array(path, key, dataset, size)
                elif key in keys:
                    raise UserError(f"{path}: key {key!r} has type {dataset.dtype}: give numbers.")
            return content, _attributes(path, file)
    except RecursionError:
        raise UserError(f"{path}: the file is damaged: its groups have no end.") from None


@contextlib.contextmanager
def _as_user_error(path: pathlib.Path, what: str) -> Iterator[None]:
    """Turns whatever h5py raises into one line."""
    try:
        yield
    except (UserError, RecursionError):
        raise
    except Exception as error:  # h5py raises OSError, RuntimeError, KeyError, TypeError and more.
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: {what} ({reason}): it is damaged, cut off or no HDF5 file; fetch or write it "
            "again."
        ) from error


def _datasets(path: pathlib.Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str | bytes, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name if isinstance(name, str) else name.decode("utf-8", "replace")] = item

    with _as_user_error(path, "its list of keys cannot be read"):
        file.visititems(visit)
    return found


def _array(path: pathlib.Path, key: str, dataset: h5py.Dataset, file_size: int) -> np.ndarray:
    with _as_user_error(path, f"key {key!r} cannot be read"):
        if dataset.external or dataset.is_virtual:
            raise UserError(
                f"{path}: key {key!r} lies in another file: copy its data into this one."
            )
        if dataset.shape is None:
            raise UserError(f"{path}: key {key!r} is empty: write it again.")
        promised, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
        packed = bool(dataset.id.get_create_plist().get_nfilters())
        most = stored * _MOST_PACKED + _ONE_CHUNK if packed else stored
        if promised > most or stored > file_size:
            raise UserError(
                f"{path}: key {key!r} promises {promised} bytes and the file stores "
                f"{min(stored, file_size)}: it is damaged or cut off; fetch or write it again."
            )
        check_memory(f"{path}: key {key!r}", promised, "Split the file.")
        return np.asarray(dataset[()])


def _attributes(path: pathlib.Path, file: h5py.File) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with _as_user_error(path, "its attributes cannot be read"):
        for name in file.attrs:
            header = file.attrs.get_id(name)
            if header.dtype.hasobject:
                continue
            promised = math.prod(header.shape or ()) * header.dtype.itemsize
            if promised > _LONGEST_ATTRIBUTE:
                raise UserError(
                    f"{path}: attribute {name!r} promises {promised} bytes: write it again."
                )
            found[str(name)] = _plain(file.attrs[name])
    return found


@contextlib.contextmanager
def written_whole(
    path: pathlib.Path, attributes: Mapping[str, Any] | None = None
) -> Iterator[h5py.File]:
    """A file to fill, which takes its name once it is closed: written whole, or not at all.

    Raises:
      UserError: there is no folder for it.
    """
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}: make it first.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            yield file
            for name, value in (attributes or {}).items():
                file.attrs[name] = fixed(value)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def fixed(value: Any) -> Any:
    """Returns an attribute's value as it is to be written: a string as bytes of fixed length."""
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8")
    return np.array(text, f"S{max(1, len(text))}")


def _plain(value: Any) -> Any:
    """A NumPy scalar or bytes as Python has them."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value
