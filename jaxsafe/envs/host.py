# SPDX-License-Identifier: Apache-2.0
"""The same tasks in MuJoCo C, in 64-bit physics, for scores by an engine that did not train."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from jaxsafe.envs.host_checks import check_actions, check_score, host_of
from jaxsafe.envs.host_steps import (
    StepPool,
    advance,
    begin,
    derived_of,
    make_pool,
    stack,
    step_batch_derived,
)
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet


class HostScores(NamedTuple):
    """Scores of P policies on N omegas, E episodes each.

    Attributes:
      returns: undiscounted returns, `[P, N, E]` float64; NaN where the policy gave a NaN action.
      steps: episode lengths in control steps, `[P, N, E]` int32.
      costs: undiscounted sums of costs, as `returns`; zeros where the task has none.
    """

    returns: np.ndarray
    steps: np.ndarray
    costs: np.ndarray


class HostTrajectory(NamedTuple):
    """T control steps of one episode; row t is the state after action t. All are 64-bit.

    Attributes:
      qpos: `[T, nq]`.
      qvel: `[T, nv]`.
      obs: `[T, O]`.
      reward: `[T]`.
      terminated: `[T]` bool.
      cost: `[T]`, zeros where the task has none.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    cost: np.ndarray


def initial_states(task: Task, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws E starts as the task's reset does: `(qpos [E, nq], qvel [E, nv])` float64.

    Raises:
      UserError: if the task has no model in MuJoCo C.
    """
    spec, model = host_of(task)
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-spec.reset_noise, spec.reset_noise, (episodes, model.nq + model.nv))
    if spec.reset_normal:
        noise[:, model.nq :] = rng.normal(0, spec.reset_noise, (episodes, model.nv))
    return model.qpos0 + noise[:, : model.nq], noise[:, model.nq :]


@dataclasses.dataclass
class _Batch:
    """R episodes under way."""

    models: list[mujoco.MjModel]  # of each episode
    qpos: np.ndarray  # [R, nq]
    qvel: np.ndarray  # [R, nv]
    derived: dict[str, np.ndarray]  # [R, ...], of `MujocoSpec.derived`
    obs: np.ndarray  # [R, O] float32
    returns: np.ndarray  # [R]
    costs: np.ndarray  # [R]
    steps: np.ndarray  # [R] int32
    alive: np.ndarray  # indices of those that are not over


def _begin(task: Task, models: Sequence[mujoco.MjModel], episodes: int, seed: int) -> _Batch:
    """The episodes of models `P * N`, all from the same starts."""
    starts = initial_states(task, episodes, seed)
    qpos, qvel = (np.tile(x, (len(models), 1)) for x in starts)
    rows = len(qpos)
    own = [model for model in models for _ in range(episodes)]
    derived = begin(task.host.spec, own, qpos, qvel)
    return _Batch(
        models=own,
        qpos=qpos,
        qvel=qvel,
        derived=derived,
        obs=task.host.spec.observe(np, qpos, qvel, derived).astype(np.float32),
        returns=np.zeros(rows),
        costs=np.zeros(rows),
        steps=np.zeros(rows, np.int32),
        alive=np.arange(rows),
    )


def _advance(task: Task, pool: StepPool, batch: _Batch, actions: np.ndarray) -> None:
    """Takes one control step in the living episodes of `batch`; `actions` `[R, A]` has all rows."""
    spec = task.host.spec
    # MuJoCo would take a NaN for 0 and the score would look sound.
    broken = np.asarray(np.isnan(actions).any(1))
    lost = batch.alive[broken[batch.alive]]
    batch.returns[lost] = batch.costs[lost] = np.nan
    batch.alive = alive = batch.alive[~broken[batch.alive]]
    if not len(alive):
        return
    before, actions = batch.qpos[alive], actions[alive]
    derived_before = {name: x[alive] for name, x in batch.derived.items()}
    after, velocity, derived = step_batch_derived(
        spec, pool, [batch.models[i] for i in alive], before, batch.qvel[alive], actions
    )
    terminated = spec.terminated(np, after, velocity)
    reward, cost = spec.pay(
        np, before, after, velocity, actions, terminated, derived_before, derived
    )
    batch.returns[alive] += reward
    batch.costs[alive] += cost
    batch.steps[alive] += 1
    batch.qpos[alive], batch.qvel[alive] = after, velocity
    for name, x in derived.items():
        batch.derived[name][alive] = x
    # A new array: a policy that runs asynchronously may still read the old one.
    batch.obs = batch.obs.copy()
    batch.obs[alive] = spec.observe(np, after, velocity, derived)
    batch.alive = alive[~terminated]


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
      omegas: `[N, D]`, or `[P, N, D]` for each policy its own; they may lie outside the box.
      episodes: E.
      seed: of the starts.
      num_policies: P.
      num_threads: the CPUs this process may use, by default; does not change the scores.
      progress: called with the fraction of control steps done, about a hundred times.

    Raises:
      UserError: if a count is below 1, a shape does not fit, an omega is not finite, the models
        would not fit in memory, or the task has none in MuJoCo C.
    """
    omegas = check_score(task, uncertainty, omegas, episodes, num_policies)
    num_omegas = omegas.shape[-2]
    rows_of_omegas = omegas.reshape(-1, uncertainty.size)
    models = [uncertainty.apply_host(task.host.model, omega) for omega in rows_of_omegas]
    models *= num_policies if omegas.ndim == 2 else 1
    batch = _begin(task, models, episodes, seed)
    rows = len(batch.alive)
    report_every = max(1, task.max_episode_steps // 100)
    pool = make_pool(task.host.model, num_threads)
    try:
        for t in range(1, task.max_episode_steps + 1):
            actions = np.asarray(policy(batch.obs.reshape(num_policies, -1, task.obs_size)))
            _advance(task, pool, batch, check_actions(task, actions, num_policies, rows))
            if not len(batch.alive):
                break
            if progress and t % report_every == 0 and t < task.max_episode_steps:
                progress(t / task.max_episode_steps)
    finally:
        pool.rollout.close()
    if progress:
        progress(1.0)
    shape = (num_policies, num_omegas, episodes)
    columns = (batch.returns, batch.steps, batch.costs)
    return HostScores(*(column.reshape(shape) for column in columns))


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
    spec = host_of(task).spec
    actions = np.clip(np.asarray(actions, np.float64), task.action_low, task.action_high)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    states = [(data.qpos.copy(), data.qvel.copy(), derived_of(spec, data))]
    for action in actions:
        advance(spec, model, data, action)
        states.append((data.qpos.copy(), data.qvel.copy(), derived_of(spec, data)))
    positions, velocities, rows = zip(*states, strict=True)
    before, after, velocity = map(np.stack, (positions[:-1], positions[1:], velocities[1:]))
    derived_before, derived = stack(rows[:-1]), stack(rows[1:])
    terminated = spec.terminated(np, after, velocity)
    reward, cost = spec.pay(
        np, before, after, velocity, actions, terminated, derived_before, derived
    )
    obs = spec.observe(np, after, velocity, derived)
    return HostTrajectory(after, velocity, obs, reward, terminated, cost)


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
    spec = host_of(task).spec
    pool = make_pool(model, num_threads=1)
    path, position, velocity = [qpos], qpos[None], qvel[None]
    derived = begin(spec, [model], position, velocity)
    for _ in range(task.max_episode_steps):
        action = policy(spec.observe(np, position, velocity, derived)[0].astype(np.float32))
        action = np.clip(np.asarray(action, np.float64), task.action_low, task.action_high)
        position, velocity, derived = step_batch_derived(
            spec, pool, [model], position, velocity, action[None]
        )
        path.append(position[0])
        if spec.terminated(np, position, velocity)[0]:
            break
    return np.stack(path)
