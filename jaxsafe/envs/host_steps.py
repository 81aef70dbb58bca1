# SPDX-License-Identifier: Apache-2.0
"""Batches of control steps in MuJoCo C, on threads."""

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import NamedTuple

import mujoco
import mujoco.rollout
import numpy as np

from jaxsafe.core import parallel
from jaxsafe.core.checks import check_range
from jaxsafe.envs.mujoco_spec import MujocoSpec


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
    states = np.asarray(pool.rollout.rollout(list(models), pool.data, start, control)[0])
    return states[:, -1, 1 : 1 + nq], states[:, -1, 1 + nq :]


def derived_of(spec: MujocoSpec, data: mujoco.MjData) -> dict[str, np.ndarray]:
    """Copies of the arrays that `spec.derived` names, as they stand in `data`."""
    return {name: getattr(data, name).copy() for name in spec.derived}


def begin(
    spec: MujocoSpec, models: Sequence[mujoco.MjModel], qpos: np.ndarray, qvel: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns `spec.derived` of B fresh episodes, `[B, ...]` each, at `qpos` and `qvel`."""
    if not spec.derived:
        return {}
    data = mujoco.MjData(models[0])
    rows = []
    for model, q, v in zip(models, qpos, qvel, strict=True):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = q, v
        mujoco.mj_forward(model, data)
        rows.append(derived_of(spec, data))
    return stack(rows)


def stack(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Joins dicts of arrays along a new first axis."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def advance(spec: MujocoSpec, model: mujoco.MjModel, data: mujoco.MjData, action) -> None:
    """Takes one control step in `data`, as Gymnasium does."""
    data.ctrl[:] = action
    mujoco.mj_step(model, data, nstep=spec.frame_skip)
    if "cfrc_ext" in spec.derived:
        mujoco.mj_rnePostConstraint(model, data)


def step_batch_derived(
    spec: MujocoSpec,
    pool: StepPool,
    models: Sequence[mujoco.MjModel],
    qpos: np.ndarray,
    qvel: np.ndarray,
    actions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """As `step_batch`, and returns `spec.derived` `[B, ...]` as well."""
    if not spec.derived:
        return *step_batch(spec, pool, models, qpos, qvel, actions), {}

    def run(rows: np.ndarray, data: mujoco.MjData) -> list:
        out = []
        for i in rows:
            mujoco.mj_resetData(models[i], data)
            data.qpos[:], data.qvel[:] = qpos[i], qvel[i]
            advance(spec, models[i], data, actions[i])
            out.append((data.qpos.copy(), data.qvel.copy(), derived_of(spec, data)))
        return out

    parts = np.array_split(np.arange(len(qpos)), len(pool.data))
    results = [row for part in _in_threads(run, parts, pool.data) for row in part]
    positions, velocities, derived = zip(*results, strict=True)
    return np.stack(positions), np.stack(velocities), stack(derived)


def _in_threads(function: Callable, *arguments: Sequence) -> list:
    """Calls `function` on each row of `arguments`, in as many threads; `mj_step` frees the GIL."""
    if len(arguments[0]) == 1:
        return list(map(function, *arguments))
    with concurrent.futures.ThreadPoolExecutor(len(arguments[0])) as threads:
        return list(threads.map(function, *arguments))
