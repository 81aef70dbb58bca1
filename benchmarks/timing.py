# SPDX-License-Identifier: Apache-2.0
"""How every benchmark times, pins cores and writes its results."""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

flags.disclaim_key_flags()  # those of `define_flags` are the benchmark's, in its --help
RESULTS = pathlib.Path(__file__).parent / "results"


def pin(cores: int) -> int:
    """Keeps this process, and the thread pools it will make, on that many cores at most."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, allowed)
    return len(allowed)


def repeat(call: Callable[[], Any], work: float, repeats: int, min_s: float = 0.5) -> dict:
    """Times one call by itself: `interleaved` with a single side.

    Returns:
      `rate`, `low`, `high`, `repeats`, `calls` and `per_cpu_s`, as `interleaved`.
    """
    return interleaved({"": call}, work, repeats, min_s)[""]


class Turns:
    """Times calls that do the same `work` in turns, so that a busy spell of the machine hits all.

    In a turn every side makes as many calls as take `min_s` seconds, at least one; when this is
    made, uncounted ones for that long warm it up. A call blocks until its work is done.
    """

    def __init__(self, sides: Mapping[str, Callable[[], Any]], work: float, min_s: float = 0.0):
        self.sides, self.work = sides, work
        self.calls = {name: _warm_up(call, min_s) for name, call in sides.items()}
        self.wall: dict[str, list[float]] = {name: [] for name in sides}
        self.cpu: dict[str, list[float]] = {name: [] for name in sides}

    def take(self) -> None:
        """A turn of each side."""
        for name, call in self.sides.items():
            start, busy = time.perf_counter(), time.process_time()
            for _ in range(self.calls[name]):
                call()
            self.wall[name].append((time.perf_counter() - start) / self.calls[name])
            self.cpu[name].append((time.process_time() - busy) / self.calls[name])

    def found(self) -> dict[str, dict]:
        """Returns, for each side, what `interleaved` tells."""
        return {
            name: rates(self.wall[name], self.work)
            | {"calls": self.calls[name], "per_cpu_s": self.work / float(np.median(self.cpu[name]))}
            for name in self.sides
        }


def interleaved(
    sides: Mapping[str, Callable[[], Any]], work: float, repeats: int, min_s: float = 0.0
) -> dict[str, dict]:
    """Times calls that do the same `work` in turns, as `Turns` describes.

    Returns:
      For each, `rate` (median units per second), `low` and `high` (quartiles), `repeats` (turns),
      `calls` in each, and `per_cpu_s`, the median units per second of processor time, all threads
      together.
    """
    turns = Turns(sides, work, min_s)
    for _ in range(repeats):
        turns.take()
    return turns.found()


def _warm_up(call: Callable[[], Any], min_s: float) -> int:
    """Calls for `min_s` seconds, once at least; returns how many calls take that long.

    The first call is slow, so it counts only where there is no other.
    """
    ends = [time.perf_counter()]
    while len(ends) == 1 or ends[-1] - ends[0] < min_s:
        call()
        ends.append(time.perf_counter())
    later = ends[1:] if len(ends) > 2 else ends
    once = (later[-1] - later[0]) / (len(later) - 1)
    return max(1, int(np.ceil(min_s / max(once, 1e-9))))


def rates(seconds: Sequence[float], work: float = 1.0) -> dict:
    """Median and quartiles of `work` units by each of the seconds, and how many there are."""
    low, middle, high = np.percentile(work / np.asarray(seconds), [25, 50, 75])
    return {
        "rate": float(middle),
        "low": float(low),
        "high": float(high),
        "repeats": len(seconds),
    }


def compiled(function: Callable, *arguments: Any, **jit_options: Any) -> tuple[Any, dict]:
    """Compiles for these arguments.

    Returns:
      the program, and its costs as columns of a row: `compile_s`, seconds that tracing and XLA
      took, and `temporary_mb`, the peak of what it allocates beside arguments and results, in 1e6
      bytes on a device; None where JAX does not tell.
    """
    import jax

    start = time.perf_counter()
    program = jax.jit(function, **jit_options).lower(*arguments).compile()
    seconds, memory = time.perf_counter() - start, program.memory_analysis()
    temporary = None if memory is None else memory.temp_size_in_bytes / 1e6
    return program, {"compile_s": seconds, "temporary_mb": temporary}


def over_cores(name: str, cores: int, *arguments: str) -> list[dict[str, Any]]:
    """Runs the workers of benchmark `name`, one process per core count, and returns their rows.

    Args:
      name: of the module, whose worker prints JSON rows as its last line of output.
      cores: how many to measure on; 0 for one, then two.
      arguments: further flags of the worker.
    """
    rows = []
    for count in [cores] if cores else [1, 2]:
        print(f"measuring on {count} cores ...", file=sys.stderr)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--worker", f"--cores={count}"]
        done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, text=True, check=True)
        rows += json.loads(done.stdout.splitlines()[-1])
    return rows


def define_flags(repeats: int = 7) -> None:
    """Defines the flags that every benchmark over core counts has; `worker` is for its own use."""
    flags.DEFINE_integer("cores", 0, "Measure on this many cores only; 0: on one, then on two.")
    flags.DEFINE_integer("repeats", repeats, "Counted repeats.")
    flags.DEFINE_bool("worker", False, "Print JSON rows only (the process for one core count).")


def main(name: str, worker: Callable[[int], list[dict]], passed: Sequence[str], note: str) -> None:
    """Runs `worker(cores)` in a process per core count, and writes `results/name.json`.

    Args:
      name: of the benchmark's module.
      worker: measures and returns rows; where this is that process, they are printed.
      passed: names of flags that the workers are given too, beside `repeats`.
      note: what the rows are.
    """
    values = flags.FLAGS
    if values.worker:
        print(json.dumps(worker(values.cores)))
        return
    given = [f"--{flag}={_text(values[flag].value)}" for flag in ("repeats", *passed)]
    write(name, over_cores(name, values.cores, *given), note)


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def write(name: str, rows: Sequence[dict[str, Any]], note: str) -> pathlib.Path:
    """Writes `results/name.json` with what produced it, prints the table, returns the path."""
    from jaxsafe.core import provenance, run, tables

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    cpu = cpu_model()
    run.write_json(path, {"note": note, "cpu": cpu, "rows": list(rows)} | provenance.provenance())
    print(f"\n{name} on {cpu}: {note}")
    print(tables.text_table(rows))
    print(f"written: {path}")
    return path


def print_tables(found: Mapping[str, str]) -> None:
    """Prints tables under their titles."""
    for title, text in found.items():
        print(f"\n{title}\n\n{text}")


def cpu_model() -> str:
    """Name of the processor, as the system tells it."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"
