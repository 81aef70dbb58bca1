# SPDX-License-Identifier: Apache-2.0
"""An adversary that sets omega at every step: the baselines RARL and M3DDPG.

RARL (Pinto et al., ICML 2017, arXiv 1703.02702) trains a protagonist and an adversary of a zero-sum
game in turns. M3DDPG (Li et al., AAAI 2019) trains all players at once, and each reckons with the
others' actions moved one gradient step against it. Here nature is the second player and omega its
action, so both learn from the same twin critics Q(s, a, omega) as M2TD3 does. The M2TD3 paper
compares with both; its code for them is not public, so these are ours.
"""

import jax
import jax.numpy as jnp
import optax

from jaxsafe.m2td3 import losses, networks
from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.types import Nature, Params, Transition, World


def init(key: jax.Array, config: Config, world: World, optimizer) -> Nature:
    """Returns a fresh adversary. `key` is consumed."""
    params = networks.init_nature(key, config, world)
    return Nature(params, jax.tree.map(jnp.copy, params), optimizer.init(params))


def explore(
    noise: jax.Array, nature: Nature, obs: jax.Array, config: Config, world: World
) -> jax.Array:
    """Omegas `[N, D]` for the worlds' next step, with standard normal noise `[N, D]`."""
    omega = networks.nature_policy(nature.params, config, world, obs)
    noise = config.exploration_noise * noise * world.omega_varies
    return jnp.clip(omega + noise, -1.0, 1.0)


def _against(gradient: jax.Array, length: jax.Array | float) -> jax.Array:
    """A step `[B, ...]` of that length down each row's gradient; 0 where the gradient is."""
    norm = jnp.linalg.norm(gradient, axis=-1, keepdims=True)
    return -length * gradient / jnp.maximum(norm, 1e-12)


def worse_omega(
    q1: Params, obs: jax.Array, action: jax.Array, omega: jax.Array, config: Config, world: World
) -> jax.Array:
    """M3DDPG's omega `[B, D]` for the actor: one step down Q1 from `omega`, inside the set."""
    gradient = jax.grad(losses.policy_value, argnums=3)(q1, obs, action, omega, config, world)
    step = _against(gradient, config.minimax_step) * world.omega_varies
    return jnp.clip(omega + step, -1.0, 1.0)


def better_action(
    q1: Params, obs: jax.Array, action: jax.Array, omega: jax.Array, config: Config, world: World
) -> jax.Array:
    """M3DDPG's action `[B, A]` for nature: one step up Q1, in half-ranges, inside the limits."""
    half = (world.action_high - world.action_low) / 2
    gradient = jax.grad(losses.policy_value, argnums=2)(q1, obs, action, omega, config, world)
    step = -_against(gradient * half, config.minimax_step) * half
    return jnp.clip(action + step, world.action_low, world.action_high)


def target_omega(
    nature: Nature,
    target_q1: Params,
    next_obs: jax.Array,
    next_action: jax.Array,
    config: Config,
    world: World,
) -> jax.Array:
    """omega' `[B, D]` of the critics' target, by the target adversary."""
    omega = networks.nature_policy(nature.target, config, world, next_obs)
    if config.method == "m3ddpg":
        omega = worse_omega(target_q1, next_obs, next_action, omega, config, world)
    return omega


def descend(
    nature: Nature,
    q1: Params,
    batch: Transition,
    action: jax.Array,
    config: Config,
    world: World,
    optimizer,
) -> Nature:
    """One Adam step of the adversary down mean Q1(s, a, mu(s)) at actions `[B, A]`."""
    obs = batch.obs
    omega, pull_back = jax.vjp(
        lambda p: networks.nature_policy(p, config, world, obs), nature.params
    )
    if config.method == "m3ddpg":
        action = better_action(q1, obs, action, omega, config, world)
    gradient = jax.grad(losses.policy_value, argnums=3)(q1, obs, action, omega, config, world)
    updates, opt_state = optimizer.update(pull_back(gradient)[0], nature.opt_state, nature.params)
    return nature.replace(params=optax.apply_updates(nature.params, updates), opt_state=opt_state)


def actor_has_turn(step: jax.Array, config: Config) -> jax.Array:
    """Whether RARL's protagonist learns at critic update `step`; else its adversary does."""
    return (step // (config.policy_delay * config.adversary_interval)) % 2 == 0
