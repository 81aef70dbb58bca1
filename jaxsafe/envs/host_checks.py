# SPDX-License-Identifier: Apache-2.0
"""Whether what `envs.host` is given can be scored."""

import mujoco
import numpy as np

from jaxsafe.core.checks import UserError, check_memory, check_range
from jaxsafe.envs.mujoco_spec import HostTask
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet


def host_of(task: Task) -> HostTask:
    """Returns the task in MuJoCo C.

    Raises:
      UserError: if it has no model there.
    """
    if task.host is None:
        raise UserError(f"{task.name} has no model in MuJoCo C: score it with envs.rollout.")
    return task.host


def check_score(
    task: Task,
    uncertainty: UncertaintySet,
    omegas: np.ndarray,
    episodes: int,
    num_policies: int,
) -> np.ndarray:
    """Returns `omegas` as float64 once the arguments of `host.score` are found sound.

    Raises:
      UserError: as `host.score`.
    """
    host_of(task)
    check_range("episodes", episodes, low=1)
    check_range("num_policies", num_policies, low=1)
    omegas = np.asarray(omegas, np.float64)
    given = (*omegas.shape[:-2], omegas.shape[-1]) if omegas.ndim > 1 else ()
    if given not in ((uncertainty.size,), (num_policies, uncertainty.size)) or not omegas.size:
        names = ", ".join(uncertainty.names)
        raise UserError(
            f"omegas has shape {omegas.shape}: give [N, {uncertainty.size}], N >= 1 ({names})."
        )
    finite = np.isfinite(omegas).all(-1).ravel()
    if not finite.all():
        bad = int(np.argmin(finite))
        value = omegas.reshape(-1, uncertainty.size)[bad].tolist()
        raise UserError(f"omegas[{bad}]={value} is not finite: remove that row.")
    num_models, num_omegas = finite.size, omegas.shape[-2]
    rows = num_policies * num_omegas * episodes
    check_memory(
        f"score of {num_policies} policies on {num_omegas} omegas x {episodes} episodes",
        num_models * mujoco.mj_sizeModel(task.host.model) + rows * 64 * task.obs_size,
        "Lower episodes or score fewer omegas or policies at a time.",
    )
    return omegas


def check_actions(task: Task, actions: np.ndarray, num_policies: int, rows: int) -> np.ndarray:
    """Returns a policy's actions `[P, rows / P, A]` as `[rows, A]` float64 within the limits.

    Raises:
      UserError: if their shape is another.
    """
    expected = (num_policies, rows // num_policies, task.action_size)
    if actions.shape != expected:
        raise UserError(
            f"policy returned shape {actions.shape}, expected {expected}: return [P, N*E, A] for "
            f"num_policies={num_policies}."
        )
    actions = actions.reshape(rows, task.action_size).astype(np.float64)
    return np.clip(actions, task.action_low, task.action_high)
