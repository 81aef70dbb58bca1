# SPDX-License-Identifier: Apache-2.0
"""M2TD3's actor and twin critics (reference code `utils/network.py`; papers/m2td3 section 2).

The networks are pure functions of (params, config, world, inputs).
"""

import jax
import jax.numpy as jnp

from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.types import Params, World
from jaxsafe.nn.mlp import MLP


def _actor(config: Config, action_size: int) -> MLP:
    linear = config.actor == "linear"
    return MLP(
        () if linear else config.hidden,
        action_size,
        final_scale=config.actor_final_scale,
        final_bias=not linear,
    )


def _critic(config: Config) -> MLP:
    return MLP(config.hidden, 1, layer_norm=config.critic_layer_norm)


def init_actor(key: jax.Array, config: Config, world: World) -> Params:
    """Returns actor parameters. `key` is consumed."""
    obs = jnp.zeros((1, world.obs_scale.shape[0]))
    return _actor(config, world.action_low.shape[0]).init(key, obs)


def init_critic(key: jax.Array, config: Config, world: World) -> Params:
    """Returns the parameters of both critics, `{"q1", "q2"}`. `key` is consumed."""
    size = sum(x.shape[0] for x in (world.obs_scale, world.action_low, world.omega_low))
    inputs = jnp.zeros((1, size))
    key1, key2 = jax.random.split(key)
    module = _critic(config)
    return {"q1": module.init(key1, inputs), "q2": module.init(key2, inputs)}


def init_nature(key: jax.Array, config: Config, world: World) -> Params:
    """Returns the parameters of an adversary that picks omega. `key` is consumed."""
    obs = jnp.zeros((1, world.obs_scale.shape[0]))
    return _actor(config, world.omega_low.shape[0]).init(key, obs)


def policy(params: Params, config: Config, world: World, obs: jax.Array) -> jax.Array:
    """Deterministic action `[..., A]` for observations `[..., O]`, inside the task's limits."""
    if config.scale_obs:
        obs = obs * world.obs_scale
    raw = jnp.asarray(_actor(config, world.action_low.shape[0]).apply(params, obs))
    middle = (world.action_high + world.action_low) / 2
    return middle + (world.action_high - world.action_low) / 2 * _squash(raw, config)


def nature_policy(params: Params, config: Config, world: World, obs: jax.Array) -> jax.Array:
    """An adversary's omega `[..., D]`, normalised, for observations `[..., O]`."""
    if config.scale_obs:
        obs = obs * world.obs_scale
    raw = jnp.asarray(_actor(config, world.omega_low.shape[0]).apply(params, obs))
    return _squash(raw, config) * world.omega_varies


def _squash(raw: jax.Array, config: Config) -> jax.Array:
    """Into [-1, 1]: by tanh, or by a clip where the policy is to be linear."""
    return jnp.clip(raw, -1.0, 1.0) if config.actor == "linear" else jnp.tanh(raw)


def q_value(
    params: Params,
    config: Config,
    world: World,
    obs: jax.Array,
    action: jax.Array,
    omega: jax.Array,
) -> jax.Array:
    """Q(s, a, omega) `[...]` of one critic; `omega` `[..., D]` normalised.

    The reference code concatenates omega in physical units; `normalise_omega=False` does that.
    """
    if config.scale_obs:
        obs = obs * world.obs_scale
    if not config.normalise_omega:
        omega = world.physical(omega)
    omega = jnp.broadcast_to(omega, (*obs.shape[:-1], omega.shape[-1]))
    inputs = jnp.concatenate([obs, action, omega], axis=-1)
    output = jnp.asarray(_critic(config).apply(params, inputs))[..., 0]
    return config.critic_scale * output + config.critic_offset
