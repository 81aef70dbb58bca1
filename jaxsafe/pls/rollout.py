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
    targets = jnp.broadcast_to(z, (num_episodes, 2))
    return _episodes(policy, key, task, targets, config, model)


def _episodes(
    policy: Policy, key: jax.Array, task: Task, z: jax.Array, config: PolicyConfig, model: Any
) -> tuple[jax.Array, jax.Array]:
    """Runs an episode for each of M targets `[M, 2]`; returns `[M]` and cost returns `[M]`."""
    run = jax.vmap(lambda k, target: episode(policy, k, task, target, config, model))
    number = len(z)
    if config.model == "rvs" or not 0 < config.rollout_block < number:
        return run(jax.random.split(key, number), z)
    blocks = -(-number // config.rollout_block)
    size = -(-number // blocks)
    # Blocks of one size: what the last runs beyond M is not counted, and the first M keys stay.
    z = jnp.pad(z, ((0, blocks * size - number), (0, 0)), mode="edge")
    xs = jax.random.split(key, (blocks, size)), z.reshape(blocks, size, 2)
    reward, cost = jax.lax.map(lambda x: run(*x), xs)
    return reward.reshape(-1)[:number], cost.reshape(-1)[:number]


@functools.partial(jax.jit, static_argnames=("task", "config", "num_episodes"))
def evaluate(
    policy: Policy,
    key: jax.Array,
    task: Task,
    z: jax.Array,
    config: PolicyConfig,
    num_episodes: int,
    model: Any = None,
) -> jax.Array:
    """Returns of W episodes at each of Q targets `[Q, 2]`, as the search takes them, `[Q, W, 2]`.

    Every target has episodes of its own. For a transformer on a CPU this is faster than `returns`
    under `vmap`, since episodes of all targets share the blocks. `key` is consumed.
    """
    model = task.model if model is None else model
    targets = jnp.repeat(z, num_episodes, axis=0)
    found = jnp.stack(_episodes(policy, key, task, targets, config, model), axis=-1)
    return found.reshape(z.shape[0], num_episodes, 2)
