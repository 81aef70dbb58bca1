# SPDX-License-Identifier: Apache-2.0
"""A session with a system outside: logged, saved, killed anywhere and resumed bit for bit."""

import shutil

import jax
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.core.checks import UserError
from jaxsafe.pls import session
from tests.core.test_checkpoint import assert_same
from tests.pls.worlds import World

CONFIG = pls.SearchConfig(explore_steps=3, reward_steps=2, batch=2, episodes=3, noise="episodes")


def episodes(world, step, point):
    """`[Q, W, 2]` of a system that is the same whenever it is asked."""
    rng = np.random.default_rng([step, *np.asarray(point).tolist()])
    return world.truth[:, point].T[:, None] + rng.normal(size=(2, 3, 2)) * world.noise_sd


def go_on(folder, world, steps):
    """Opens the session anew for every step."""
    for _ in range(steps):
        state = session.resume(folder, jax.random.key(0), world.problem(CONFIG), CONFIG)
        query, state = session.ask(state, CONFIG)
        returns = episodes(world, int(state.step), query.point)
        state, _ = session.record(folder, state, query.point, returns, CONFIG)
    return state


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    world, folder = World(), tmp_path_factory.mktemp("unbroken") / "session"
    state = session.resume(folder, jax.random.key(0), world.problem(CONFIG), CONFIG)
    while not session.finished(state, CONFIG):
        query, state = session.ask(state, CONFIG)
        returns = episodes(world, int(state.step), query.point)
        state, metrics = session.record(folder, state, query.point, returns, CONFIG)
    assert metrics["search/safe"] > 1
    return world, folder, state


def test_a_session_opened_anew_for_every_step_is_an_unbroken_one(unbroken, tmp_path):
    world, folder, state = unbroken
    assert_same(go_on(tmp_path, world, 5), state)
    assert (tmp_path / "evaluations.csv").read_text() == (folder / "evaluations.csv").read_text()


def test_the_log_alone_is_enough(unbroken, tmp_path):
    world, folder, state = unbroken
    shutil.copy(folder / "evaluations.csv", tmp_path)
    assert_same(session.resume(tmp_path, jax.random.key(0), world.problem(CONFIG), CONFIG), state)


def test_a_step_cut_off_while_written_is_run_again(unbroken, tmp_path):
    """The log's last bytes are lost, at any place in the last two rows' text."""
    world, folder, state = unbroken
    text = (folder / "evaluations.csv").read_text()
    lines = text.splitlines(keepends=True)
    before = "".join(lines[:-6])
    for cut in (1, 7, len(lines[-1]), len(lines[-1]) + 3, len(text) - len(before) - 1):
        target = tmp_path / str(cut)
        target.mkdir()
        (target / "evaluations.csv").write_text(text[:-cut])
        assert_same(go_on(target, world, 1), state)
        assert (target / "evaluations.csv").read_text() == text


def test_a_log_says_what_was_run(unbroken):
    world, folder, state = unbroken
    rows = np.genfromtxt(folder / "evaluations.csv", delimiter=",", names=True)
    assert rows.dtype.names == ("step", "episodes", "point", "z0", "z1", "reward", "cost0")
    assert len(rows) == 5 * 2 * 3 and (rows["episodes"] == 3).all()
    points = rows["point"].astype(int)
    np.testing.assert_allclose(rows["z0"], world.grid[points, 0], rtol=1e-6)
    assert state.last[0] == points[-1]


def damaged(text):
    lines = text.splitlines(keepends=True)
    yield "".join(lines[1:]), "start with"
    yield "".join([lines[0], *lines[4:]]), "line 2"
    yield text.replace(lines[8], lines[8].replace(",", ";"), 1), "line"
    yield text.replace(lines[1], "0,3,10000" + lines[1][lines[1].index(",", 4) :], 1), "grid"
    yield text.replace(lines[1], lines[1].rsplit(",", 1)[0] + ",nan\n", 1), "finite"
    first = lines[1].split(",")
    first[3] = "0.123"
    yield text.replace(lines[1], ",".join(first), 1), "targets"


@pytest.mark.parametrize("case", range(6))
def test_a_damaged_log_is_refused(unbroken, tmp_path, case):
    world, folder, _ = unbroken
    text, words = list(damaged((folder / "evaluations.csv").read_text()))[case]
    (tmp_path / "evaluations.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        session.resume(tmp_path, jax.random.key(0), world.problem(CONFIG), CONFIG)


def test_what_does_not_fit_is_not_recorded(unbroken, tmp_path):
    world, folder, last = unbroken
    state = session.resume(tmp_path, jax.random.key(0), world.problem(CONFIG), CONFIG)
    for point, returns, words in [
        ([0], np.zeros((2, 3, 2)), "shape"),
        ([0, 1], np.zeros((2, 3, 3)), "shape"),
        ([0, 1], np.full((2, 3, 2), np.inf), "finite"),
        ([0, 200], np.zeros((2, 3, 2)), "outside"),
    ]:
        with pytest.raises(UserError, match=words):
            session.record(tmp_path, state, point, returns, CONFIG)
    assert not (tmp_path / "evaluations.csv").exists()
    with pytest.raises(UserError, match="done"):
        session.record(folder, last, [0, 1], np.zeros((2, 3, 2)), CONFIG)
