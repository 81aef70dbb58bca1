# SPDX-License-Identifier: Apache-2.0
"""Episodes of a return-conditioned policy, thousands in one program."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsafe.envs.types import Task
from jaxsafe.pls import networks
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Policy


def episode(
    policy: Policy, key: jax.Array, task: Task, z: jax.Array, config: PolicyConfig, model: Any
) -> tuple[jax.Array, jax.Array]:
    """Runs one episode in one model; for `jax.vmap`. `key` is consumed.

    At each step the policy sees what is left of the targets, R_{t+1} = R_t - r_t and
    C_{t+1} = C_t - c_t, and its mean action is clipped to the task's limits.

    Returns:
      undiscounted return and cost return, `[]` each; the step that ends the episode counts.
    """
    limits = jnp.asarray(task.action_low), jnp.asarray(task.action_high)
    state = task.reset(model, key)

    def body(carry, time):
        state, obs, memory, left, alive = carry
        action, memory = networks.act(policy, config, memory, limits, obs, left[0], left[1], time)
        state, timestep = task.step(model, state, action)
        paid = jnp.where(alive, jnp.stack([timestep.reward, timestep.cost]), 0.0)
        alive = alive & ~(timestep.terminated | timestep.truncated)
        return (state, timestep.obs, memory, left - paid, alive), paid

    memory = networks.start(policy, config)
    carry = (state, task.observe(model, state), memory, jnp.asarray(z, jnp.float32), True)
    carry = jax.tree.map(jnp.asarray, carry)
    _, paid = jax.lax.scan(body, carry, jnp.arange(task.max_episode_steps))
    reward, cost = jnp.sum(paid, axis=0)
    return reward, cost / policy.sizes.cost_scale if config.divide_costs else cost


@functools.partial(jax.jit, static_argnames=("task", "config", "num_episodes"))
def returns(
    policy: Policy,
    key: jax.Array,
    task: Task,
    z: jax.Array,
    config: PolicyConfig,
    num_episodes: int,
    model: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Runs W episodes of pi_z; map it over `z`, policies and keys by `jax.vmap`.

    Args:
      policy: from `algorithm.policy`.
      key: of the starts; one key gives the same starts for every z. Consumed.
      task: the world; keep it, or it compiles again.
      z: `[2]`, target return and target cost return, raw undiscounted units.
      config: static.
      num_episodes: W.
      model: of the world; the task's nominal one by default.

    Returns:
      returns `[W]` and cost returns `[W]`, raw undiscounted units. Times beyond the policy's T, in
      a task with longer episodes than its data, count as T.
    """
    model = task.model if model is None else model
    keys = jax.random.split(key, num_episodes)
    return jax.vmap(lambda k: episode(policy, k, task, z, config, model))(keys)


def evaluate(
    policy: Policy,
    key: jax.Array,
    task: Task,
    z: jax.Array,
    config: PolicyConfig,
    num_episodes: int,
) -> jax.Array:
    """Returns of W episodes at each of Q targets `[Q, 2]`, as the search takes them, `[Q, W, 2]`.

    Every target has episodes of its own. `key` is consumed.
    """
    keys = jax.random.split(key, z.shape[0])
    one = lambda k, z: returns(policy, k, task, z, config, num_episodes)  # noqa: E731
    return jnp.stack(jax.vmap(one)(keys, z), axis=-1)
