# SPDX-License-Identifier: Apache-2.0
"""The host loop over jitted chunks: progress, rows, checkpoints, NaN stops, signals."""

import contextlib
import dataclasses
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxsafe.core import checkpoint, checks, metrics, parallel
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Program
from jaxsafe.core.run import Folder


class NonFiniteError(RuntimeError):
    """Training met NaN or infinity; the message names step, seed and metric."""


class StoppedError(RuntimeError):
    """A signal ended the run early, after its checkpoint was written."""

    def __init__(self, stage: str, step: int, signum: int):
        self.signum = signum
        name = signal.Signals(signum).name
        super().__init__(f"{name}: stopped {stage} at step {step}; --resume goes on from there.")


class Stop:
    """The last of SIGTERM and SIGINT received, or 0."""

    def __init__(self) -> None:
        self.signum = 0

    def agreed(self) -> int:
        """The signal, the same on every process."""
        return parallel.largest(self.signum)


@contextlib.contextmanager
def catch_signals() -> Iterator[Stop]:
    """Turns the first SIGTERM or SIGINT into a request to stop; a second one acts at once."""
    stop = Stop()
    old: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        stop.signum = number
        signal.signal(number, old[number])

    for number in (int(signal.SIGTERM), int(signal.SIGINT)):
        old[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished stage: its state `[num_seeds, ...]` and what it took."""

    state: Any
    compile_s: float
    run_s: float
    steps: int
    rate: float
    unit: str

    def timing(self) -> dict[str, Any]:
        """The stage's entry in `timing.json`."""
        return {
            "steps": self.steps,
            "compile_s": round(self.compile_s, 2),
            "run_s": round(self.run_s, 2),
            "rate": float(f"{self.rate:.5g}"),
            "unit": f"{self.unit}/s",
        }


def restore_last(program: Program, folder: Folder) -> tuple[int, Any] | None:
    """The last checkpoint's (step, state) of a stage, or None."""
    where = folder.checkpoints(program.stage.name)
    saved = checkpoint.steps(where)
    return (saved[-1], checkpoint.restore(where, saved[-1], program.shapes())) if saved else None


def _begin(program: Program, folder: Folder) -> tuple[int, Any]:
    """State to start from, with the rows past it removed."""
    name = program.stage.name
    step, state = restore_last(program, folder) or (0, None)
    if parallel.is_main_process():
        metrics.keep(folder.metrics, lambda r: r["stage"] != name or r["step"] <= step)
    if state is None:
        state = program.init(program.keys())
        checkpoint.save(folder.checkpoints(name), 0, state)
    return step, state


class _Bad(NamedTuple):
    """The first value of a chunk's metrics that is not finite."""

    name: str
    seed_index: int
    value: Any


def _first_bad(host: dict[str, np.ndarray]) -> _Bad | None:
    for name, values in sorted(host.items()):
        bad = np.flatnonzero(~np.isfinite(np.asarray(values, np.float64)))
        if bad.size:
            return _Bad(name, int(bad[0]), np.asarray(values)[bad[0]])
    return None


def _stop_on_nan(program: Program, folder: Folder, bad: _Bad, first: int, last: int) -> None:
    """Goes back to the last checkpoint, redoes the steps that were finite, saves, raises."""
    step, state = restore_last(program, folder) or (0, program.init(program.keys()))
    while step < first:
        length = program.length_at(step)
        state, _ = program.chunk(length)(state, jnp.int32(step))
        step += length
    where = folder.checkpoints(program.stage.name)
    checkpoint.save(where, step, state)
    advice = "Start anew with lower learning rates, or --resume --check_nans=debug to find the "
    advice += "operation."
    if program.options.check_nans == "debug":
        advice = _find_operation(program, state, step, last)
    raise NonFiniteError(
        f"{program.stage.name}: {bad.name} of seed {program.options.seed + bad.seed_index} is "
        f"{bad.value} at step {last}. The last good state, of step {step}, is in {where}. {advice}"
    )


def _find_operation(program: Program, state: Any, step: int, last: int) -> str:
    """Redoes steps one by one, and the first bad one operation by operation."""
    unknown = "--check_nans=debug found no operation that makes a NaN."
    if jax.process_count() > 1:
        return unknown + " Resume in one process to look for it."
    for number in range(step, last):
        before = jax.tree.map(lambda x: x.copy(), state)
        state, device_metrics = program.chunk(1)(state, jnp.int32(number))
        bad = _first_bad(parallel.to_host(device_metrics))
        if bad:
            one = jax.tree.map(lambda x, i=bad.seed_index: x[i], before)
            try:
                with jax.disable_jit(), jax.debug_nans(True):
                    program.stage.chunk(one, jnp.int32(number), 1)
            except FloatingPointError as error:
                frames = traceback.extract_tb(error.__traceback__)
                own = [f for f in frames if "site-packages" not in f.filename] or frames
                text = str(error).splitlines()[0]
                return f"Step {number}: {text} at {own[-1].filename}:{own[-1].lineno}."
            return unknown
    return unknown


def check_length(program: Program, folder: Folder) -> None:
    """Raises `UserError` where a stage has already gone further than it is to go."""
    stage, saved = program.stage, checkpoint.steps(folder.checkpoints(program.stage.name))
    if saved and saved[-1] > stage.num_steps:
        raise checks.UserError(
            f"{stage.name} has reached step {saved[-1]} in {folder.path}, past the "
            f"{stage.num_steps} asked for: ask for as many at least, or choose another --out."
        )


_SHARE_ONLY = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"


def progress_bar(
    options: RunOptions, title: str, total: float = 1.0, unit: str = "", done: float = 0.0
) -> tqdm:
    """A bar with time left, and the rate if there is a unit; on the main process, if wanted."""
    return tqdm(
        total=total,
        initial=done,
        desc=title,
        unit=f" {unit}",
        unit_scale=True,
        bar_format=None if unit else _SHARE_ONLY,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
        disable=not (options.progress and parallel.is_main_process()),
    )


class _Rows:
    """Writes a stage's rows to metrics.jsonl, and to TensorBoard if wanted."""

    def __init__(self, program: Program, folder: Folder):
        options = program.options
        self.stage, self.folder = program.stage, folder
        self.seeds = list(range(options.seed, options.seed + options.num_seeds))
        self.main = parallel.is_main_process()
        wanted = options.tensorboard and self.main
        self.board = metrics.TensorBoard(folder.path / "tensorboard") if wanted else None

    def write(self, step: int, host: dict[str, np.ndarray]) -> None:
        if not self.main:
            return
        extra = {self.stage.unit: step * self.stage.units_per_step}
        rows = metrics.rows_of(self.stage.name, step, self.seeds, host, **extra)
        metrics.append(self.folder.metrics, rows)
        if self.board:
            self.board.write(rows)

    def close(self) -> None:
        if self.board:
            self.board.close()


def train(program: Program, folder: Folder, stop: Stop) -> Trained:
    """Trains one stage from its last checkpoint, or from its start, to its end.

    Raises:
      NonFiniteError: a metric is NaN or infinite; the last good state is saved.
      StoppedError: a signal came; the state is saved.
      UserError: a checkpoint is unusable.
    """
    stage, options = program.stage, program.options
    rows = _Rows(program, folder)
    step, state = _begin(program, folder)
    first_step, run_s = step, 0.0
    units = stage.units_per_step * options.num_seeds
    if step < stage.num_steps:
        program.chunk(program.length_at(step))
        if rows.main:
            folder.say(f"{stage.name}: compiled in {program.compile_s:.1f} s")
    total, unit = stage.num_steps * units, stage.unit.replace("_", " ")
    bars = progress_bar(options, stage.name, total, unit, step * units)
    with contextlib.closing(rows), bars as bar:
        while step < stage.num_steps:
            length = program.length_at(step)
            chunk = program.chunk(length)
            clock = time.perf_counter()
            state, device_metrics = chunk(state, jnp.int32(step))
            host = parallel.to_host(device_metrics)
            run_s += time.perf_counter() - clock
            bad = _first_bad(host) if options.check_nans != "off" else None
            if bad:
                _stop_on_nan(program, folder, bad, step, step + length)
            step += length
            bar.update(length * units)
            rows.write(step, host)
            _save_if_due(program, folder, stop, step, length, state)
    signum = stop.agreed()
    if signum:
        raise StoppedError(stage.name, step, signum)
    rate = (step - first_step) * units / run_s if run_s else 0.0
    return Trained(state, program.compile_s, run_s, step, rate, stage.unit)


def _save_if_due(
    program: Program, folder: Folder, stop: Stop, step: int, length: int, state: Any
) -> None:
    stage, every = program.stage, program.options.checkpoint_every
    signum = stop.agreed()
    due = bool(every) and step // every > (step - length) // every
    if due or signum or step == stage.num_steps:
        checkpoint.save(folder.checkpoints(stage.name), step, state)
    if signum:
        raise StoppedError(stage.name, step, signum)
