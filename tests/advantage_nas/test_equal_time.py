# SPDX-License-Identifier: Apache-2.0
"""Methods are compared at the time at which the quickest one ended."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxsafe.advantage_nas import equal_time, report
from jaxsafe.advantage_nas import experiment as experiments
from jaxsafe.advantage_nas.config import Config
from jaxsafe.advantage_nas.equal_time import Pace
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder

SPACE = SimpleNamespace(edges=((0, 1), (1, 2)), names=("none", "skip"), num_edges=2)
CONFIG = Config(epochs=4, freeze_epochs=1, steps_per_epoch=100)  # 100 at rest, 300 that move
PACES = {
    "advantage": Pace(0.01, 0.02),  # 1 + 6 seconds
    "counterfactual": Pace(0.01, 0.08),
    "darts": Pace(0.05, 0.1),
    "random": Pace(0.01, 0.01),  # 1 + 3 seconds
}


class Walk(struct.PyTreeNode):
    """A search that multiplies matrices, `size` of them a step once theta moves."""

    step: jax.Array
    value: jax.Array


def stage(name, size):
    def one(state, _):
        count = jnp.where(state.step < CONFIG.freeze_steps, 1, size)
        value = jax.lax.fori_loop(0, count, lambda _, x: jnp.tanh(x @ x), state.value)
        return Walk(state.step + 1, value), None

    def chunk(state, first, length):
        state, _ = jax.lax.scan(one, state, None, length)
        return state, {"seen": state.value.sum()}

    def init(key):
        return Walk(jnp.int32(0), jax.random.normal(key, (32, 32)))

    whole = {"num_steps": CONFIG.total_steps, "parameters": lambda state: state.value}
    return Stage(name, init, chunk, result=lambda state: state.value, **whole)


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
    """In the 4 seconds of random search: 3 s of moving at 20 and 80 ms, or 80 steps at rest."""
    found = equal_time.steps_within(PACES, CONFIG)
    assert found == {"advantage": 250, "counterfactual": 137, "darts": 80, "random": 400}
    assert equal_time.steps_within({"darts": PACES["darts"]}, CONFIG) == {"darts": 400}
    level = dataclasses.replace(CONFIG, freeze_epochs=0)
    assert equal_time.steps_within(PACES, level)["advantage"] == 200


def test_steps_are_timed_at_rest_and_in_motion(tmp_path):
    stages = [stage("light", 1), stage("heavy", 3000)]
    folder = Folder(tmp_path)
    found = equal_time.paces(folder, stages, CONFIG)
    light, heavy = found["light"], found["heavy"]
    assert min(*light, *heavy) > 0
    assert heavy.move > 20 * heavy.rest and heavy.move > 20 * light.move
    # What was measured once is kept.
    assert equal_time.paces(folder, stages, CONFIG) == found
    assert json.loads(folder.step_times.read_text())["heavy"] == heavy._asdict()
    assert set(equal_time.paces(folder, [stage("other", 1)], CONFIG)) == {"other"}


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

    def retrained(choice, task, scoring, seed, count, done, known):
        asked.append((choice.tolist(), seed, count))
        assert known[0] == "ended" and known[1].tolist() == [[1.0, 1.0]]
        return np.array([[0.5, 0.7], [0.9, 0.9]])

    monkeypatch.setattr(report.evaluate, "retrained", retrained)
    task, experiment = SimpleNamespace(space=SPACE), experiments.PRESETS["digits"]
    ended = {"retrained_per_seed": [[1.0, 1.0]], "retrained_mean": 1.0, "retrained_sd": 0.0}

    def tell(method, step):
        row = {"method": method} | ended
        given = (row, "ended", task, experiment, range(2), lambda: None)
        return report._in_time(folder, step, *given)

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
