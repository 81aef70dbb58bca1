# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import dsrl


def test_constants_as_published():
    """Of DSRL's `infos.py`, to the digits that papers print."""
    rows = {name: [round(x, 3) for x in task] for name, task in dsrl.TASKS.items()}
    assert rows["AntRun"] == [0.002, 955.482, 150, 200, 1816]
    assert rows["AntCircle"] == [0.018, 460.709, 200, 500, 5728]
    assert rows["CarCircle"] == [3.484, 534.306, 100, 300, 1450]
    assert rows["DroneRun"] == [10.557, 682.833, 140, 200, 1990]
    assert rows["DroneCircle"] == [207.794, 996.389, 100, 300, 1923]
    assert rows["AntVelocity"] == [6.152, 2976.277, 250, 1000, 2249]
    assert rows["HalfCheetahVelocity"] == [5.751, 2806.933, 250, 1000, 2495]
    assert rows["HopperVelocity"] == [37.052, 1911.397, 250, 1000, 2240]
    assert rows["Walker2dVelocity"] == [18.668, 3418.224, 300, 1000, 2729]
    assert len(dsrl.TASKS) == 13 and set(dsrl.PLS_TASKS) < set(dsrl.TASKS)
    assert len(dsrl.PLS_TASKS) == 9


def test_scores():
    task = dsrl.reference("BallRun")
    returns = np.array([task.reward_min, task.reward_max, 0.0])
    scores = dsrl.normalised_return(returns, task)
    np.testing.assert_allclose(scores, [0, 1, -0.02024413], rtol=1e-5)
    np.testing.assert_array_equal(dsrl.normalised_cost([0, 10, 30], 20), [0, 0.5, 1.5])
    np.testing.assert_array_equal(dsrl.normalised_cost([0, 1, 3], 0), [1, 2, 4])
    with pytest.raises(UserError, match="threshold=-1 is out of range"):
        dsrl.normalised_cost(1, -1)
    with pytest.raises(UserError, match="Did you mean 'AntVelocity'"):
        dsrl.reference("AntVelocty")


def test_file_names_are_dsrls():
    assert dsrl.file_name("AntVelocity") == "SafetyAntVelocityGymnasium-v1-250-2249.hdf5"
    for task, known in dsrl.TASKS.items():
        tail = "Gymnasium-v1" if task.endswith("Velocity") else "-v0"
        assert dsrl.file_name(task) == f"Safety{task}{tail}-{known.cost_max}-{known.episodes}.hdf5"
    with pytest.raises(UserError, match="AntRum"):
        dsrl.file_name("AntRum")
