# SPDX-License-Identifier: Apache-2.0
"""Which uncertain parameters move a rollout at all, and over which part of their range."""

import itertools
import warnings
from typing import NamedTuple

import numpy as np

from jaxsafe.core.checks import UserError, check_range
from jaxsafe.envs import host
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet


class DeadRangeWarning(UserWarning):
    """A parameter changes nothing over a part of its range, or over all of it."""


class Sensitivity(NamedTuple):
    """What D parameters do to rollouts, between P values each.

    Attributes:
      names: the D parameters.
      values: `[D, P]` evenly spaced over each range, both ends in it.
      effect: `[D, P - 1]` root mean square change of the observation times `task.obs_scale` from
        one value to the next; exactly 0 where nothing changes.
    """

    names: tuple[str, ...]
    values: np.ndarray
    effect: np.ndarray

    @property
    def dead(self) -> tuple[str, ...]:
        """The parameters that do nothing over all of their range."""
        return tuple(n for n, row in zip(self.names, self.effect, strict=True) if not row.any())


def sensitivity(
    task: Task,
    uncertainty: UncertaintySet,
    points: int = 5,
    steps: int = 50,
    episodes: int = 4,
    seed: int = 0,
) -> Sensitivity:
    """Measures how much each parameter moves a rollout in MuJoCo C, and warns of dead ranges.

    One parameter at a time takes its values, the others stay at their nominal ones. All values see
    the same starts and the same uniformly random actions, and count up to the end of the shorter
    episode: what a parameter would do after the end no policy can notice.

    Args:
      task: the world.
      uncertainty: the set whose parameters are tried.
      points: P, values per parameter.
      steps: control steps of an episode, at most.
      episodes: starts, each with actions of its own.
      seed: of the starts and actions.

    Raises:
      UserError: if a count is too low, or a range has no width.
    """
    for name, value, low in (("points", points, 2), ("steps", steps, 1), ("episodes", episodes, 1)):
        check_range(name, value, low=low)
    widths = np.subtract(uncertainty.high, uncertainty.low)
    if widths.min() <= 0:
        i = int(widths.argmin())
        raise UserError(
            f"{uncertainty.names[i]}={uncertainty.low[i]:g} is no range: leave constant parameters "
            "out of the set."
        )
    values = np.linspace(uncertainty.low, uncertainty.high, points, axis=1)
    starts = host.initial_states(task, episodes, seed)
    shape = (episodes, min(steps, task.max_episode_steps), task.action_size)
    actions = np.random.default_rng([seed, 1]).uniform(task.action_low, task.action_high, shape)
    nominal = uncertainty.nominal(task.host.model)
    effect = np.zeros((uncertainty.size, points - 1))
    for i, sweep in enumerate(values):
        omegas = np.tile(nominal, (points, 1))
        omegas[:, i] = sweep
        runs = [_runs(task, uncertainty, omega, starts, actions) for omega in omegas]
        effect[i] = [_change(a, b, task.obs_scale) for a, b in itertools.pairwise(runs)]
    result = Sensitivity(uncertainty.names, values, effect)
    _warn(task, result)
    return result


def _runs(task, uncertainty, omega, starts, actions) -> list[host.HostTrajectory]:
    model = uncertainty.apply_host(task.host.model, omega)
    rows = zip(*starts, actions, strict=True)
    return [host.trajectory(task, model, qpos, qvel, plan) for qpos, qvel, plan in rows]


def _change(before, after, scale: np.ndarray) -> float:
    """Root mean square difference of the scaled observations while both episodes run."""
    squares = []
    for a, b in zip(before, after, strict=True):
        over = a.terminated | b.terminated
        length = int(over.argmax()) + 1 if over.any() else len(over)
        squares.append(np.square((a.obs - b.obs)[:length] * scale).mean(-1))
    return float(np.sqrt(np.concatenate(squares).mean()))


def _warn(task: Task, result: Sensitivity) -> None:
    for name, values, effect in zip(*result, strict=True):
        dead = np.flatnonzero(effect == 0)
        if len(dead):
            part = "all" if len(dead) == len(effect) else f"{len(dead)} of {len(effect)} parts"
            spans = ", ".join(f"[{values[j]:g}, {values[j + 1]:g}]" for j in dead)
            warnings.warn(
                f"{task.name}: {name} changes no rollout over {part} of its range: {spans}.",
                DeadRangeWarning,
                stacklevel=3,
            )
