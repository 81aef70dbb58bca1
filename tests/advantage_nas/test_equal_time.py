# SPDX-License-Identifier: Apache-2.0
"""Methods are compared at the time at which the quickest one ended."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from jaxsafe.advantage_nas import equal_time, report
from jaxsafe.advantage_nas import experiment as experiments
from jaxsafe.core.run import Folder

SPACE = SimpleNamespace(edges=((0, 1), (1, 2)), names=("none", "skip"), num_edges=2)
TIMING = {
    "advantage": {"steps": 300, "rate": 20.0},
    "counterfactual": {"steps": 300, "rate": 5.0},
    "random": {"steps": 300, "rate": 30.0},
    "gdas": {"steps": 300, "rate": 0.0},
}


@pytest.fixture
def folder(tmp_path):
    """Rows of one method every 10 steps: seed 0 turns to skip at step 40, seed 1 at step 60."""
    rows = []
    for step in range(10, 101, 10):
        for seed, turn in ((0, 40), (1, 60)):
            p = 0.75 if step >= turn else 0.25
            row = {"stage": "counterfactual", "step": step, "seed": seed}
            row |= {"p/0-1/none": 1 - p, "p/0-1/skip": p, "p/1-2/none": 0.6, "p/1-2/skip": 0.4}
            rows.append(row)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return Folder(tmp_path)


def test_steps_are_those_done_when_the_quickest_ended():
    """300 steps at 30 a second are 10 seconds: 200 of 20 a second, 50 of 5 a second."""
    found = equal_time.steps_within(TIMING, list(TIMING))
    assert found == {"advantage": 200, "counterfactual": 50, "random": 300}
    assert equal_time.steps_within(TIMING, ["advantage", "unknown"]) == {"advantage": 300}
    assert equal_time.steps_within({}, ["advantage"]) == {}


def test_an_architecture_is_that_of_the_last_row_not_past_the_step(folder):
    def at(step):
        return equal_time.architectures(folder, "counterfactual", step, SPACE, (0, 1))

    step, choice = at(59)
    assert step == 50 and choice.dtype == np.int32 and choice.tolist() == [[1, 0], [0, 0]]
    assert at(60)[1].tolist() == [[1, 0], [1, 0]]
    assert at(9) is None
    assert equal_time.architectures(folder, "advantage", 50, SPACE, (0, 1)) is None


def test_rows_hold_what_training_gives_of_the_earlier_architectures(folder, monkeypatch):
    asked = []

    def retrained(choice, task, scoring, seed, count):
        asked.append((choice.tolist(), seed, count))
        return np.array([[0.5, 0.7], [0.9, 0.9]])

    monkeypatch.setattr(report.evaluate, "retrained", retrained)
    task, experiment = SimpleNamespace(space=SPACE), experiments.PRESETS["digits"]
    ended = {"retrained_per_seed": [[1.0, 1.0]], "retrained_mean": 1.0, "retrained_sd": 0.0}

    def tell(method, step):
        return report._in_time(folder, step, {"method": method} | ended, task, experiment, range(2))

    row = tell("counterfactual", 55)
    assert row["equal_time_step"] == 50 and row["equal_time_retrained_mean"] == pytest.approx(0.75)
    assert row["equal_time_retrained_sd"] == pytest.approx(np.std([0.6, 0.9], ddof=1))
    assert asked == [([[1, 0], [0, 0]], 0, 5)]
    # The quickest one's own end is what was trained already; random search keeps no way.
    total = experiment.search.total_steps
    assert tell("counterfactual", total) == {"equal_time_step": total} | {
        f"equal_time_{name}": value for name, value in ended.items()
    }
    assert tell("random", 55) == {} and tell("counterfactual", 5) == {} and len(asked) == 1
