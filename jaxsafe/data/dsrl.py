# SPDX-License-Identifier: Apache-2.0
"""DSRL's tasks: their constants, file names and normalised scores.

The constants are those of liuzuxin/DSRL, `dsrl/infos.py`; its filters are in `data.filters`.
"""

from typing import NamedTuple

import numpy as np

from jaxsafe.core.checks import check_choice, check_range


class Reference(NamedTuple):
    """What DSRL knows of a task.

    Attributes:
      reward_min: least return in its data, the score 0.
      reward_max: greatest return, the score 1.
      cost_max: greatest cost return.
      episode_length: T.
      episodes: E in its file.
    """

    reward_min: float
    reward_max: float
    cost_max: float
    episode_length: int
    episodes: int


TASKS = {
    "AntCircle": Reference(0.0177031010389328, 460.7091979980469, 200, 500, 5728),
    "AntRun": Reference(0.001767391717990563, 955.4818725585938, 150, 200, 1816),
    "BallCircle": Reference(0.38312244415283203, 881.46337890625, 80, 200, 886),
    "BallRun": Reference(26.339754104614258, 1327.445556640625, 80, 100, 940),
    "CarCircle": Reference(3.484419822692871, 534.3060913085938, 100, 300, 1450),
    "CarRun": Reference(204.28726196289062, 574.6533203125, 40, 200, 651),
    "DroneCircle": Reference(207.794189453125, 996.38916015625, 100, 300, 1923),
    "DroneRun": Reference(10.557029724121094, 682.8330078125, 140, 200, 1990),
    "AntVelocity": Reference(6.1519012451171875, 2976.276611328125, 250, 1000, 2249),
    "HalfCheetahVelocity": Reference(5.7509765625, 2806.93310546875, 250, 1000, 2495),
    "HopperVelocity": Reference(37.05154800415039, 1911.396728515625, 250, 1000, 2240),
    "SwimmerVelocity": Reference(0.07114458084106445, 238.95831298828125, 200, 1000, 1686),
    "Walker2dVelocity": Reference(18.668498992919922, 3418.223876953125, 300, 1000, 2729),
}
# The nine of the PLS paper (arXiv 2505.21852).
PLS_TASKS = (
    *("AntRun", "AntCircle", "CarCircle", "DroneRun", "DroneCircle"),
    *("AntVelocity", "Walker2dVelocity", "HalfCheetahVelocity", "HopperVelocity"),
)


def environment_id(task: str) -> str:
    """Returns the Gymnasium id of one of `TASKS`, e.g. `"SafetyAntVelocityGymnasium-v1"`.

    Raises:
      UserError: the name is unknown.
    """
    reference(task)
    return f"Safety{task}" + ("Gymnasium-v1" if task.endswith("Velocity") else "-v0")


def file_name(task: str) -> str:
    """Returns the name that DSRL gives the file of one of `TASKS`.

    Raises:
      UserError: the name is unknown.
    """
    known = reference(task)
    return f"{environment_id(task)}-{known.cost_max:g}-{known.episodes}.hdf5"


def reference(task: str) -> Reference:
    """Returns the constants of a task by DSRL's name.

    Raises:
      UserError: the name is unknown.
    """
    check_choice("DSRL task", task, TASKS)
    return TASKS[task]


def normalised_return(returns: np.ndarray, task: Reference) -> np.ndarray:
    """(R - Rmin) / (Rmax - Rmin) of returns of any shape."""
    return (np.asarray(returns) - task.reward_min) / (task.reward_max - task.reward_min)


def normalised_cost(costs: np.ndarray, threshold: float) -> np.ndarray:
    """(C + e) / (b + e) of cost returns, e = 1 where the threshold b is 0; up to 1 is safe.

    Raises:
      UserError: the threshold is negative.
    """
    check_range("threshold", threshold, low=0)
    epsilon = 1.0 if threshold == 0 else 0.0
    return (np.asarray(costs) + epsilon) / (threshold + epsilon)
