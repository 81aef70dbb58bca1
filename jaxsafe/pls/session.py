# SPDX-License-Identifier: Apache-2.0
"""A search whose episodes are run elsewhere: by a person, a robot, another program.

A folder holds `evaluations.csv`, one row per episode and written first, and checkpoints of the
state. Whatever moment the program dies at, `resume` gives the state of an unbroken session, bit
for bit: the newest checkpoint, and the log's rows after it told again.

```python
state = session.resume(folder, jax.random.key(0), problem, config)
while not session.finished(state, config):
    query, state = session.ask(state, config)
    returns = ...  # [Q, W, O] of the targets query.z
    state, metrics = session.record(folder, state, query.point, returns, config)
session.recommend(state, config)
```
"""

import csv
import io
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import checkpoint
from jaxsafe.core.checks import UserError
from jaxsafe.pls import search
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.types import Evaluation, Problem, State

_LOG = "evaluations.csv"
_CHECKPOINTS = "checkpoints"

# One compiled program, so that a resumed session does the arithmetic of an unbroken one.
ask = jax.jit(search.ask, static_argnums=1)
recommend = jax.jit(search.recommend, static_argnums=1)
_tell = jax.jit(search.tell, static_argnums=2)


def finished(state: State, config: SearchConfig) -> bool:
    """Returns whether all steps of the config are done."""
    return int(state.step) >= config.num_steps


def record(
    folder: pathlib.Path, state: State, point: Any, returns: Any, config: SearchConfig
) -> tuple[State, search.Metrics]:
    """Logs a step's episodes, tells them and saves the state.

    Args:
      folder: of the session.
      state: what `ask` returned.
      point: `[Q]` places in the grid, those asked for or others.
      returns: `[Q, W, O]` undiscounted returns, reward first.
      config: static.

    Raises:
      UserError: the search is over, a shape or place is wrong, a return is not finite, or the disk
        is full.
    """
    batch = _checked(state, point, returns, config)
    if finished(state, config):
        raise UserError(f"all {config.num_steps} steps are done: raise reward_steps for more.")
    folder.mkdir(parents=True, exist_ok=True)
    _append(folder / _LOG, state, batch)
    state, metrics = _tell(state, batch, config)
    checkpoint.save(folder / _CHECKPOINTS, int(state.step), state)
    return state, metrics


def resume(folder: pathlib.Path, key: jax.Array, problem: Problem, config: SearchConfig) -> State:
    """Returns the state of a session, new where the folder has none; `key` is consumed.

    A log without checkpoints is enough. A last step that was cut off while written is dropped from
    the log.

    Raises:
      UserError: the log or a checkpoint is damaged, or of another problem or config.
    """
    state = search.init(key, problem, config)
    log = folder / _LOG
    if not log.exists():
        return state
    steps = _read(log, state, config)
    saved = [step for step in checkpoint.steps(folder / _CHECKPOINTS) if step <= len(steps)]
    if saved:
        state = checkpoint.restore(folder / _CHECKPOINTS, saved[-1], state)
    for batch in steps[int(state.step) :]:
        _, state = ask(state, config)
        state, _ = _tell(state, batch, config)
    return state


def evaluated(folder: pathlib.Path) -> np.ndarray:
    """Returns the episodes' mean returns of each point logged, in order, `[N, O]`, reward first."""
    text = (folder / _LOG).read_text().splitlines()
    first = text[0].split(",").index("reward")
    rows = np.array([[float(x) for x in line.split(",")] for line in text[1:]])
    means, at = [], 0
    while at < len(rows):
        episodes = int(rows[at, 1])
        means.append(rows[at : at + episodes, first:].mean(0))
        at += episodes
    return np.array(means)


def _checked(state: State, point: Any, returns: Any, config: SearchConfig) -> Evaluation:
    point, returns = np.asarray(point), np.asarray(returns, float)
    size, outputs = state.safe.shape[1], state.problem.prior_mean.shape[0]
    if point.shape != (config.batch,) or returns.shape[::2] != (config.batch, outputs):
        raise UserError(
            f"points have shape {point.shape} and returns {returns.shape}: give [{config.batch}] "
            f"and [{config.batch}, episodes, {outputs}]."
        )
    if not returns.shape[1] or not np.isfinite(returns).all():
        raise UserError("returns are missing or not finite: give one number per episode.")
    if not (point.min() >= 0 and point.max() < size):
        raise UserError(f"point={point.tolist()} is outside of the grid: give places below {size}.")
    return Evaluation(jnp.asarray(point, jnp.int32), jnp.asarray(returns, state.upper.dtype))


def _header(state: State) -> list[str]:
    targets = [f"z{i}" for i in range(state.problem.grid.shape[1])]
    costs = [f"cost{i}" for i in range(state.upper.shape[0])]
    return ["step", "episodes", "point", *targets, "reward", *costs]


def _append(log: pathlib.Path, state: State, batch: Evaluation) -> None:
    """Adds a step's rows in one write; numbers as Python prints them, which loses no bit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not log.exists():
        writer.writerow(_header(state))
    episodes = batch.returns.shape[1]
    for point, returns in zip(batch.point.tolist(), batch.returns.tolist(), strict=True):
        z = state.problem.grid[point].tolist()
        for episode in returns:
            writer.writerow([int(state.step), episodes, point, *z, *episode])
    with log.open("a") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())


def _read(log: pathlib.Path, state: State, config: SearchConfig) -> list[Evaluation]:
    """Returns the whole steps of a log, after dropping a torn last one from the file."""
    lines = log.read_text().splitlines(keepends=True)
    header = _header(state)
    if not lines or lines[0].rstrip("\n").split(",") != header:
        raise UserError(f"{log} does not start with {','.join(header)}: it is of another problem.")
    batches: list[Evaluation] = []
    at = 1
    while at < len(lines):
        rows, end = _one_step(log, lines, at, len(batches), len(header), config)
        if rows is None:
            log.write_text("".join(lines[:at]))
            break
        batches.append(_batch(log, rows, at, state, config))
        at = end
    if len(batches) > config.num_steps:
        raise UserError(f"{log} has {len(batches)} steps, the search {config.num_steps}: raise it.")
    return batches


def _one_step(
    log: pathlib.Path, lines: list[str], at: int, step: int, width: int, config: SearchConfig
) -> tuple[np.ndarray | None, int]:
    """Returns a step's rows as numbers and the line after it; `None` where the file ends in it."""
    try:
        count = config.batch * int(lines[at].split(",")[1])
        end = at + count
        whole = end <= len(lines) and lines[end - 1].endswith("\n")
        if not whole:
            return None, at
        rows = np.array([[float(x) for x in line.split(",")] for line in lines[at:end]])
        good = rows.shape == (count, width) and (rows[:, 0] == step).all()
    except (ValueError, IndexError):
        if at == len(lines) - 1 and not lines[at].endswith("\n"):
            return None, at
        good = False
    if not good:
        raise UserError(f"{log}, line {at + 1}: step {step} is damaged; mend or delete its rows.")
    return rows, end


def _batch(
    log: pathlib.Path, rows: np.ndarray, at: int, state: State, config: SearchConfig
) -> Evaluation:
    dims = state.problem.grid.shape[1]
    split = rows.reshape(config.batch, -1, rows.shape[1])
    batch = _checked(state, split[:, 0, 2].astype(int), split[:, :, 3 + dims :], config)
    targets = np.asarray(state.problem.grid)[np.asarray(batch.point)]
    if not np.array_equal(split[:, 0, 3 : 3 + dims].astype(targets.dtype), targets):
        raise UserError(f"{log}, line {at + 1}: its targets are not those of this grid.")
    return batch
