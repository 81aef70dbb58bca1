# SPDX-License-Identifier: Apache-2.0
"""Seeds of DSRL's tasks, checked before a search trusts them."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.core.run import Folder
from jaxsafe.pls import dsrl_report, dsrl_search
from tests.pls import dsrl_worlds
from tests.pls.dsrl_worlds import SEARCH, experiment, untrained


@pytest.fixture
def files(tmp_path):
    dsrl_worlds.write(tmp_path, episodes=5)
    return tmp_path


def runner(files, folder, monkeypatch, cost, episodes=300, **changes):
    """Of a policy whose episodes all cost the same, and the batches of episodes it runs."""
    policy, _ = untrained(files, "rvs")
    study = experiment(files, **changes)
    study = dataclasses.replace(
        study,
        search=dataclasses.replace(SEARCH, alpha_value=3.0),
        targets=dataclasses.replace(study.targets, seed_episodes=episodes),
    )
    runner = dsrl_search.Runner(folder, study, "AntRun", jax.tree.map(lambda x: x[None], policy))
    batches = []

    def returns(policy, config, outside, z, seeds):
        batches.append((tuple(z), tuple(seeds)))
        return np.tile([z[0], cost], (len(seeds), 1))

    monkeypatch.setattr(dsrl_search.outside, "returns", returns)
    return runner, batches


def test_seeds_not_shown_to_be_safe_are_not_searched_from(files, tmp_path, monkeypatch, capsys):
    own, batches = runner(files, tmp_path, monkeypatch, 15.0, thresholds=(20.0, 40.0))
    assert own.run("pls", 20.0, 0, 7) is None
    assert [len(seeds) for _, seeds in batches] == [300] * 3
    assert [z[1] for z, _ in batches] == [0] * 3
    assert len({seed for _, seeds in batches for seed in seeds}) == 900
    # At another threshold they are safe, by the same episodes.
    done = own.run("pls", 40.0, 0, 7)
    assert done is not None and [len(seeds) for _, seeds in batches[3:]] == [4] * 9
    # What is told of it.
    monkeypatch.setattr(dsrl_search, "run_all", lambda *_: {("AntRun", 20.0, "pls"): [None, done]})
    study = experiment(files, tasks=("AntRun",), methods=("pls",))
    (row,) = dsrl_report.finish(Folder(tmp_path), [4, 5], study, {"AntRun": None}, lambda x: None)
    assert row["status"] == "not run here: no seed was shown to be safe for 1 of 2 policies"
    assert "raise targets.seed_episodes" in capsys.readouterr().out


def test_other_numbers_of_episodes_are_run_anew(files, tmp_path, monkeypatch):
    for episodes in (300, 500, 500):
        own, batches = runner(files, tmp_path, monkeypatch, 15.0, episodes)
        assert own.run("pls", 20.0, 0, 7) is None
    assert batches == [] and len(list(tmp_path.glob("AntRun_seeds_*/seeds.csv"))) == 2


def test_costs_above_one_a_step_are_told(files, tmp_path, monkeypatch):
    own, _ = runner(files, tmp_path, monkeypatch, 201.0, 2)
    with pytest.raises(UserError, match=r"AntRun cost 201 in 200 steps: give"):
        own.run("pls", 20.0, 0, 7)
