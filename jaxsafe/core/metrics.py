# SPDX-License-Identifier: Apache-2.0
"""Metrics as JSON lines, one row per stage, step and seed.

Rows hold no clock times, so a resumed run writes the rows of an unbroken one.
"""

import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

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


def _plain(value: Any) -> int | float:
    number = np.asarray(value).item()
    if isinstance(number, float):
        # The shortest text that reads back as the same float32.
        return float(str(np.float32(number))) if math.isfinite(number) else number
    return number


def append(path: pathlib.Path, rows: list[Row]) -> None:
    """Appends rows to a JSONL file in one write, and has the system put them on disk."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read(path: pathlib.Path) -> Iterator[Row]:
    """Yields the rows of a JSONL file; a last line cut short by a kill is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


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


def tensorboard_writer(folder: pathlib.Path) -> Callable[[list[Row]], None]:
    """Returns a function that writes rows to TensorBoard, one run per stage and seed.

    Raises:
      UserError: tensorboardX is not installed.
    """
    from jaxsafe.core import checks

    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise checks.UserError(
            "--tensorboard needs tensorboardX: pip install 'jaxsafe[tensorboard]'."
        ) from error
    writers: dict[str, Any] = {}

    def write(rows: list[Row]) -> None:
        for row in rows:
            name = f"{row['stage']}/seed{row['seed']}"
            writer = writers.setdefault(name, None) or SummaryWriter(str(folder / name))
            writers[name] = writer
            for tag, value in row.items():
                if tag not in ("stage", "step", "seed"):
                    writer.add_scalar(tag, value, row["step"])
            writer.flush()

    return write
