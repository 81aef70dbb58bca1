# SPDX-License-Identifier: Apache-2.0
"""Rows: one per seed, exact, whole, and JSON whatever they hold."""

import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsafe.core import metrics
from jaxsafe.core.checks import UserError


def strict(text):
    """Parses JSON as the standard has it, without NaN."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_one_row_per_seed_sorted_by_name():
    values = {"loss": np.array([1.5, 2.5], np.float32), "count": np.array([3, 4], np.int32)}
    rows = metrics.rows_of("stage", 10, [7, 8], values, env_steps=160)
    assert rows == [
        {"stage": "stage", "step": 10, "seed": 7, "env_steps": 160, "count": 3, "loss": 1.5},
        {"stage": "stage", "step": 10, "seed": 8, "env_steps": 160, "count": 4, "loss": 2.5},
    ]
    assert list(rows[0]) == ["stage", "step", "seed", "env_steps", "count", "loss"]
    assert type(rows[0]["count"]) is int


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_is_written_short_and_read_back_identical(number):
    row = metrics.rows_of("s", 1, [0], {"x": np.array([number], np.float32)})[0]
    text = json.dumps(row["x"])
    assert np.float32(float(text)) == np.float32(number)
    digits = text.lstrip("-").partition("e")[0].replace(".", "").strip("0")
    assert len(digits) <= 9


def test_a_tenth_is_written_as_a_tenth():
    row = metrics.rows_of("s", 1, [0], {"x": np.array([0.1], np.float32)})[0]
    assert json.dumps(row["x"]) == "0.1"


def test_what_is_not_finite_stays_valid_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    values = np.array([np.nan, np.inf, -np.inf], np.float32)
    metrics.append(path, metrics.rows_of("s", 1, [0, 1, 2], {"x": values}))
    rows = [strict(line) for line in path.read_text().splitlines()]
    assert [row["x"] for row in rows] == ["nan", "inf", "-inf"]
    np.testing.assert_array_equal([float(row["x"]) for row in rows], values)
    with pytest.raises(ValueError, match="JSON"):
        metrics.append(path, [{"x": float("nan")}])
    assert len(path.read_text().splitlines()) == 3


def test_a_line_cut_short_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert list(metrics.read(path)) == []
    metrics.append(path, [{"step": 1}, {"step": 2}])
    with path.open("ab") as file:
        file.write('{"step": 3, "name": "é'.encode()[:-1])  # in the middle of a letter
    assert list(metrics.read(path)) == [{"step": 1}, {"step": 2}]
    metrics.keep(path, lambda row: True)
    metrics.append(path, [{"step": 3}])
    assert [row["step"] for row in metrics.read(path)] == [1, 2, 3]


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\0\0\0\0\n{"step": 2}\n')
    with pytest.raises(UserError, match=rf"{path}, line 2, is damaged .*: remove that line"):
        list(metrics.read(path))


def test_keep_rewrites_only_what_is_wanted(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.keep(path, lambda row: True)
    assert not path.exists()
    metrics.append(path, [{"step": i, "x": 0.1} for i in range(5)])
    before = path.read_text().splitlines(keepends=True)
    (tmp_path / "metrics.tmp").write_text("left by a kill\n")
    metrics.keep(path, lambda row: row["step"] < 3)
    assert path.read_text() == "".join(before[:3])
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_keep_killed_at_its_end_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, [{"step": 1}, {"step": 2}])
    before = path.read_bytes()

    def killed(*_):
        assert path.read_bytes() == before  # nothing is lost until the swap
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        metrics.keep(path, lambda row: row["step"] < 2)
    assert path.read_bytes() == before


def test_tensorboard_gets_every_stage_and_seed(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    board = metrics.TensorBoard(tmp_path)
    for stage in ("first", "second"):
        for step in (5, 10):
            values = {"loss": np.array([step, np.nan], np.float32)}
            board.write(metrics.rows_of(stage, step, [3, 4], values))
    board.close()
    found = {}
    for path in sorted(tmp_path.rglob("events*")):
        data, at, points = path.read_bytes(), 0, []
        while at < len(data):  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            points += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            at += 16 + size
        found[path.parent.relative_to(tmp_path).as_posix()] = points
    assert sorted(found) == ["first/seed3", "first/seed4", "second/seed3", "second/seed4"]
    assert found["second/seed3"] == [("loss", 5, 5.0), ("loss", 10, 10.0)]
    assert np.isnan([value for _, _, value in found["first/seed4"]]).all()


def test_tensorboard_that_is_absent_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"needs tensorboardX: pip install 'jaxsafe\[tensorboard"):
        metrics.summary_writer()
