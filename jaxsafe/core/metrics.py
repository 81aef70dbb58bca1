# SPDX-License-Identifier: Apache-2.0
"""Metrics as JSON lines, one row per stage, step and seed.

Rows hold no clock times, so a resumed run writes the rows of an unbroken one. JSON has no NaN and
no infinity: they stand as "nan", "inf" and "-inf", which `float` reads.
"""

import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxsafe.core import checks

Row = dict[str, Any]


def rows_of(
    stage: str, step: int, seeds: list[int], metrics: Mapping[str, np.ndarray], **extra: Any
) -> list[Row]:
    """Splits metrics with leaves `[num_seeds]` into one row per seed, sorted by name."""
    return [
        {"stage": stage, "step": step, "seed": seed, **extra}
        | {name: _plain(metrics[name][i]) for name in sorted(metrics)}
        for i, seed in enumerate(seeds)
    ]


def _plain(value: Any) -> int | float | str:
    number = np.asarray(value).item()
    if isinstance(number, float):
        # The shortest text that reads back as the same float32.
        return float(str(np.float32(number))) if math.isfinite(number) else str(number)
    return number


def append(path: pathlib.Path, rows: list[Row]) -> None:
    """Appends rows to a JSONL file in one write, and has the system put them on disk."""
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read(path: pathlib.Path) -> Iterator[Row]:
    """Yields the rows of a JSONL file; a last line cut short by a kill is passed over.

    Raises:
      UserError: another line is damaged.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise checks.UserError(
                    f"{path}, line {number}, is damaged ({error}): remove that line, or start "
                    "anew with --overwrite."
                ) from error


def keep(path: pathlib.Path, wanted: Callable[[Row], bool]) -> None:
    """Rewrites a JSONL file with the wanted rows only, atomically."""
    if not path.exists():
        return
    rows = [row for row in read(path) if wanted(row)]
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch()
    append(temporary, rows)
    os.replace(temporary, path)


def summary_writer() -> Any:
    """tensorboardX's writer; raises `UserError` where that is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise checks.UserError(
            "--tensorboard needs tensorboardX: pip install 'jaxsafe[tensorboard]'."
        ) from error
    return SummaryWriter


class TensorBoard:
    """Writes rows to TensorBoard, one run per stage and seed."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def write(self, rows: list[Row]) -> None:
        """Adds rows; they are sure to be on disk only after `close`."""
        for row in rows:
            name = f"{row['stage']}/seed{row['seed']}"
            if name not in self._writers:
                self._writers[name] = summary_writer()(str(self._folder / name))
            for tag, value in row.items():
                if tag not in ("stage", "step", "seed"):
                    self._writers[name].add_scalar(tag, float(value), row["step"])
            self._writers[name].flush()

    def close(self) -> None:
        """Waits until all is written."""
        for writer in self._writers.values():
            writer.close()
