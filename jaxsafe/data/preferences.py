# SPDX-License-Identifier: Apache-2.0
"""Preferences between two answers, and answers labelled good or bad, as people publish them.

A file holds one JSON object per line or one JSON list, plain or gzipped. `preference_formats` says
which fields each format has; `read_pairs` and `read_labelled` find the format out by them. Text is
kept as it is: tokens, templates and truncation are the reader's of this module.
"""

import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from jaxsafe.core.checks import UserError, check_choice, check_range
from jaxsafe.data import preference_formats as formats
from jaxsafe.data.preference_formats import Labelled, Pair

Row = TypeVar("Row", Pair, Labelled)
OVER_LONG = ("keep", "drop")


@dataclasses.dataclass(frozen=True)
class Report:
    """What reading a file came to; rows are counted once, by the first reason that applies.

    Attributes:
      source: the file.
      format: as found or as told.
      records: objects in the file.
      rows: rows kept.
      empty: rows left out, as their prompt is empty or blank.
      over_long: rows whose prompt is longer than `max_prompt`; left out or kept as was asked.
      undecided: pairs left out, as the file says that neither answer is better, or they are equal.
    """

    source: str
    format: str
    records: int
    rows: int
    empty: int = 0
    over_long: int = 0
    undecided: int = 0

    def __str__(self) -> str:
        """One line for a log."""
        return (
            f"{self.source}: {self.records} records ({self.format}), {self.rows} rows kept; "
            f"{self.empty} with an empty prompt and {self.undecided} undecided left out, "
            f"{self.over_long} over-long prompts"
        )


class Read(NamedTuple):
    """Rows of a file, `Pair` or `Labelled`, and what was counted on the way."""

    rows: list[Any]
    report: Report


def read_pairs(
    path: str | os.PathLike[str],
    which: str = "helpful",
    format: str = "auto",
    max_prompt: int | None = None,
    length: Callable[[str], int] = len,
    over_long: str = "drop",
) -> Read:
    """Reads pairs of answers of which one is preferred.

    Args:
      path: of the file.
      which: of PKU-SafeRLHF rows, which have two preferences, `helpful` or `safe`.
      format: one of `preference_formats.PAIRS`, or `auto`.
      max_prompt: longest prompt, by `length`; None: any.
      length: of a prompt; characters by default, tokens if a tokenizer counts.
      over_long: whether longer ones are left out (`drop`) or only counted (`keep`).

    Raises:
      UserError: the file is absent or unreadable, its format is unknown, or a row is malformed; the
        message names file, line and field.
    """
    check_choice("which", which, ("helpful", "safe"))
    pick = formats.PAIRS | {"pku": formats.pku_safe if which == "safe" else formats.pku_helpful}
    return _read(path, pick, format, max_prompt, length, over_long)


def read_labelled(
    path: str | os.PathLike[str],
    which: str = "safe",
    format: str = "auto",
    max_prompt: int | None = None,
    length: Callable[[str], int] = len,
    over_long: str = "drop",
) -> Read:
    """Reads single answers labelled desirable or not; arguments and errors as of `read_pairs`.

    Pairs serve too: the preferred answer is desirable, the other is not. PKU-SafeRLHF rows give two
    answers each, labelled by `is_response_i_safe` (`safe`) or by preference (`helpful`).
    """
    check_choice("which", which, ("helpful", "safe"))
    pick = formats.LABELLED | {
        "pku": formats.pku_safe_labels if which == "safe" else formats.pku_helpful_labels
    }
    return _read(path, pick, format, max_prompt, length, over_long)


def split(rows: Sequence[Row], held_out: float, salt: str = "") -> tuple[list[Row], list[Row]]:
    """Returns (training, held-out) rows; a prompt is whole in one of them, whatever its file.

    Args:
      rows: pairs or labelled answers.
      held_out: share of prompts to hold out, in [0, 1].
      salt: another one, another split.

    Raises:
      UserError: `held_out` is out of range.
    """
    check_range("held_out", held_out, 0.0, 1.0)
    parts: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        parts[share_of(row.prompt, salt) < held_out].append(row)
    return parts


def share_of(prompt: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on the prompt and the salt alone."""
    digest = hashlib.sha256(f"{salt}\n{prompt.strip()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _read(
    path: str | os.PathLike[str],
    pick: Mapping[str, formats.Maker],
    format: str,
    max_prompt: int | None,
    length: Callable[[str], int],
    over_long: str,
) -> Read:
    check_choice("format", format, ("auto", *pick))
    check_choice("over_long", over_long, OVER_LONG)
    rows: list[Any] = []
    counts = dict.fromkeys(("records", "empty", "over_long", "undecided"), 0)
    for place, record in records(path):
        if format == "auto":
            format = _detected(place, record, pick)
        counts["records"] += 1
        for row in pick[format](place, record):
            if row is None or (isinstance(row, Pair) and row.chosen == row.rejected):
                counts["undecided"] += 1
            elif not row.prompt.strip():
                counts["empty"] += 1
            else:
                long = max_prompt is not None and length(row.prompt) > max_prompt
                counts["over_long"] += long
                if not (long and over_long == "drop"):
                    rows.append(row)
    if not counts["records"]:
        raise UserError(f"{path} holds no record: give a file with one JSON object per line.")
    return Read(rows, Report(str(path), format, rows=len(rows), **counts))


def _detected(place: str, record: Mapping[str, Any], pick: Mapping[str, formats.Maker]) -> str:
    for name in pick:
        if set(formats.FIELDS[name]) <= set(record):
            return name
    known = "; ".join(f"{name}: {', '.join(formats.FIELDS[name])}" for name in pick)
    raise UserError(f"{place} has the fields {', '.join(record)}, of no known format ({known}).")


def records(path: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields `(place, object)` of a JSONL file or a JSON list; a place is `FILE, line 3`.

    Raises:
      UserError: the file is absent, unreadable, or a line or item is no JSON object.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{path} cannot be read ({reason}): give a JSONL or JSON file, plain or gzipped."
        ) from error
    if text.lstrip()[:1] == "[":
        yield from _items(path, text)
        return
    # Text has line ends of other kinds inside of its strings, which `splitlines` would cut at.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, _object(place, _parsed(place, line))


def _items(path: pathlib.Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, item in enumerate(_parsed(str(path), text), 1):
        place = f"{path}, item {number}"
        yield place, _object(place, item)


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is no JSON ({error}): mend or remove it.") from error


def _object(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{place} is a {type(value).__name__}: give a JSON object.")
    return value
