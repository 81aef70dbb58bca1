# SPDX-License-Identifier: Apache-2.0
"""Word-level text as the Penn Treebank is used: files of lines, a vocabulary, parallel streams.

Letters in shapes: N words, B streams side by side, L words of a stream, T words of a chunk.
"""

import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.core.checks import UserError, check_range

END, UNKNOWN = "<eos>", "<unk>"
PARTS = ("train", "valid", "test")


class Corpus(NamedTuple):
    """A text in three parts.

    Attributes:
      train: `[N]` int32, indices into the vocabulary; likewise the others.
      valid: held out.
      test: held out.
      vocabulary: words of the training part in the order they first occur, `<eos>` and `<unk>`
        among them.
      comparable: the parts are the files of that name; else perplexities must not be set beside
        published ones.
      note: which text each part is.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    vocabulary: tuple[str, ...]
    comparable: bool
    note: str


class Chunk(NamedTuple):
    """Words `[T, B]` and the words after them `[T, B]`, int32."""

    tokens: jax.Array
    targets: jax.Array


def load(folder: str | os.PathLike[str]) -> Corpus:
    """Reads `ptb.train.txt`, `ptb.valid.txt`, `ptb.test.txt` (or `train.txt` and so on).

    Where a part is absent, it is cut by lines from another: without a test file, the last tenth of
    the training text; without a validation file, the same of what is left; without a training file,
    the validation text (or else the test text) is split 80 : 20, or 80 : 10 : 10 where it is alone.

    Raises:
      UserError: no such file is there, one is empty or no UTF-8 (with the offset), or too short.
    """
    base = pathlib.Path(folder)
    if not base.is_dir():
        raise UserError(f"{base}: there is no such folder: check the path.")
    paths = {part: _find(base, part) for part in PARTS}
    lines = {part: read_lines(path) for part, path in paths.items() if path is not None}
    if not lines:
        raise UserError(f"{base} holds no text: put ptb.train.txt (and valid, test) there.")
    notes = [f"{part}: {paths[part].name}" for part in lines]  # type: ignore[union-attr]
    comparable = len(lines) == 3
    if "train" not in lines:
        lines = _without_train(lines, notes)
    for part in ("test", "valid"):
        if part not in lines:
            lines["train"], lines[part] = _cut(lines["train"], 0.9)
            notes.append(f"{part}: the last tenth of train")
    vocabulary = _vocabulary(lines["train"])
    index = {word: i for i, word in enumerate(vocabulary)}
    unknown = index[UNKNOWN]
    train, valid, test = (
        np.asarray([index.get(w, unknown) for w in _words(lines[part])], np.int32) for part in PARTS
    )
    return Corpus(train, valid, test, vocabulary, comparable, "; ".join(notes))


def _find(base: pathlib.Path, part: str) -> pathlib.Path | None:
    names = (f"ptb.{part}.txt", f"{part}.txt")
    return next((base / name for name in names if (base / name).is_file()), None)


def read_lines(path: pathlib.Path) -> list[list[str]]:
    """Words of each line that has any.

    Raises:
      UserError: the file is no UTF-8, holds a NUL byte, or has no words; with the offset.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, offset {error.start}: byte {content[error.start]:#04x} is no UTF-8: "
            "give a text file."
        ) from None
    if (nul := content.find(0)) >= 0:
        raise UserError(f"{path}, offset {nul}: a NUL byte: give a text file.")
    lines = [words for line in text.split("\n") if (words := line.split())]
    if not lines:
        raise UserError(f"{path} has no words: fetch the file again.")
    return lines


def _without_train(lines: dict[str, list[list[str]]], notes: list[str]) -> dict[str, list]:
    notes.insert(0, "not comparable, since there is no training file")
    source = "valid" if "valid" in lines else "test"
    train, rest = _cut(lines[source], 0.8)
    if len(lines) == 2:
        notes.append(f"train: the first 80 % of {source}, which keeps the rest")
        return {"train": train, "valid": rest, "test": lines["test"]}
    valid, test = _cut(rest, 0.5)
    notes.append(f"train, valid, test: 80, 10, 10 % of {source}")
    return {"train": train, "valid": valid, "test": test}


def _cut(lines: list, fraction: float) -> tuple[list, list]:
    cut = round(fraction * len(lines))
    if not 0 < cut < len(lines):
        raise UserError(f"a text of {len(lines)} lines is too short to be split: give more.")
    return lines[:cut], lines[cut:]


def _words(lines: list[list[str]]):
    for line in lines:
        yield from line
        yield END


def _vocabulary(lines: list[list[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*_words(lines), UNKNOWN)))


def streams(tokens: np.ndarray, batch: int) -> np.ndarray:
    """Cuts a text `[N]` into `batch` streams side by side, `[L, B]`; what is left over is dropped.

    Raises:
      UserError: a stream would have fewer than two words.
    """
    check_range("batch", batch, low=1)
    length = len(tokens) // batch
    if length < 2:
        raise UserError(f"batch={batch} of {len(tokens)} words leaves no stream: lower it.")
    return np.ascontiguousarray(tokens[: length * batch].reshape(batch, length).T)


def num_chunks(text: np.ndarray | jax.Array, length: int) -> int:
    """Whole chunks of `length` words, each with the word after it, in streams `[L, B]`.

    Raises:
      UserError: there is none.
    """
    chunks = (len(text) - 1) // length
    if chunks < 1:
        raise UserError(f"streams of {len(text)} words hold no chunk of {length}: shorten it.")
    return chunks


def chunk(text: jax.Array, number: jax.Array | int, length: int) -> Chunk:
    """Chunk `number` (any integer, counted round and round) of streams `[L, B]`; pure."""
    start = jnp.asarray(number) % ((text.shape[0] - 1) // length) * length
    found = lax.dynamic_slice_in_dim(jnp.asarray(text), start, length + 1)
    return Chunk(found[:-1], found[1:])
