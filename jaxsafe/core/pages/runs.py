# SPDX-License-Identifier: Apache-2.0
"""Finds run folders and reads what stands in them, whole or not."""

import dataclasses
import json
import os
import pathlib
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxsafe.core import metrics, run
from jaxsafe.core.checks import UserError

# Metric -> stage -> (steps [T], values [num_seeds, T]), NaN where a row or a number is absent.
Curves = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
_REMAINS = frozenset({"metrics.jsonl", "summary.json", "eval.jsonl"})


@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
      name: its path below the folder searched.
      record: `config.json`.
      summary: `summary.json`, or None of a run that has not finished.
      curves: the rows of `metrics.jsonl`.
      last: stage -> its last step that has a row.
      pictures: the files in `plots/`, sorted.
      faults: what could not be read, and why.
    """

    name: str
    record: dict[str, Any]
    summary: dict[str, Any] | None
    curves: Curves
    last: dict[str, int]
    pictures: tuple[pathlib.Path, ...]
    faults: tuple[str, ...]

    @property
    def system(self) -> str:
        """The system that was run."""
        return str(self.record["system"])

    @property
    def results(self) -> list[dict[str, Any]]:
        """The rows of the finished run; none of another."""
        return self.summary["results"] if self.summary else []

    def seeds(self) -> range:
        """The seeds asked for."""
        options = self.record["options"]
        first, number = options.get("seed"), options.get("num_seeds")
        return range(first, first + number) if _whole(first) and _whole(number) else range(0)

    def config(self) -> dict[str, Any]:
        """The config as dotted fields."""
        return dict(_flatten(self.record["config"]))

    def given(self) -> frozenset[str]:
        """The dotted fields that the command changes from the preset."""
        try:
            words = shlex.split(str(self.record.get("command", "")))
        except ValueError:
            return frozenset()
        return frozenset(w[2:].partition("=")[0] for w in words if w.startswith("--"))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 4_000_000_000


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, dict):
            yield from _flatten(value, path)
        else:
            yield path, value


def find(root: pathlib.Path) -> tuple[list[Run], dict[str, str]]:
    """Reads every run folder at or below `root`; links to folders are not followed.

    Returns:
      The runs in the order of their names, and for each folder that looks like a run and cannot be
      read, its name and the reason.

    Raises:
      UserError: `root` is no folder.
    """
    if not root.is_dir():
        raise UserError(f"--runs={root} is no folder: give one that holds run folders.")
    found, faults = [], {}
    for where, folders, files in os.walk(root, onerror=lambda e: faults.update(_refused(e, root))):
        path, folders[:] = pathlib.Path(where), sorted(folders)
        name = path.relative_to(root).as_posix()
        name = path.resolve().name if name == "." else name
        try:
            if "config.json" in files and _is_record(path / "config.json"):
                found.append(read(path, name))
            elif "log.txt" in files and _REMAINS & set(files):
                raise UserError("it has rows of a run and no config.json.")
            else:
                continue
        except UserError as error:
            faults[name] = str(error)
        folders.clear()  # what is in a run is its own: checkpoints, models
    return found, faults


def _refused(error: OSError, root: pathlib.Path) -> dict[str, str]:
    return {os.path.relpath(error.filename, root): error.strerror or "unreadable"}


def _is_record(path: pathlib.Path) -> bool:
    """Whether a config.json is ours; others, as of language models, have neither of two fields."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True  # `read_record` says what is wrong with it
    return isinstance(record, dict) and bool({"schema", "system"} & set(record))


def read(path: pathlib.Path, name: str) -> Run:
    """Reads one run folder; what is damaged beside its record is left out and told in `faults`.

    Raises:
      UserError: the record cannot be read.
    """
    try:
        record = run.read_record(path)
    except RecursionError as error:
        raise UserError(f"{path / 'config.json'} is nested too deeply.") from error
    for field in ("options", "config"):
        if not isinstance(record[field], dict):
            raise UserError(f"{path / 'config.json'} is damaged: {field!r} is no record.")
    folder, faults = run.Folder(path), []
    summary = None
    try:
        if folder.summary.exists():
            summary = _check_summary(json.loads(folder.summary.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"summary.json cannot be read: {error}")
    curves: Curves = {}
    last: dict[str, int] = {}
    try:
        curves, last = _curves(folder.metrics)
    except (OSError, UserError, RecursionError) as error:
        faults.append(str(error))
    pictures = tuple(sorted(p for p in folder.plots.glob("*") if p.is_file()))
    return Run(name, record, summary, curves, last, pictures, tuple(faults))


def _check_summary(summary: Any) -> dict[str, Any]:
    rows = summary.get("results") if isinstance(summary, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it has no list of results")
    return summary


def _curves(path: pathlib.Path) -> tuple[Curves, dict[str, int]]:
    rows: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
    for number, row in enumerate(metrics.read(path), 1):
        stage = row.get("stage") if isinstance(row, dict) else None
        if not (isinstance(stage, str) and _whole(row.get("step")) and _whole(row.get("seed"))):
            raise UserError(f"{path.name}, row {number}, lacks stage, step or seed.")
        rows.setdefault(stage, {})[row["step"], row["seed"]] = row
    curves: Curves = {}
    for stage, cells in rows.items():
        steps, seeds = (sorted(set(column)) for column in zip(*cells, strict=True))
        place = {s: i for i, s in enumerate(seeds)}, {t: i for i, t in enumerate(steps)}
        names = dict.fromkeys(n for row in cells.values() for n in row)
        for name in (n for n in names if n not in ("stage", "step", "seed")):
            y = np.full((len(seeds), len(steps)), np.nan)
            for (step, seed), row in cells.items():
                y[place[0][seed], place[1][step]] = number_of(row.get(name))
            curves.setdefault(name, {})[stage] = np.asarray(steps, float), y
    return curves, {stage: max(cells)[0] for stage, cells in rows.items()}


def number_of(value: Any) -> float:
    """The number a JSON value stands for, "inf" and "nan" among them; NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
