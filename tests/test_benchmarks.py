# SPDX-License-Identifier: Apache-2.0
"""Benchmarks run, at a size that measures nothing."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from benchmarks import m2td3_ablation
from jaxsafe.core import flags as flags_lib
from jaxsafe.m2td3 import PRESETS

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


def test_cdt_times_training_and_rollouts_of_every_engine_there_is():
    small = ("--batch=2", "--episodes=1,3", "--length=11", "--width=16", "--repeats=1")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cdt", "--worker", "--cores=1", *small],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    kinds = [(row["what"], row["batch"]) for row in rows]
    each = [("training", 2), ("rollouts", 1), ("rollouts", 3)]
    assert kinds in (each, each + each)
    assert [row["by"] for row in rows] == (["jaxsafe"] * 3 + ["PyTorch"] * 3)[: len(rows)]
    assert all(row["rate"] > 0 and row["cores"] == 1 for row in rows)


def test_every_row_of_the_ablation_changes_the_demo_by_flags_that_exist():
    before = PRESETS["demo"].algo
    assert m2td3_ablation.ROWS["M2TD3+"] == ()
    for name, given in list(m2td3_ablation.ROWS.items())[1:]:
        values = flags.FlagValues()
        flags_lib.define_run_flags(values, PRESETS)
        flags_lib.define_config_flags(PRESETS["demo"], "", values)
        values(["m2td3", *given])
        for path in (flag.removeprefix("--").partition("=")[0] for flag in given):
            default = getattr(before, path.removeprefix("algo."))
            assert values[path].value != default, (name, path)
