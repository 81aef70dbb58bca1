# SPDX-License-Identifier: Apache-2.0
"""The random numbers of training iterations, drawn ahead of the loop that uses them.

On CPU a draw takes some 50 microseconds however small it is, and an iteration needs a dozen. Drawn
for many iterations at once, with each one's own key, they are the same numbers and cost little.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsafe.data import replay
from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.types import World


class Draws(NamedTuple):
    """One iteration's numbers: N worlds, then U critic updates on B transitions each.

    Letters in shapes as in `types`. Normal numbers have deviation 1, uniform ones lie in [0, 1)
    unless another range is given.
    """

    random_action: jax.Array  # [N, A] uniform, while warming up
    action_noise: jax.Array  # [N, A] normal; [N, 1] where all dimensions share it
    omega_uniform: jax.Array  # [N, D] uniform in [-1, 1)
    omega_pick: jax.Array  # [N, K] Gumbel
    omega_noise: jax.Array  # [N, D] normal
    omega_mix: jax.Array  # [N] uniform
    omega_redraw: jax.Array  # [N] bool, whether a running episode gets a new omega
    start: jax.Array  # [N, ...] raw key data of the next episodes' starts
    explore: jax.Array  # [N] bool, whether those start in the wide box
    places: jax.Array  # [U, B] of the replay buffer
    smoothing: jax.Array  # [U, B, A + D] normal


def draw(key: jax.Array, step: jax.Array, config: Config, world: World) -> Draws:
    """Draws for iteration `step` `[]` of the run that owns `key`, which is not consumed."""
    keys = jax.random.split(jax.random.fold_in(key, step), 11)
    num, actions, params = config.num_envs, world.action_low.shape[0], world.omega_low.shape[0]
    updates = (config.updates_per_step, config.batch_size)
    noise = (num, actions if config.independent_noise else 1)
    return Draws(
        random_action=jax.random.uniform(keys[0], (num, actions)),
        action_noise=jax.random.normal(keys[1], noise),
        omega_uniform=jax.random.uniform(keys[2], (num, params), minval=-1.0, maxval=1.0),
        omega_pick=jax.random.gumbel(keys[3], (num, config.num_candidates)),
        omega_noise=jax.random.normal(keys[4], (num, params)),
        omega_mix=jax.random.uniform(keys[5], (num,)),
        omega_redraw=jax.random.uniform(keys[10], (num,)) < config.omega_redraw,
        start=_start_keys(keys[6], config),
        explore=jax.random.uniform(keys[7], (num,)) < config.exploring_starts,
        places=replay.indices(
            keys[8],
            (step + 1) * num,
            config.replay_capacity,
            updates,
            skip_last=not config.replay_newest,
        ),
        smoothing=jax.random.normal(keys[9], (*updates, actions + params)),
    )


def start_keys(draws: Draws) -> jax.Array:
    """Keys `[N]` of the next episodes' starts."""
    return jax.random.wrap_key_data(draws.start)


def _start_keys(key: jax.Array, config: Config) -> jax.Array:
    """Raw, as JAX's check for reused keys takes typed ones that a scan reads for reused."""
    if config.fresh_starts:
        return jax.random.key_data(jax.random.split(key, config.num_envs))
    # The authors' code seeds every episode alike.
    same = jax.vmap(jax.random.key)(jnp.zeros(config.num_envs, jnp.uint32))
    return jax.random.key_data(same)
