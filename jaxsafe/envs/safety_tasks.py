# SPDX-License-Identifier: Apache-2.0
"""Tasks with a cost: point worlds in pure JAX, and robots in MJX that must not go too fast.

The velocity tasks are Safety-Gymnasium's v1: Gymnasium's v4 robots with a cost of 1 where the speed
of a step, displacement over time, is above a limit. Swimmer, HalfCheetah, Hopper and Walker2d count
their speed along x, as it is signed; Ant counts its torso's planar speed.
"""

import dataclasses
from collections.abc import Callable

from jaxsafe.core.checks import check_choice, check_range
from jaxsafe.envs import mujoco_tasks, point_worlds
from jaxsafe.envs.mujoco_spec import MujocoSpec
from jaxsafe.envs.types import Task

# Robot: its speed limit in m/s, and the seconds in a control step.
LIMITS = {
    "HalfCheetah": (3.2096, 0.05),
    "Hopper": (0.7402, 0.008),
    "Walker2d": (2.3415, 0.008),
    "Ant": (2.6222, 0.05),
    "Swimmer": (0.2282, 0.04),
}


def _along_x(limit: float, seconds: float) -> Callable:
    def cost(xp, before, qpos, qvel, action, terminated, derived_before=(), derived=()):
        speed = (qpos[..., 0] - before[..., 0]) / seconds
        return xp.where(speed > limit, 1.0, 0.0)

    return cost


def _planar(limit: float, seconds: float) -> Callable:
    def cost(xp, before, qpos, qvel, action, terminated, derived_before, derived):
        step = derived["xpos"][..., 1, :2] - derived_before["xpos"][..., 1, :2]
        speed = xp.sqrt(xp.square(step / seconds).sum(-1))
        return xp.where(speed > limit, 1.0, 0.0)

    return cost


def _velocity_spec(robot: str) -> MujocoSpec:
    cost = (_planar if robot == "Ant" else _along_x)(*LIMITS[robot])
    name = f"Safety{robot}Velocity-v1"
    return dataclasses.replace(mujoco_tasks.SPECS[f"{robot}-v4"], name=name, cost=cost)


VELOCITY_SPECS = {spec.name: spec for spec in map(_velocity_spec, LIMITS)}
TASKS = (*point_worlds.WORLDS, *VELOCITY_SPECS)


def make(name: str, max_episode_steps: int | None = None) -> Task:
    """Builds a task with a cost by name.

    Args:
      name: one of `TASKS`, e.g. `"Circle-v0"` or `"SafetyHalfCheetahVelocity-v1"`.
      max_episode_steps: T; by default 100 in the point worlds and 1000 in the velocity tasks.

    Raises:
      UserError: if the name is unknown, T is below 1, or Gymnasium, whose robots these are, is not
        installed.
    """
    check_choice("task", name, TASKS)
    if name in point_worlds.WORLDS:
        return point_worlds.make(name, 100 if max_episode_steps is None else max_episode_steps)
    spec = VELOCITY_SPECS[name]
    if max_episode_steps is not None:
        check_range("max_episode_steps", max_episode_steps, low=1)
        spec = dataclasses.replace(spec, max_episode_steps=max_episode_steps)
    return mujoco_tasks.from_spec(spec)
