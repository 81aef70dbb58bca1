# SPDX-License-Identifier: Apache-2.0
"""A two-joint arm that is to reach a ball: smooth, without contact, in MJX and MuJoCo C.

Positions are the two joint angles (rad) and the ball's place (m); velocities are theirs. An
observation is `cos q1, sin q1, cos q2, sin q2, w1, w2, x, y` `[8]`: angles by their cosines and
sines, as both joints turn without end, angular velocities in rad/s and the ball's place. The reward
of a control step of 0.04 s is minus the distance between tip and ball in metres.
"""

import dataclasses
import functools
import math

import numpy as np

from jaxsafe.envs import mujoco_tasks
from jaxsafe.envs.mujoco_spec import MujocoSpec
from jaxsafe.envs.types import Task

LINKS = (0.5, 0.4)  # metres, as the MJCF has them


def observe(xp, qpos, qvel, derived=()):
    """The observation `[..., 8]` of positions `[..., 4]` and velocities `[..., 4]`."""
    q, ball = qpos[..., :2], qpos[..., 2:]
    turned = xp.stack([xp.cos(q), xp.sin(q)], axis=-1)
    turned = turned.reshape((*q.shape[:-1], 4))
    return xp.concatenate([turned, qvel[..., :2], ball], axis=-1)


def place(xp, obs):
    """Positions and velocities `[..., 4]` each of an observation: `observe` the other way."""
    q = xp.arctan2(obs[..., 1:4:2], obs[..., 0:4:2])
    still = xp.zeros_like(obs[..., :2])
    return (
        xp.concatenate([q, obs[..., 6:8]], axis=-1),
        xp.concatenate([obs[..., 4:6], still], axis=-1),
    )


def tip(xp, qpos):
    """Where the tip is, `[..., 2]` metres."""
    first, second = qpos[..., 0], qpos[..., 0] + qpos[..., 1]
    along, across = (LINKS[0] * turn(first) + LINKS[1] * turn(second) for turn in (xp.cos, xp.sin))
    return xp.stack([along, across], axis=-1)


def reach(xp, obs):
    """A policy written by hand: angles at which the tip is at the ball, approached by PD control.

    Args:
      xp: `numpy` or `jax.numpy`.
      obs: `[..., 8]`.

    Returns:
      Actions in [-1, 1], `[..., 2]`.
    """
    angles, ball = place(xp, obs)[0][..., :2], obs[..., 6:8]
    l1, l2 = LINKS
    bend = ((ball**2).sum(-1) - l1**2 - l2**2) / (2 * l1 * l2)
    elbow = xp.arccos(xp.clip(bend, -1.0, 1.0))
    lead = xp.arctan2(l2 * xp.sin(elbow), l1 + l2 * xp.cos(elbow))
    shoulder = xp.arctan2(ball[..., 1], ball[..., 0]) - lead
    error = xp.stack([shoulder, elbow], axis=-1) - angles
    error = xp.arctan2(xp.sin(error), xp.cos(error))
    return xp.clip(4.0 * error - 0.6 * obs[..., 4:6], -1.0, 1.0)


def _never(xp, qpos, qvel):
    return xp.zeros(qpos.shape[:-1], bool)


def _distance(xp, before, qpos, qvel, action, terminated, derived_before=(), derived=()):
    gap = tip(xp, qpos) - qpos[..., 2:]
    return -xp.sqrt((gap**2).sum(-1))


SPEC = MujocoSpec(
    name="ReacherArm-v0",
    asset="reacher_arm.xml",
    frame_skip=4,
    max_episode_steps=50,
    reset_noise=0.0,
    explore_qpos=(math.pi, math.pi, 0.55, 0.55),
    explore_qvel=(0.0, 0.0, 0.0, 0.0),
    obs_scale=(1.0, 1.0, 1.0, 1.0, 0.4, 0.3, 1.5, 1.5),
    ls_iterations=4,
    parameters=(("upper_mass", "body_mass", "upper"), ("fore_mass", "body_mass", "fore")),
    observe=observe,
    terminated=_never,
    reward=_distance,
)


@functools.cache
def make() -> Task:
    """Builds the task `ReacherArm-v0`; one object, however often it is asked for.

    Its episodes start at rest, at any angles, with the ball anywhere in a square of 1.1 m. In
    `envs.host.score`, which draws starts by `reset_noise`, they start at the arm's zero instead.
    """
    task = mujoco_tasks.from_spec(SPEC)
    return dataclasses.replace(task, reset=task.explore)


def start(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws a start `(qpos [4], qvel [4])` from the distribution of the task's own, for C."""
    return rng.uniform(-1, 1, 4) * np.asarray(SPEC.explore_qpos), np.zeros(4)
