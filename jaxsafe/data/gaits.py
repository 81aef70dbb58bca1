# SPDX-License-Identifier: Apache-2.0
"""Saved walkers of four robots: a slow and a fast linear policy each, and all paces between.

`gait_search` found them in MuJoCo C and wrote the files under `assets`, each with its origin. In
MJX, from standing still, at full strength and almost without noise, mean speeds and the shares of
steps above the task's limit were, at paces 0, 0.5 and 1:

| robot | steps | limit in m/s | speeds in m/s | shares in % |
|---|---|---|---|---|
| HalfCheetah | 200 | 3.21 | 1.8, 2.5, 3.9 | 0, 12, 78 |
| Hopper | 200 | 0.74 | 0.4, 0.7, 1.4 | 3, 55, 84 |
| Walker2d | 500 | 2.34 | 1.0, 1.4, 2.8 | 0, 0, 66 |
| Ant | 200 | 2.62, planar | 1.1, 1.8, 2.3 | 0, 10, 43 |

Two of eleven HalfCheetahs ended on their backs at pace 1. In MuJoCo C, over 1000 steps, Walker2d
walks on at paces up to 0.75, where it has 2.5 m/s, and falls after some 500 at pace 1. Hopper hops
on at paces up to 0.5, and falls after some 330 steps at pace 1. Ant bounds, both sides at once; its
actions saturate at full strength, where they cost a reward of 1.7 to 2.1 a step.
"""

import importlib.resources
import json
import math
from typing import Any, NamedTuple

import numpy as np

from jaxsafe.core.checks import check_choice

ROBOTS = ("HalfCheetah", "Hopper", "Walker2d", "Ant")


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
