# SPDX-License-Identifier: Apache-2.0
"""Batches of control steps in MuJoCo C, on threads."""

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import mujoco.rollout
import numpy as np

from jaxsafe.core import parallel
from jaxsafe.core.checks import check_range
from jaxsafe.envs.mujoco_tasks import MujocoSpec


class StepPool(NamedTuple):
    """MuJoCo's rollout threads with a scratch `MjData` each; see `make_pool`."""

    rollout: mujoco.rollout.Rollout
    data: list[mujoco.MjData]


def make_pool(model: mujoco.MjModel, num_threads: int | None = None) -> StepPool:
    """Starts a thread pool for `step_batch`; close it with `pool.rollout.close()`.

    Args:
      model: any model of the task (the pool fits all that differ in values only).
      num_threads: the CPUs this process may use, by default; 1 starts no thread.

    Raises:
      UserError: if `num_threads` is below 1.
    """
    if num_threads is None:
        num_threads = parallel.available_cores()
    check_range("num_threads", num_threads, low=1)
    workers = num_threads if num_threads > 1 else 0
    data = [mujoco.MjData(model) for _ in range(num_threads)]
    return StepPool(mujoco.rollout.Rollout(nthread=workers), data)


def step_batch(
    spec: MujocoSpec,
    pool: StepPool,
    models: Sequence[mujoco.MjModel],
    qpos: np.ndarray,
    qvel: np.ndarray,
    actions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs one control step of B independent episodes, each in its own model.

    The constraint solver starts cold at every control step, where `trajectory` starts it from the
    last solution; that shows only where a limit is active, at the solver's tolerance.

    Args:
      spec: the task, without actuator states or other memory beyond qpos and qvel.
      pool: from `make_pool`.
      models: B models (the same object may be there many times).
      qpos: `[B, nq]`.
      qvel: `[B, nv]`.
      actions: `[B, A]`, within the limits.

    Returns:
      `(qpos [B, nq], qvel [B, nv])` float64.
    """
    batch, nq = qpos.shape
    # MuJoCo's full physics state is time, qpos, qvel, then nothing for models without activations.
    start = np.concatenate([np.zeros((batch, 1)), qpos, qvel], axis=1)
    control = np.broadcast_to(
        np.asarray(actions, np.float64)[:, None], (batch, spec.frame_skip, actions.shape[-1])
    )
    states, _ = pool.rollout.rollout(list(models), pool.data, start, control)
    return states[:, -1, 1 : 1 + nq], states[:, -1, 1 + nq :]
