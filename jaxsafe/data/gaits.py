# SPDX-License-Identifier: Apache-2.0
"""Saved walkers of three robots: a slow and a fast linear policy each, and all paces between.

`gait_search` found them in MuJoCo C and wrote the files under `assets`, each with its origin. In
MJX, over the first 200 steps of 48 episodes of `behaviours.scripted`, those at full strength had,
from the slowest to the fastest:

| robot | speed in m/s | limit | steps above it |
|---|---|---|---|
| HalfCheetah | 1.6 to 3.7 | 3.21 | none to 76 % |
| Hopper | 0.4 to 1.7 | 0.74 | 1 to 92 % |
| Walker2d | 0.7 to 1.4 | 2.34 | none to 28 % |

Walker2d is still gaining speed then. In MuJoCo C, over 1000 steps, it walks on at paces up to 0.75,
at 1.1 m/s and never above the limit to 2.5 m/s and above it in 75 %; at pace 1 it falls after some
500. Hopper hops on up to pace 0.5, and falls after some 330 steps at pace 1. Some fast HalfCheetahs
end on their backs. Of the slow gaits, Hopper's alone costs anything: 5 % of its steps.
"""

import importlib.resources
import json
import math
from typing import Any, NamedTuple

import numpy as np

from jaxsafe.core.checks import check_choice

ROBOTS = ("HalfCheetah", "Hopper", "Walker2d")


class Gait(NamedTuple):
    """Two linear policies of one robot, `[slow, fast]`.

    Attributes:
      weights: `[2, A, O + 3]`: of the observations, of the clock's sine and cosine, and of 1.
      frequency: of the clock in Hz, `[2]`.
    """

    weights: np.ndarray
    frequency: np.ndarray


def path(robot: str) -> Any:
    """The file of a robot's gait in the installed package."""
    return importlib.resources.files("jaxsafe.data").joinpath("assets", f"{robot}.json")


def load(robot: str) -> Gait:
    """Reads the saved gait of one of `ROBOTS`; float32.

    Raises:
      UserError: if there is none of that name.
    """
    check_choice("robot", robot, ROBOTS)
    stored = json.loads(path(robot).read_text(encoding="utf-8"))
    return Gait(*(np.asarray(stored[name], np.float32) for name in Gait._fields))


def features(xp, obs, turns):
    """What the weights are of.

    Args:
      xp: `numpy` or `jax.numpy`.
      obs: `[..., O]`.
      turns: of the clock since the start, `[...]`.

    Returns:
      `[..., O + 3]`.
    """
    angle = 2 * math.pi * turns
    clock = xp.stack([xp.sin(angle), xp.cos(angle), xp.ones_like(angle)], axis=-1)
    return xp.concatenate([obs, clock], axis=-1)


def action(xp, gait: Gait, pace, obs, seconds):
    """Acts at a pace from 0, the slow policy, to 1, the fast one; weights between are blended.

    Args:
      xp: `numpy` or `jax.numpy`.
      gait: from `load`.
      pace: `[]`.
      obs: `[O]`.
      seconds: since the start of the episode, `[]`.

    Returns:
      `[A]`, not clipped.
    """
    slow, fast = gait.weights
    low, high = gait.frequency
    turns = (low + pace * (high - low)) * seconds
    return (slow + pace * (fast - slow)) @ features(xp, obs, turns)
