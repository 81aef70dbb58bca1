# SPDX-License-Identifier: Apache-2.0
"""Episodes in environments outside of JAX, and what is said of those that are unsound."""

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.pls import outside
from jaxsafe.pls import stages as stages_lib
from tests.pls import dsrl_worlds
from tests.pls.dsrl_worlds import experiment, untrained

WORLDS = "tests.pls.dsrl_worlds:"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    dsrl_worlds.write(folder)
    dsrl_worlds.write(folder, "DroneRun")
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wider", r"observations of AntRun have shape \(4,\) and the file's \(3,\)"),
        ("other_actions", r"actions of AntRun have shape \(3,\) and the file's \(2,\)"),
        ("costless", r"the info of AntRun holds \['goal', 'speed'\] and no 'cost'"),
        ("six_values", r"step of AntRun gives 6 values: return \(obs, reward, term"),
        ("infinite", r"reward and cost of AntRun are \(inf, .*\): give two finite numbers"),
        ("wordy", r"reward and cost of AntRun are \(.*, 'none'\): give two finite numbers"),
        ("dictionary", r"an observation of AntRun is a dict: give an array \[3\]"),
        ("not_finite", r"an observation of AntRun is not finite"),
        ("bare_reset", r"reset of AntRun gives no \(obs, info\)"),
        ("broken", r"fails to make AntRun \(RuntimeError: no AntRun in stock\)"),
        ("nothing", r"makes none of AntRun, DroneRun: install"),
        ("absent", r"module tests\.pls\.dsrl_worlds has no function absent: add it"),
    ],
)
def test_an_unsound_environment_is_told_before_training(files, name, message):
    with pytest.raises(UserError, match=message):
        stages_lib.stages(experiment(files, environment=WORLDS + name))


def test_a_module_that_cannot_be_imported(files):
    with pytest.raises(UserError, match=r"'no_such_module:make' cannot be imported"):
        stages_lib.stages(experiment(files, environment="no_such_module:make"))


def test_without_gymnasiums_environments_nothing_can_be_run(files):
    with pytest.raises(UserError, match=r"dsrl\.environment=none makes none of .*bullet_safety"):
        stages_lib.stages(experiment(files, environment=None))


@pytest.mark.parametrize("model", ["rvs", "cdt"])
def test_episodes_stepped_together_are_those_run_alone(files, model):
    """One environment or three, the last round not full: a seed decides its episode."""
    policy, config = untrained(files, model)
    seeds, z = [5, 6, 7, 8], np.array([500.0, 30.0])
    found = {}
    for count in (1, 3):
        opened = outside.open_all(dsrl_worlds.make, "AntRun", count, 3, 2, 200)
        found[count] = outside.returns(policy, config, opened, z, seeds)
    np.testing.assert_allclose(found[1], found[3], rtol=1e-5)
    assert len(np.unique(found[1][:, 0])) == 4
    # Cut at T, before the environment's own end and its surprise.
    opened = outside.open_all(dsrl_worlds.make, "AntRun", 2, 3, 2, 4)
    short = outside.returns(policy, config, opened, z, seeds)
    assert (short < found[1]).all()
