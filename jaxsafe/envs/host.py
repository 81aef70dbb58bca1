# SPDX-License-Identifier: Apache-2.0
"""The same tasks in MuJoCo C, in 64-bit physics, for scores by an engine that did not train."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import mujoco
import mujoco.rollout
import numpy as np

from jaxsafe.core.checks import UserError, check_memory, check_range
from jaxsafe.envs.mujoco_tasks import MujocoSpec
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet


class HostScores(NamedTuple):
    """Scores of P policies on N omegas, E episodes each.

    Attributes:
      returns: undiscounted returns, `[P, N, E]` float64; NaN where the policy gave a NaN action.
      steps: episode lengths in control steps, `[P, N, E]` int32.
    """

    returns: np.ndarray
    steps: np.ndarray


class HostTrajectory(NamedTuple):
    """T control steps of one episode; row t is the state after action t. All are 64-bit.

    Attributes:
      qpos: `[T, nq]`.
      qvel: `[T, nv]`.
      obs: `[T, O]`.
      reward: `[T]`.
      terminated: `[T]` bool.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


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
    if num_threads is None:  # macOS has no affinity.
        affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
        num_threads = len(affinity(0))
    check_range("num_threads", num_threads, low=1)
    workers = num_threads if num_threads > 1 else 0
    data = [mujoco.MjData(model) for _ in range(num_threads)]
    return StepPool(mujoco.rollout.Rollout(nthread=workers), data)


def initial_states(task: Task, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws E starts as the task's reset does: `(qpos [E, nq], qvel [E, nv])` float64."""
    spec, model = task.host
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-spec.reset_noise, spec.reset_noise, (episodes, model.nq + model.nv))
    return model.qpos0 + noise[:, : model.nq], noise[:, model.nq :]


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


def score(
    task: Task,
    policy: Callable[[np.ndarray], np.ndarray],
    uncertainty: UncertaintySet,
    omegas: np.ndarray,
    episodes: int,
    seed: int,
    num_policies: int = 1,
    num_threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> HostScores:
    """Scores P policies on N omegas in closed loop, E episodes each.

    Every policy and every omega gets the same E starts, so differences are theirs and not the
    draw's. Episodes that end leave the physics batch; the policy always sees full arrays (with the
    last observation of an ended episode), so a jitted policy compiles once.

    Args:
      task: the world.
      policy: `obs [P, N*E, O] float32 -> actions [P, N*E, A]`; row `n*E + e` is omega n, episode e.
      uncertainty: the set whose parameters the omegas are.
      omegas: `[N, D]`; they may lie outside the box.
      episodes: E.
      seed: of the starts.
      num_policies: P.
      num_threads: the CPUs this process may use, by default; does not change the scores.
      progress: called with the fraction of control steps done, about a hundred times.

    Raises:
      UserError: if a count is below 1, a shape does not fit, an omega is not finite, or the models
        would not fit in memory.
    """
    spec, nominal = task.host
    omegas = _check_score(task, uncertainty, omegas, episodes, num_policies)
    models = [uncertainty.apply_host(nominal, omega) for omega in omegas]
    shape = (num_policies, len(models), episodes)
    rows = int(np.prod(shape))
    model_of = np.broadcast_to(np.arange(len(models))[None, :, None], shape).ravel()
    starts = initial_states(task, episodes, seed)
    qpos, qvel = (np.tile(x, (num_policies * len(models), 1)) for x in starts)
    obs = spec.observe(np, qpos, qvel).astype(np.float32)
    returns, steps = np.zeros(rows), np.zeros(rows, np.int32)
    alive = np.arange(rows)
    report_every = max(1, task.max_episode_steps // 100)
    pool = make_pool(nominal, num_threads)
    try:
        for t in range(task.max_episode_steps):
            actions = np.asarray(policy(obs.reshape(num_policies, -1, task.obs_size)))
            actions = _check_actions(task, actions, num_policies, rows)
            # MuJoCo would take a NaN for 0 and the score would look sound.
            broken = np.isnan(actions).any(1)
            returns[alive[broken[alive]]] = np.nan
            alive = alive[~broken[alive]]
            if not len(alive):
                break
            before, actions = qpos[alive], actions[alive]
            after, velocity = step_batch(
                spec, pool, [models[i] for i in model_of[alive]], before, qvel[alive], actions
            )
            terminated = spec.terminated(np, after, velocity)
            returns[alive] += spec.reward(np, before, after, velocity, actions, terminated)
            steps[alive] += 1
            qpos[alive], qvel[alive] = after, velocity
            # A new array: a policy that runs asynchronously may still read the old one.
            obs = obs.copy()
            obs[alive] = spec.observe(np, after, velocity)
            alive = alive[~terminated]
            if progress and (t + 1) % report_every == 0 and t + 1 < task.max_episode_steps:
                progress((t + 1) / task.max_episode_steps)
    finally:
        pool.rollout.close()
    if progress:
        progress(1.0)
    return HostScores(returns.reshape(shape), steps.reshape(shape))


def trajectory(
    task: Task,
    model: mujoco.MjModel,
    qpos: np.ndarray,
    qvel: np.ndarray,
    actions: np.ndarray,
) -> HostTrajectory:
    """Runs T actions open loop in one MuJoCo C model, on through termination.

    Args:
      task: the world.
      model: nominal (`task.host.model`) or from `UncertaintySet.apply_host`.
      qpos: start, `[nq]`.
      qvel: start, `[nv]`.
      actions: `[T, A]`; clipped to the limits.
    """
    spec = task.host.spec
    actions = np.clip(np.asarray(actions, np.float64), task.action_low, task.action_high)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    states = [(data.qpos.copy(), data.qvel.copy())]
    for action in actions:
        data.ctrl[:] = action
        mujoco.mj_step(model, data, nstep=spec.frame_skip)
        states.append((data.qpos.copy(), data.qvel.copy()))
    positions, velocities = (np.stack(x) for x in zip(*states, strict=True))
    before, after, velocity = positions[:-1], positions[1:], velocities[1:]
    terminated = spec.terminated(np, after, velocity)
    reward = spec.reward(np, before, after, velocity, actions, terminated)
    return HostTrajectory(after, velocity, spec.observe(np, after, velocity), reward, terminated)


def episode(
    task: Task,
    model: mujoco.MjModel,
    policy: Callable[[np.ndarray], np.ndarray],
    qpos: np.ndarray,
    qvel: np.ndarray,
) -> np.ndarray:
    """Runs one closed-loop episode to its end, to be drawn; same physics as `score`.

    Args:
      task: the world.
      model: nominal (`task.host.model`) or from `UncertaintySet.apply_host`.
      policy: `obs [O] float32 -> action [A]`.
      qpos: start, `[nq]`.
      qvel: start, `[nv]`.

    Returns:
      Positions `[T + 1, nq]`, the start first.
    """
    spec = task.host.spec
    pool = make_pool(model, num_threads=1)
    path, position, velocity = [qpos], qpos[None], qvel[None]
    for _ in range(task.max_episode_steps):
        action = policy(spec.observe(np, position, velocity)[0].astype(np.float32))
        action = np.clip(np.asarray(action, np.float64), task.action_low, task.action_high)
        position, velocity = step_batch(spec, pool, [model], position, velocity, action[None])
        path.append(position[0])
        if spec.terminated(np, position, velocity)[0]:
            break
    return np.stack(path)


def _check_score(task, uncertainty, omegas, episodes, num_policies) -> np.ndarray:
    check_range("episodes", episodes, low=1)
    check_range("num_policies", num_policies, low=1)
    omegas = np.asarray(omegas, np.float64)
    if omegas.ndim != 2 or omegas.shape[1] != uncertainty.size or not len(omegas):
        names = ", ".join(uncertainty.names)
        raise UserError(
            f"omegas has shape {omegas.shape}: give [N, {uncertainty.size}], N >= 1 ({names})."
        )
    if not np.isfinite(omegas).all():
        bad = int(np.argmin(np.isfinite(omegas).all(1)))
        raise UserError(f"omegas[{bad}]={omegas[bad].tolist()} is not finite: remove that row.")
    rows = num_policies * len(omegas) * episodes
    check_memory(
        f"score of {num_policies} policies on {len(omegas)} omegas x {episodes} episodes",
        len(omegas) * mujoco.mj_sizeModel(task.host.model) + rows * 64 * task.obs_size,
        "Lower episodes or score fewer omegas or policies at a time.",
    )
    return omegas


def _check_actions(task, actions: np.ndarray, num_policies: int, rows: int) -> np.ndarray:
    expected = (num_policies, rows // num_policies, task.action_size)
    if actions.shape != expected:
        raise UserError(
            f"policy returned shape {actions.shape}, expected {expected}: return [P, N*E, A] for "
            f"num_policies={num_policies}."
        )
    actions = actions.reshape(rows, task.action_size).astype(np.float64)
    return np.clip(actions, task.action_low, task.action_high)
