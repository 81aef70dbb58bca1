# SPDX-License-Identifier: Apache-2.0
"""What a session is resumed from: the log decides, and only its own problem and config go on."""

import dataclasses
import shutil
import warnings

import jax
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.pls import session, session_log
from tests.core.test_checkpoint import assert_same
from tests.pls.test_session import CONFIG, episodes, go_on
from tests.pls.worlds import World

LOG = "evaluations.csv"


def resume(folder, world, config=CONFIG, key=0, **changes):
    return session.resume(folder, jax.random.key(key), world.problem(config, **changes), config)


def play(folder, world, config=CONFIG, steps=None, shift=0):
    """Runs steps of a session, of other episodes where there is a shift."""
    state = resume(folder, world, config)
    while not session.finished(state, config) and (steps is None or int(state.step) < steps):
        query, state = session.ask(state, config)
        returns = episodes(world, int(state.step) + shift, query.point)
        state, _ = session.record(folder, state, query.point, returns, config)
    return state


def copy(source, target, *names):
    target.mkdir(exist_ok=True)
    for name in names or [p.name for p in source.iterdir()]:
        (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, target / name)
    return target


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    world, folder = World(), tmp_path_factory.mktemp("whole") / "session"
    return world, folder, play(folder, world)


CHANGED = {
    "threshold": ({}, {"thresholds": 0.9, "cost_mean": 1.0}, r"thresholds.*0\.9.*1"),
    "lengthscale": ({}, {"lengthscale": 0.4}, r"lengthscale.*0\.4.*0\.3"),
    "prior deviation": ({}, {"cost_sd": 2.0}, r"prior_var.*4.*1"),
    "prior mean": ({}, {"cost_mean": 1.5}, r"prior_mean.*1\.5.*1"),
    "noise": ({}, {"episode_sd": 0.3}, r"episode_var.*0\.09.*0\.01"),
    "floor": ({}, {"floor": -5.0}, r"floor.*-5.*-10"),
    "delta": ({"delta": 0.2}, {}, r"search\.delta=0\.2.*0\.1"),
    "zeta": ({"zeta": 0.5}, {}, r"search\.zeta=0\.5.*0\.2"),
    "expander": ({"expander": "none"}, {}, r"search\.expander='none'.*'gp'"),
    "explore_steps": ({"explore_steps": 4}, {}, r"search\.explore_steps=4.*3"),
    "batch": ({"batch": 3}, {}, r"search\.batch=3.*2"),
}


@pytest.mark.parametrize("kind", CHANGED)
@pytest.mark.parametrize("saved", [True, False])
def test_another_problem_or_config_is_refused(whole, tmp_path, kind, saved):
    """By what the folder was begun with, whether or not a state is saved."""
    world, folder, _ = whole
    out = copy(folder, tmp_path / "s", *(() if saved else (LOG, "session.json")))
    fields, changes, words = CHANGED[kind]
    config = dataclasses.replace(CONFIG, **fields)
    with pytest.raises(UserError, match=words) as error:
        resume(out, world, config, **changes)
    assert "\n" not in str(error.value) and "another folder" in str(error.value)


def test_another_seed_set_grid_or_key_is_refused(whole, tmp_path):
    world, folder, last = whole
    out = copy(folder, tmp_path / "s")
    with pytest.raises(UserError, match=r"key"):
        resume(out, world, key=1)
    other = World()
    other.seed = other.seed.copy()
    other.seed[3] = True
    with pytest.raises(UserError, match=r"seed.*True.*False"):
        resume(out, other)
    other = World()
    other.grid = other.grid + 0.5
    with pytest.raises(UserError, match=r"grid"):
        resume(out, other)
    with pytest.raises(UserError, match=r"grid.*\[100, 2\].*\[200, 2\]"):
        resume(out, World(100))
    with pytest.raises(UserError, match=r"search\.zeta=0\.9"):
        state = last.replace(step=last.step * 0)
        config = dataclasses.replace(CONFIG, zeta=0.9)
        session.record(out, state, [0, 1], np.zeros((2, 3, 2)), config)


def test_a_saved_state_of_another_problem_is_refused_without_the_record(whole, tmp_path):
    world, folder, _ = whole
    out = copy(folder, tmp_path / "s", LOG, "checkpoints")
    with pytest.raises(UserError, match=r"lengthscale.*0\.4.*0\.3"):
        resume(out, world, lengthscale=0.4)


def corrupt(text, line, column, value):
    lines = text.splitlines(keepends=True)
    cells = lines[line].split(",")
    cells[column] = value
    lines[line] = ",".join(cells)
    return "".join(lines)


@pytest.mark.parametrize("value", ["1000", "4", "2", "0", "-3", "x", "3.5", "nan"])
@pytest.mark.parametrize("line", [1, 8, 13])
def test_a_wrong_number_of_episodes_costs_no_good_step(whole, tmp_path, line, value):
    world, folder, _ = whole
    text = corrupt((folder / LOG).read_text(), line, 1, value)
    (tmp_path / LOG).write_text(text)
    with pytest.raises(UserError, match=f"{LOG}, line .*damaged.*from line .* on"):
        resume(tmp_path, world)
    assert (tmp_path / LOG).read_text() == text
    # Nor where the last line is cut off, too.
    (tmp_path / LOG).write_text(text[:-3])
    with pytest.raises(UserError, match="damaged"):
        resume(tmp_path, world)
    assert (tmp_path / LOG).read_text() == text[:-3]


def test_what_is_cut_off_is_kept(whole, tmp_path):
    world, folder, state = whole
    text = (folder / LOG).read_text()
    lines = text.splitlines(keepends=True)
    for kept in ("".join(lines[:-2]), text[:-1], text[:-9], "".join(lines[:-6]) + "4,"):
        (tmp_path / LOG).write_text(kept)
        resume(tmp_path, world)
        assert (tmp_path / LOG).read_text() == "".join(lines[:-6])
        torn = tmp_path / f"{LOG}.torn"
        assert "".join(lines[:-6]) + torn.read_text() == kept
        torn.unlink()
    (tmp_path / LOG).write_text(lines[0][:9])
    assert_same(go_on(tmp_path, world, 5), state)
    assert (tmp_path / LOG).read_text() == text


def test_without_its_log_a_session_is_not_resumed(whole, tmp_path):
    world, folder, _ = whole
    out = copy(folder, tmp_path / "s", "checkpoints", "session.json")
    with pytest.raises(UserError, match=r"evaluations\.csv has no step.*put the log back"):
        resume(out, world)
    (out / LOG).write_text("")
    with pytest.raises(UserError, match="put the log back"):
        resume(out, world)


def test_an_old_state_does_not_stand_for_another_log(whole, tmp_path):
    """The log is another session's of as many steps, or one value of it was mended."""
    world, folder, old = whole
    other = play(tmp_path / "other", world, shift=50)
    out = copy(folder, tmp_path / "s")
    shutil.copy(tmp_path / "other" / LOG, out / LOG)
    assert_same(resume(out, world), other)
    out = copy(folder, tmp_path / "mended")
    (out / LOG).write_text(corrupt((folder / LOG).read_text(), 27, -1, "7.5\n"))
    alone = copy(out, tmp_path / "alone", LOG)
    state = resume(out, world)
    assert_same(state, resume(alone, world))
    assert np.abs(state.upper - old.upper).max() > 0.01


def test_rows_deleted_from_somewhere_on_are_run_again(whole, tmp_path):
    """And are saved anew: what was saved of them before is gone."""
    world, folder, _ = whole
    out = copy(folder, tmp_path / "s")
    lines = (folder / LOG).read_text().splitlines(keepends=True)
    (out / LOG).write_text("".join(lines[:19]))
    last = play(out, world, shift=50)
    assert int(last.step) == 5
    told = session_log.read(out / LOG, last, CONFIG)
    fresh = resume(tmp_path / "new", world)
    assert_same(session._newest(out / "checkpoints", told, fresh), last)
    assert_same(resume(out, world), last)


def test_more_reward_steps_go_on(whole, tmp_path):
    world, folder, _ = whole
    more = dataclasses.replace(CONFIG, reward_steps=4)
    out = copy(folder, tmp_path / "s")
    with pytest.raises(UserError, match="raise reward_steps for more"):
        play(out, world)
        session.record(out, whole[2], [0, 1], np.zeros((2, 3, 2)), CONFIG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        state = play(out, world, more)
    assert_same(state, play(tmp_path / "at_once", world, more))
    assert_same(resume(out, world, more), state)


def test_a_damaged_state_costs_only_the_time_to_tell_the_log_again(whole, tmp_path):
    world, folder, state = whole
    out = copy(folder, tmp_path / "s")
    for file in (out / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"rubbish")
    with pytest.warns(UserWarning, match="told again") as told:
        assert_same(resume(out, world), state)
    assert all("\n" not in str(w.message) for w in told)


@pytest.mark.parametrize("byte", [b"\xff", b"\x00", b"\xc3\xa9"])
def test_a_byte_that_is_no_text_is_named(whole, tmp_path, byte):
    world, folder, _ = whole
    lines = (folder / LOG).read_bytes().splitlines(keepends=True)
    lines[9] = lines[9][:4] + byte + lines[9][5:]
    (tmp_path / LOG).write_bytes(b"".join(lines))
    with pytest.raises(UserError, match="line 10: step 1 is damaged"):
        resume(tmp_path, world)
    with pytest.raises(UserError, match="line 10"):
        session.evaluated(tmp_path)


GOOD = np.zeros((2, 3, 2))


@pytest.mark.parametrize(
    ("point", "returns", "words"),
    [
        ([0, 1], [[[0, 0]], [[0, 0], [1, 1]]], "returns.*give an array of numbers"),
        ([0, 1], GOOD.astype(str), "returns.*give an array of numbers"),
        ([0, 1], None, "returns.*give an array of numbers"),
        ([0, 1], np.zeros((2, 3, 2, 2)), r"returns \(2, 3, 2, 2\): give .*\[2, episodes, 2\]"),
        ([0, 1], np.zeros((2, 2)), "shape"),
        ([0, 1], np.zeros((2, 0, 2)), "missing"),
        ([0, 1], np.full((2, 3, 2), 1e300), "finite"),
        (["0", "1"], GOOD, "point.*give an array of numbers"),
        ([0, 3.7], GOOD, r"point=\[0\.0, 3\.7\].*whole numbers"),
        ([0, np.nan], GOOD, "whole numbers"),
        ([0, -1], GOOD, "outside"),
    ],
)
def test_what_is_no_step_is_refused_in_one_line(whole, tmp_path, point, returns, words):
    world, _, _ = whole
    state = resume(tmp_path, world)
    with pytest.raises(UserError, match=words) as error:
        session.record(tmp_path, state, point, returns, CONFIG)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_a_point_of_the_log_that_is_no_whole_number_is_refused(whole, tmp_path):
    world, folder, _ = whole
    text = (folder / LOG).read_text()
    point = text.splitlines()[1].split(",")[2]
    for line in (1, 2):
        (tmp_path / LOG).write_text(corrupt(text, line, 2, f"{point}.7"))
        with pytest.raises(UserError, match=f"{LOG}, line "):
            resume(tmp_path, world)


def test_a_log_saved_by_a_spreadsheet_is_read(whole, tmp_path):
    world, folder, state = whole
    text = (folder / LOG).read_text()
    (tmp_path / LOG).write_bytes(text.replace("\n", "\r\n").encode())
    assert_same(resume(tmp_path, world), state)
    np.testing.assert_array_equal(session.evaluated(tmp_path), session.evaluated(folder))


def test_a_step_is_not_logged_twice_nor_without_those_before(whole, tmp_path):
    world, folder, _ = whole
    out = copy(folder, tmp_path / "s")
    first = resume(tmp_path / "new", world)
    with pytest.raises(UserError, match="ends with step 4 and the state is at step 0: resume"):
        session.record(out, first, [0, 1], GOOD, CONFIG)
    assert (out / LOG).read_bytes() == (folder / LOG).read_bytes()
    with pytest.raises(UserError, match="ends with step -1 and the state is at step 2"):
        session.record(tmp_path / "lost", first.replace(step=first.step + 2), [0, 1], GOOD, CONFIG)
