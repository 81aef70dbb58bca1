# SPDX-License-Identifier: Apache-2.0
"""Readers of image archives that may be damaged: arrays, or an error with the file and offset.

IDX (MNIST, Fashion-MNIST) and CIFAR's binary and Python archives. The last are pickles; what reads
them here can build dicts, lists, numbers, bytes and flat arrays, and calls nothing else.
"""

import gzip
import io
import math
import pathlib
import pickle
import tarfile
import zlib
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jaxsafe.core.checks import UserError, check_memory

_BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError)
_LARGEST_MEMBER = 1 << 28  # bytes; CIFAR's largest file has 153 million


class Part(NamedTuple):
    """Images `[N, H, W, C]` uint8 and labels `[N]` int32."""

    images: np.ndarray
    labels: np.ndarray


def _fault(path: Any, offset: int, what: str) -> UserError:
    return UserError(f"{path}, offset {offset}: {what}: fetch the file again.")


def read_idx(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """Returns the bytes of an IDX file, gzipped or not, as uint8 of that many dimensions.

    Raises:
      UserError: wrong magic, other dimensions, too few or too many bytes, a broken gzip stream.
    """
    place = 0
    try:
        with _opened(path) as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 or header[:3] != b"\0\0\x08":
                raise _fault(path, 0, f"magic {header[:4].hex()} is not IDX of bytes, 000008")
            if header[3] != dimensions:
                raise _fault(path, 3, f"it has {header[3]} dimensions, not {dimensions}")
            if len(header) < 4 + 4 * dimensions:
                raise _fault(path, len(header), "the file ends inside its header")
            place = len(header)
            shape = [int(n) for n in np.frombuffer(header[4:], ">u4")]
            size = math.prod(shape)
            check_memory(f"{path}, {'x'.join(map(str, shape))} bytes", size, "Fetch it again.")
            content = _read_up_to(file, size + 1)
    except _BROKEN as error:
        raise _fault(
            path, place, f"it cannot be read on ({error or type(error).__name__})"
        ) from error
    if len(content) < size:
        raise _fault(
            path, place + len(content), f"the file ends, {size - len(content)} bytes early"
        )
    if len(content) > size:
        raise _fault(path, place + size, "bytes follow the last item")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _opened(path: pathlib.Path) -> Any:
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else open(path, "rb")


def _read_up_to(file: Any, size: int) -> bytes:
    """Reads in pieces, so that a header's promise costs no memory before the bytes are there."""
    pieces, left = [], size
    while left > 0 and (piece := file.read(min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def idx_part(images: pathlib.Path, labels: pathlib.Path) -> Part:
    """Reads a pair of IDX files.

    Raises:
      UserError: one is damaged, or they differ in length.
    """
    x, y = read_idx(images, 3), read_idx(labels, 1)
    if len(x) != len(y) or not len(x):
        raise UserError(f"{images} has {len(x)} images and {labels} {len(y)} labels: give a pair.")
    return Part(x[..., None], y.astype(np.int32))


def cifar_binary(path: Any, content: bytes, classes: int) -> Part:
    """Reads records of a label (CIFAR-100: a coarse and a fine one) and 3,072 bytes.

    Args:
      path: for messages.
      content: of the file.
      classes: 10 or 100.

    Raises:
      UserError: the last record is cut off, or a label is none.
    """
    head = 1 if classes == 10 else 2
    record = head + 3072
    if not content or len(content) % record:
        whole = len(content) // record
        raise _fault(path, whole * record, f"a record of {record} bytes is cut off after {whole}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels = rows[:, head - 1].astype(np.int32)
    bad = np.flatnonzero(labels >= classes)
    if bad.size:
        offset = int(bad[0]) * record + head - 1
        raise _fault(path, offset, f"label {labels[bad[0]]} is none of {classes}")
    return Part(_planes(rows[:, head:]), labels)


def _planes(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


class _Array:
    """What stands for a pickled NumPy array: its state, looked at before anything is made of it."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        size = math.prod(int(n) for n in shape)
        if kind.name != b"u1" or fortran or len(shape) != 2 or size != len(content):
            raise ValueError(f"an array of type {kind.name!r} and shape {shape!r}")
        self.value = np.frombuffer(content, np.uint8).reshape(shape)


class _Type:
    """What stands for a pickled NumPy dtype."""

    def __init__(self, name: Any = b"", *rest: Any) -> None:
        self.name = name.encode() if isinstance(name, str) else name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like: a byte has none."""


def _encode(text: str, encoding: Any = "latin1") -> bytes:
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *arguments: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *arguments: _Array(),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}


# The unpickler in Python: the one in C trusts sizes that the file gives.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):
    dispatch: ClassVar[dict] = dict(_PythonUnpickler.dispatch)

    def load_build(self) -> None:
        """Sets the state of what stands for arrays and types, and of nothing else."""
        if not isinstance(self.stack[-2], _Array | _Type):
            raise pickle.UnpicklingError("it changes something that is no array")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        """Finds what makes arrays of bytes; all else is refused."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, no image archive's")
        return _ALLOWED[module, name]


def cifar_python(path: Any, content: bytes, classes: int) -> Part:
    """Reads one of CIFAR's Python files without running what else a pickle may ask for.

    Args:
      path: for messages.
      content: of the file.
      classes: 10, or 100 for the fine labels.

    Raises:
      UserError: it is no such pickle, asks for anything but arrays of bytes, or is damaged.
    """
    stream = io.BytesIO(content)
    try:
        loaded = _Unpickler(stream, encoding="bytes").load()
    except Exception as error:  # A damaged pickle raises anything.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise _fault(path, stream.tell(), f"it is no pickle of CIFAR's ({reason})") from error
    key = b"labels" if classes == 10 else b"fine_labels"
    found = {} if not isinstance(loaded, dict) else {_bytes(k): v for k, v in loaded.items()}
    data, labels = getattr(found.get(b"data"), "value", None), found.get(key)
    if data is None or data.shape[1] != 3072 or not isinstance(labels, list):
        raise _fault(path, 0, f"it lacks data [N, 3072] or {key.decode()}")
    if len(data) != len(labels) or not labels:
        raise _fault(path, 0, f"it has {len(data)} images and {len(labels)} labels")
    for i, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < classes:
            raise _fault(path, 0, f"label {label!r} of image {i} is none of {classes}")
    return Part(_planes(data), np.asarray(labels, np.int32))


def _bytes(key: Any) -> Any:
    return key.encode("latin1", "replace") if isinstance(key, str) else key


def read_members(path: pathlib.Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Returns files of a folder or of a tar archive by their bare names; nothing is unpacked.

    Raises:
      UserError: one is absent, or the archive is damaged.
    """
    if path.is_dir():
        found = {n: (path / n).read_bytes() for n in wanted if (path / n).is_file()}
    else:
        found = _from_tar(path, wanted)
    for name in wanted:
        if name not in found:
            raise UserError(f"{path} has no {name}: fetch the archive again.")
    return found


def _from_tar(path: pathlib.Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    found, place = {}, 0
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                place = member.offset
                name = pathlib.PurePosixPath(member.name).name
                if not member.isfile() or name not in wanted:
                    continue
                if member.size > _LARGEST_MEMBER:
                    raise _fault(path, place, f"{name} claims to have {member.size} bytes")
                file = archive.extractfile(member)
                found[name] = b"" if file is None else file.read()
                if len(found[name]) != member.size:
                    raise _fault(path, place, f"{name} is cut off")
    except UserError:
        raise
    except Exception as error:  # Damaged headers raise ValueError, OverflowError and more.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise _fault(path, place, f"the archive is damaged ({reason})") from error
    return found
