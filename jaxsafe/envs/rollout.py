# SPDX-License-Identifier: Apache-2.0
"""Episodes of any task: starting anew at an end, and scoring a policy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsafe.envs.types import Task, TaskState, Timestep


def start(task: Task, model: Any, key: jax.Array, explore: bool | jax.Array = False) -> TaskState:
    """Returns the start of an episode, from `task.explore` where `explore` `[]` is true.

    For one environment; use `jax.vmap`. `key` is consumed.
    """
    if isinstance(explore, bool):
        return (task.explore if explore else task.reset)(model, key)
    reset_key, explore_key = jax.random.split(key)
    reset, wide = task.reset(model, reset_key), task.explore(model, explore_key)
    return _where(explore, wide, reset)


def auto_reset(
    task: Task,
    model: Any,
    state: TaskState,
    timestep: Timestep,
    key: jax.Array,
    explore: bool | jax.Array = False,
) -> TaskState:
    """Returns `state`, or a fresh start where the episode is over.

    `timestep` stays as it is: its obs is the true successor, which a replay buffer stores, while
    the next action needs `task.observe(model, new_state)`. For one environment; use `jax.vmap`.

    Args:
      task: the world.
      model: the model the next episode runs in.
      state: the state after the step.
      timestep: the step's outcome; either of `terminated` and `truncated` ends the episode.
      key: consumed, whether or not the episode is over.
      explore: `[]` whether a fresh start is `task.explore`'s.
    """
    fresh = start(task, model, key, explore)
    ended = timestep.terminated | timestep.truncated
    return _where(ended, fresh, state)


def episode_return(
    task: Task,
    policy: Callable[[jax.Array], jax.Array],
    model: Any,
    state: TaskState,
    length: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Scores one episode of `policy` from `state`, undiscounted.

    The scan always runs `length` steps (a compiled loop has no early exit under `jax.vmap`); those
    after the end add nothing.

    Args:
      task: the world.
      policy: `obs [O] -> action [A]`, pure.
      model: one model.
      state: one start.
      length: steps to scan; the task's `max_episode_steps` by default.

    Returns:
      `(return [] float32, steps [] int32)`; the step that ends the episode counts in both. The
      return is NaN where the policy gave a NaN action.
    """

    def body(carry, _):
        state, alive, total, steps = carry
        action = policy(task.observe(model, state))
        broken = jnp.isnan(action)
        # A NaN would keep MJX's solver busy, and end the episode as any other way to fall does.
        state, timestep = task.step(model, state, jnp.where(broken, 0.0, action))
        reward = jnp.where(broken.any(), jnp.nan, timestep.reward)
        total = total + jnp.where(alive, reward, 0.0)
        steps = steps + alive.astype(jnp.int32)
        alive = alive & ~(timestep.terminated | timestep.truncated)
        return (state, alive, total, steps), None

    start = (state, jnp.bool_(True), jnp.float32(0), jnp.int32(0))
    (_, _, total, steps), _ = jax.lax.scan(
        body, start, length=task.max_episode_steps if length is None else length
    )
    return total, steps


def _where(condition: jax.Array, yes: TaskState, no: TaskState) -> TaskState:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
