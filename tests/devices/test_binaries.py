# SPDX-License-Identifier: Apache-2.0
"""A binary as two processes, a seed on each, beside the same run by one process."""

import math

import numpy as np
import pytest

from tests.devices.test_processes import joined
from tests.experiments import binaries, test_survival
from tests.experiments.binaries import json_rows

CASES = test_survival.CASES
# Stages that begin alike, where not all do: others begin from what rounding came to.
ALIKE = {"sacpo": ("sft",)}
_SIGNS = "policy/accuracy"  # counts signs of margins that are 0 at first, but for rounding


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.unbroken)
def test_two_processes_train_a_seed_each(case, tmp_path_factory, tmp_path):
    """Rows are those of one process, once; the first of each stage to rounding, 1e-3.

    The one has both seeds on one device, so that later rows part by what rounding grows to.
    """
    module, out = f"experiments.{case.name}", tmp_path / "run"
    given = case.given(tmp_path_factory)
    whole = binaries.unbroken(tmp_path_factory, case.unbroken, module, given)
    arguments = [x for x in given if not x.startswith("--devices")]
    command = binaries.command(module, *arguments, "--devices=2", f"--out={out}")
    first, second = joined(command, timeout=900)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    # Process 0 alone speaks, but for the library that joins them.
    assert all(line.startswith("[Gloo]") for line in second[1].splitlines()), second[1]
    found, expected = json_rows(out / "metrics.jsonl"), json_rows(whole / "metrics.jsonl")
    places = [[(r["stage"], r["step"], r["seed"]) for r in rows] for rows in (found, expected)]
    assert places[0] == places[1]
    begun = set()
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
        assert all(map(math.isfinite, numbers.values()))
        alike = row["stage"] in ALIKE.get(case.name, (row["stage"],))
        if alike and (row["stage"], row["seed"]) not in begun:
            begun.add((row["stage"], row["seed"]))
            for name in numbers.keys() - {_SIGNS}:
                near = {"rtol": 1e-3, "atol": 1e-4, "err_msg": name}
                np.testing.assert_allclose(numbers[name], other[name], **near)
    assert len(json_rows(out / "eval.jsonl")) == len(json_rows(whole / "eval.jsonl"))
    assert (out / "summary.json").exists()
