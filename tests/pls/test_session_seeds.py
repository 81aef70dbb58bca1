# SPDX-License-Identifier: Apache-2.0
"""A session's seed set, checked by episodes of its own."""

import jax
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.pls import session
from tests.pls.test_session import CONFIG, episodes
from tests.pls.worlds import World


def test_seeds_are_checked_before_a_session(tmp_path):
    """Of two seeds one is safe; mean and bound by hand, Maurer and Pontil's with no spread."""
    world = World()
    world.seed = np.zeros(200, bool)
    world.seed[[3, 50]] = True
    problem = world.problem(CONFIG)
    costs = np.stack([np.full((400, 1), 0.5), np.full((400, 1), 0.95)])
    bound = 7 * 2.0 * np.log(2 * 2 / 0.01) / (3 * 399)
    assert 0.5 + bound < 1 < 0.95 + bound
    with pytest.raises(UserError, match="costs=None, and there is no"):
        session.check_seed(tmp_path, problem, None, 0.0, 2.0)
    checked = session.check_seed(tmp_path, problem, costs, 0.0, 2.0)
    assert np.flatnonzero(checked.seed).tolist() == [3]
    again = session.check_seed(tmp_path, problem, None, 0.0, 2.0)
    np.testing.assert_array_equal(again.seed, checked.seed)
    session.check_seed(tmp_path, problem, costs, 0.0, 2.0)
    with pytest.raises(UserError, match="not those"):
        session.check_seed(tmp_path, problem, costs + 0.1, 0.0, 2.0)
    with pytest.raises(UserError, match="no seed is shown"):
        session.check_seed(tmp_path / "b", problem, costs + 0.6, 0.0, 2.0)
    with pytest.raises(UserError, match=r"\[2, episodes, 1\]"):
        session.check_seed(tmp_path / "c", problem, costs[:1], 0.0, 2.0)
    with pytest.raises(UserError, match="outside of"):
        session.check_seed(tmp_path / "c", problem, costs, 0.0, 0.9)
    assert not (tmp_path / "c").exists()
    for text in ("point,cost0\n3,0.5\n50,x\n", "point,cost0\n", "", "point,cost0\n3,0\n3,0\n"):
        (tmp_path / "seeds.csv").write_text(text)
        with pytest.raises(UserError, match=r"seeds\.csv is damaged"):
            session.check_seed(tmp_path, problem, None, 0.0, 2.0)
    # A session is not resumed with seeds that were not checked.
    out = tmp_path / "d"
    checked = session.check_seed(out, problem, costs, 0.0, 2.0)
    state = session.resume(out, jax.random.key(0), checked, CONFIG)
    query, state = session.ask(state, CONFIG)
    session.record(out, state, query.point, episodes(world, 0, query.point), CONFIG)
    with pytest.raises(UserError, match=r"problem\.seed=True"):
        session.resume(out, jax.random.key(0), problem, CONFIG)
