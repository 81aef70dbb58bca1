# SPDX-License-Identifier: Apache-2.0
"""The log of a session: one row per episode, written before anything else and believed first.

People may mend it, and a machine may die while it writes. Rows are only ever cut off where they are
an unfinished last step, and what is cut off is kept in `evaluations.csv.torn`.
"""

import csv
import hashlib
import io
import os
import pathlib
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

from jaxsafe.core import run
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import config_hash
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.types import Evaluation, Problem, State


class Told(NamedTuple):
    """The whole steps of a log."""

    batches: list[Evaluation]
    digests: list[np.ndarray]  # [32] uint8 of the log before the first step, and after each


def checked(state: State, point: Any, returns: Any, config: SearchConfig) -> Evaluation:
    """Returns a step's places `[Q]` and returns `[Q, W, O]` as a search takes them.

    Raises:
      UserError: a shape or place is wrong, or something is no finite number.
    """
    point, returns = numbers("point", point), numbers("returns", returns)
    size, outputs = state.safe.shape[1], state.problem.prior_mean.shape[0]
    wanted = (config.batch, *returns.shape[1:2], outputs)
    if point.shape != (config.batch,) or returns.shape != wanted:
        raise UserError(
            f"points have shape {point.shape} and returns {returns.shape}: give [{config.batch}] "
            f"and [{config.batch}, episodes, {outputs}]."
        )
    if not (point == np.floor(point)).all():
        raise UserError(f"point={point.tolist()} is no place: give whole numbers below {size}.")
    if not (point.min() >= 0 and point.max() < size):
        raise UserError(f"point={point.tolist()} is outside of the grid: give places below {size}.")
    with np.errstate(over="ignore"):
        returns = returns.astype(state.upper.dtype)
    if not returns.shape[1] or not np.isfinite(returns).all():
        raise UserError("returns are missing or not finite: give one number per episode.")
    return Evaluation(jnp.asarray(point, jnp.int32), jnp.asarray(returns))


def numbers(name: str, value: Any) -> np.ndarray:
    """Returns an array of floats; raises `UserError` where something in it is no number."""
    try:
        given = np.asarray(value)
        good = given.dtype.kind in "iuf"
    except ValueError:  # rows of different lengths
        good = False
    if not good:
        short = " ".join(repr(value).split())[:60]
        raise UserError(f"{name}={short} is no array of numbers: give an array of numbers.")
    return given.astype(float)


def _header(state: State) -> list[str]:
    targets = [f"z{i}" for i in range(state.problem.grid.shape[1])]
    costs = [f"cost{i}" for i in range(state.upper.shape[0])]
    return ["step", "episodes", "point", *targets, "reward", *costs]


def append(log: pathlib.Path, state: State, batch: Evaluation) -> None:
    """Adds a step's rows in one write; numbers as Python prints them, which loses no bit.

    Raises:
      UserError: the log does not end with the step before.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    logged = log.read_bytes().splitlines()[1:] if log.exists() else []
    last = logged[-1].split(b",")[0].decode("ascii", "replace") if logged else "-1"
    if last != str(int(state.step) - 1):
        raise UserError(
            f"{log} ends with step {last} and the state is at step {int(state.step)}: resume the "
            "session for the state that belongs to the log."
        )
    if not log.exists() or not log.stat().st_size:
        writer.writerow(_header(state))
    episodes = batch.returns.shape[1]
    for point, returns in zip(batch.point.tolist(), batch.returns.tolist(), strict=True):
        z = state.problem.grid[point].tolist()
        for episode in returns:
            writer.writerow([int(state.step), episodes, point, *z, *episode])
    _add(log, text.getvalue().encode())


def _add(path: pathlib.Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def digest(data: bytes, config: SearchConfig) -> np.ndarray:
    """Returns `[32]` uint8, the SHA-256 of a log and of the config it was told with."""
    return _bytes(_begin(data, config))


def _begin(data: bytes, config: SearchConfig) -> Any:
    return hashlib.sha256(config_hash(config).encode() + data)


def _bytes(so_far: Any) -> np.ndarray:
    return np.frombuffer(so_far.digest(), np.uint8)


def read(log: pathlib.Path, state: State, config: SearchConfig) -> Told:
    """Returns the whole steps of a log, after cutting an unfinished last one off the file.

    Raises:
      UserError: the log is damaged, of another problem, or longer than the search.
    """
    data = log.read_bytes()
    lines = data.splitlines(keepends=True)
    header = ",".join(_header(state)).encode()
    told = Told([], [])
    if not data.endswith(b"\n") and (header + b"\n").startswith(data):
        _cut(log, lines, 0)
        return Told([], [digest(b"", config)])
    if lines[0].rstrip(b"\r\n") != header:
        raise UserError(f"{log} does not start with {header.decode()}: it is of another problem.")
    at = 1
    so_far = _begin(lines[0], config)
    told.digests.append(_bytes(so_far))
    while at < len(lines):
        rows = _step(log, lines, at, len(told.batches), header.count(b",") + 1, config)
        if rows is None:
            _cut(log, lines, at)
            break
        told.batches.append(_batch(log, rows, at, state, config))
        so_far.update(b"".join(lines[at : at + len(rows)]))
        told.digests.append(_bytes(so_far))
        at += len(rows)
    if len(told.batches) > config.num_steps:
        raise UserError(
            f"{log} has {len(told.batches)} steps and the search {config.num_steps}: raise "
            "reward_steps."
        )
    return told


def _cut(log: pathlib.Path, lines: list[bytes], at: int) -> None:
    """Moves the lines from `at` on to a file beside the log."""
    _add(log.with_name(f"{log.name}.torn"), b"".join(lines[at:]))
    os.truncate(log, len(b"".join(lines[:at])))


def _row(line: bytes, width: int) -> list[float] | None:
    """Returns the numbers of a line; None where it has others or something else."""
    try:
        row = [float(cell) for cell in line.decode("ascii").split(",")]
    except ValueError:
        return None
    return row if len(row) == width else None


def _step(
    log: pathlib.Path, lines: list[bytes], at: int, step: int, width: int, config: SearchConfig
) -> np.ndarray | None:
    """Returns the rows `[Q W, width]` of the step that begins at a line.

    None where the file ends in it: of its rows too few are there, all of them this step's but for a
    last one without an end. Anything else is damage, as no later step may be lost by it.
    """
    torn = not lines[-1].endswith(b"\n")
    whole = lines[at : len(lines) - torn]
    rows: list[list[float]] = []
    for number, line in enumerate(whole):
        row = _row(line, width)
        if row is None or row[0] != step or row[1] != (rows or [row])[0][1]:
            _damaged(log, at + number, step, at)
        if not (row[1] >= 1 and row[1].is_integer()):
            _damaged(log, at + number, step, at)
        rows.append(row)
        if len(rows) == config.batch * int(row[1]):
            return np.array(rows)
    return None


def _damaged(log: pathlib.Path, at: int, step: int, begin: int) -> NoReturn:
    raise UserError(
        f"{log}, line {at + 1}: step {step} is damaged; mend it, or delete the rows from line "
        f"{begin + 1} on, whose episodes are then run again."
    )


def _batch(
    log: pathlib.Path, rows: np.ndarray, at: int, state: State, config: SearchConfig
) -> Evaluation:
    dims = state.problem.grid.shape[1]
    split = rows.reshape(config.batch, -1, rows.shape[1])
    try:
        batch = checked(state, split[:, 0, 2], split[:, :, 3 + dims :], config)
    except UserError as error:
        raise UserError(f"{log}, line {at + 1}: {error}") from None
    wrong = (split[:, :, 2] != split[:, :1, 2]).any(-1)
    targets = np.asarray(state.problem.grid)[np.asarray(batch.point)]
    wrong |= (split[:, :, 3 : 3 + dims].astype(targets.dtype) != targets[:, None]).any((1, 2))
    if wrong.any():
        line = at + 1 + int(wrong.argmax()) * split.shape[1]
        raise UserError(
            f"{log}, line {line}: targets of these {split.shape[1]} rows are not that of one place "
            "of this grid: mend them, or give the grid that they are of."
        )
    return batch


def write_seeds(path: pathlib.Path, problem: Problem, costs: np.ndarray) -> None:
    """Writes the episodes `[P, n, C]` of the seed set's places, one a row, all or none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["point", *(f"cost{i}" for i in range(costs.shape[2]))])
    places = np.flatnonzero(problem.seed).tolist()
    for place, episodes in zip(places, costs.tolist(), strict=True):
        writer.writerows([place, *episode] for episode in episodes)
    run.write_text(path, text.getvalue())


def read_seeds(path: pathlib.Path, problem: Problem) -> np.ndarray:
    """Returns what `write_seeds` wrote, `[P, n, C]`.

    Raises:
      UserError: the file is damaged or of another seed set.
    """
    places, width = np.flatnonzero(problem.seed), 1 + problem.thresholds.shape[1]
    rows = [_row(line, width) for line in path.read_bytes().splitlines()[1:]]
    wanted = np.repeat(places, len(rows) // len(places)).tolist()
    if not rows or None in rows or wanted != [row[0] for row in rows if row]:
        raise UserError(
            f"{path} is damaged, or not of the {len(places)} seeds of this problem: mend it, or "
            "delete it and give the costs."
        )
    return np.array(rows)[:, 1:].reshape(len(places), -1, width - 1)


def means(log: pathlib.Path) -> np.ndarray:
    """Returns the episodes' mean returns of each point, in order, `[N, O]`, reward first.

    Raises:
      UserError: a line holds something else than numbers.
    """
    header, *lines = log.read_bytes().splitlines()
    names = header.decode("ascii", "replace").split(",")
    first, rows = names.index("reward"), []
    for number, line in enumerate(lines):
        row = _row(line, len(names))
        if row is None or row[1] < 1:
            raise UserError(f"{log}, line {number + 2} is damaged: resume the session first.")
        rows.append(row)
    found, at, told = [], 0, np.array(rows)
    while at < len(told):
        episodes = int(told[at, 1])
        found.append(told[at : at + episodes, first:].mean(0))
        at += episodes
    return np.array(found)
