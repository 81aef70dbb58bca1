# SPDX-License-Identifier: Apache-2.0
"""Benchmarks run, at a size that measures nothing."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def test_grid_evaluation_times_every_engine_there_is():
    small = ("--grid=2", "--episodes=2", "--length=20", "--repeats=1", "--batches=4")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.grid_evaluation", "--worker", "--cores=1", *small],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    engines = [row["engine"] for row in rows]
    assert engines[:2] == ["MuJoCo C", "mjx"] and set(engines[2:]) <= {"analytic"}
    for row in rows:
        assert row["seconds"] * row["rate"] == pytest.approx(2 * 2 * 2 * 20)
        assert (row["omegas"], row["episodes"], row["cores"]) == (4, 2, 1)
    assert rows[0]["compile_s"] == 0 and rows[1]["compile_s"] > 0
