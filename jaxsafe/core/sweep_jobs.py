# SPDX-License-Identifier: Apache-2.0
"""Runs the points of a sweep as processes, some at a time, and says how each ended."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from jaxsafe.core import loop, tables
from jaxsafe.core.pages import results
from jaxsafe.core.sweep import Point, Sweep

_POLL_S = 0.05
_COLUMNS = 4  # of results, in the terminal


@dataclasses.dataclass
class _Job:
    point: Point
    process: subprocess.Popen
    start: float
    told: int = 0  # the last signal passed on


def run_points(sweep: Sweep, points: Sequence[Point], jobs: int) -> int:
    """Runs what is not finished; a failure does not keep the others from running.

    A SIGTERM or SIGINT is passed to the processes, which save and stop; no further one starts.

    Returns:
      0; 1 where a point failed; 128 + the signal where one came.
    """
    waiting = [point for point in points if point.state() != "finished"]
    for point in points:
        if point not in waiting:
            print(f"{point.name}: finished before", flush=True)
    running: list[_Job] = []
    failed = 0
    with loop.catch_signals() as stop:
        while running or (waiting and not stop.signum):
            while waiting and len(running) < jobs and not stop.signum:
                running.append(_start(sweep, waiting.pop(0)))
            time.sleep(_POLL_S)
            for job in running:
                if stop.signum and job.told != stop.signum:
                    job.told = stop.signum
                    job.process.send_signal(stop.signum)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                failed += _ended(job, stop.signum)
    if stop.signum:
        print(f"stopped; {len(waiting)} points did not begin; --resume goes on", flush=True)
        return 128 + stop.signum
    return int(failed > 0)


def _start(sweep: Sweep, point: Point) -> _Job:
    command = sweep.command(point)
    print(f"{point.name}: {'going on' if '--resume' in command else 'begins'}", flush=True)
    if point.state() == "new":
        # Left by a run that was killed before it had written its record.
        (point.path / "config.tmp").unlink(missing_ok=True)
    # A new session: signals of the terminal come through this process, once.
    with point.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return _Job(point, process, time.monotonic())


def _ended(job: _Job, signum: int) -> bool:
    """Says how a point ended; returns whether it failed."""
    code, took = job.process.returncode, time.monotonic() - job.start
    name = job.point.name
    if code == 0:
        print(f"{name}: finished in {took:.0f} s", flush=True)
        return False
    if signum and code in (-signum, 128 + signum):
        print(f"{name}: stopped", flush=True)
        return False
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    print(f"{name}: failed ({how}): {last_line(job.point)}", file=sys.stderr, flush=True)
    return True


def last_line(point: Point) -> str:
    """The last line that a point's process printed."""
    with point.log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def table(points: Sequence[Point]) -> str:
    """The results of all points: their labels and first measures; the rest is on a page."""
    lines: list[dict[str, Any]] = []
    for point in points:
        state, rows = point.state(), []
        if state == "finished":
            rows = results.summary_rows(_results(point))
        for row in rows or [{}]:
            lines.append(
                {"point": point.name, "state": state} | dict(list(row.items())[: 1 + _COLUMNS])
            )
    return tables.text_table(lines)


def _results(point: Point) -> list[dict[str, Any]]:
    try:
        rows = json.loads((point.path / "summary.json").read_text(encoding="utf-8"))["results"]
        return rows if all(isinstance(row, dict) for row in rows) else []
    except (OSError, ValueError, TypeError, KeyError):
        return []
