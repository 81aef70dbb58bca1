# SPDX-License-Identifier: Apache-2.0
"""M2TD3, DR-TD3 and TD3 as one update with a static config (papers/m2td3 section 2).

The baselines share every line of the update. They see one constant omega, 0, in replay, target
and actor loss, and their target omega is not smoothed; otherwise an untrained corner of Q would
make them look worse than they are.
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxsafe.m2td3 import adversary, losses, networks
from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.types import Params, State, Transition, World

Metrics = dict[str, jax.Array]


def _optimizer(learning_rate: float, schedule: str, num_updates: int):
    if schedule == "cosine":
        return optax.adam(optax.cosine_decay_schedule(learning_rate, max(num_updates, 1)))
    return optax.adam(learning_rate)


def optimizers(config: Config):
    """Returns the optax transformations of (actor, critic, candidates)."""
    critic_updates = (config.total_steps - config.warmup_steps) * config.updates_per_step
    actor_updates = critic_updates // config.policy_delay
    return (
        _optimizer(config.actor_lr, config.actor_schedule, actor_updates),
        _optimizer(config.critic_lr, config.critic_schedule, critic_updates),
        # A candidate moves at most as often as the actor, so its own count would end too early
        # a cosine: its rate stays constant.
        optax.adam(config.omega_lr),
    )


def init(key: jax.Array, config: Config, world: World) -> State:
    """Returns a fresh learner. `key` is consumed.

    Args:
      key: typed PRNG key.
      config: static hyperparameters.
      world: sizes and constants of the task and its uncertainty set.
    """
    key_actor, key_critic, key_omega, key = jax.random.split(key, 4)
    actor_tx, critic_tx, omega_tx = optimizers(config)
    actor = networks.init_actor(key_actor, config, world)
    critic = networks.init_critic(key_critic, config, world)
    return State(
        actor=actor,
        critic=critic,
        # Copies, so that a caller may donate the state.
        target_actor=jax.tree.map(jnp.copy, actor),
        target_critic=jax.tree.map(jnp.copy, critic),
        mean_actor=jax.tree.map(jnp.copy, actor),
        actor_opt=actor_tx.init(actor),
        critic_opt=critic_tx.init(critic),
        candidates=adversary.init(key_omega, config, world, omega_tx),
        episode_length=jnp.float32(1000.0),
        step=jnp.int32(0),
        key=key,
        world=world,
    )


def omega_for_critic(omega: jax.Array, config: Config) -> jax.Array:
    """What the critic may see of `omega` `[..., D]`: all of it in M2TD3, 0 in the baselines."""
    return omega if config.method == "m2td3" else jnp.zeros_like(omega)


def critic_step(
    state: State, batch: Transition, noise: jax.Array, config: Config
) -> tuple[State, Metrics]:
    """One critic update on a minibatch `[B, ...]`, with noise `[B, A + D]` for the smoothings."""
    world = state.world
    batch = batch._replace(omega=omega_for_critic(batch.omega, config))
    noise_action, noise_omega = jnp.split(noise, [world.action_low.shape[0]], axis=-1)
    next_action = losses.smoothed_action(
        noise_action, state.target_actor, batch.next_obs, config, world
    )
    next_omega = batch.omega
    if config.method == "m2td3":
        next_omega = losses.smoothed_omega(noise_omega, batch.omega, config, world)
    target = losses.td_target(state.target_critic, batch, next_action, next_omega, config, world)
    grads, metrics = jax.grad(losses.critic_loss, has_aux=True)(
        state.critic, batch, target, config, world
    )
    _, critic_tx, _ = optimizers(config)
    updates, critic_opt = critic_tx.update(grads, state.critic_opt, state.critic)
    critic = optax.apply_updates(state.critic, updates)
    return state.replace(critic=critic, critic_opt=critic_opt, step=state.step + 1), metrics


def actor_step(state: State, batch: Transition, config: Config) -> tuple[State, Metrics]:
    """Actor up and worst candidate down on the same Q, then the targets, for a minibatch `[B]`."""
    world, q1, obs = state.world, state.critic["q1"], batch.obs
    actor_tx, _, omega_tx = optimizers(config)
    action, pull_back = jax.vjp(lambda p: networks.policy(p, config, world, obs), state.actor)
    omegas = omega_for_critic(adversary.omegas(state.candidates, world), config)
    if config.method != "m2td3":
        omegas = omegas[:1]
    value, worst, grad_action, grad_omega = losses.worst_case(
        q1, obs, action, omegas, config, world
    )
    if config.average_weight and config.method == "m2td3":
        grad_average = jax.grad(losses.policy_value, argnums=2)(
            q1, obs, action, batch.omega, config, world
        )
        weight = config.average_weight
        grad_action = (1 - weight) * grad_action + weight * grad_average
    grads = pull_back(-grad_action)[0]
    updates, actor_opt = actor_tx.update(grads, state.actor_opt, state.actor)
    actor = optax.apply_updates(state.actor, updates)
    candidates = state.candidates
    if config.method == "m2td3":
        horizon = config.probability_horizon or jnp.maximum(state.episode_length, 1.0)
        candidates = adversary.descend(candidates, worst, grad_omega, world, omega_tx)
        candidates = candidates.replace(probs=adversary.reinforce(candidates.probs, worst, horizon))
    state = state.replace(
        actor=actor,
        actor_opt=actor_opt,
        candidates=candidates,
        target_actor=optax.incremental_update(actor, state.target_actor, config.tau),
        target_critic=optax.incremental_update(state.critic, state.target_critic, config.tau),
        mean_actor=actor
        if config.actor_mean_rate == 1.0
        else optax.incremental_update(actor, state.mean_actor, config.actor_mean_rate),
    )
    return state, {"actor/value": value}


def update(state: State, batch: Transition, config: Config) -> tuple[State, Metrics]:
    """One whole update: `policy_delay` critic steps, then one of actor, candidates and targets.

    Args:
      state: the learner.
      batch: minibatches with leaves `[policy_delay, B, ...]`, in the order of use.
      config: static hyperparameters.

    Returns:
      the next learner, and scalars `critic/loss`, `critic/q`, `critic/target`, `actor/value`.
    """
    size = state.world.action_low.shape[0] + state.world.omega_low.shape[0]
    key = jax.random.fold_in(state.key, state.step)
    noise = jax.random.normal(key, (*batch.reward.shape, size))
    return update_with(noise, state, batch, config)


def update_with(
    noise: jax.Array, state: State, batch: Transition, config: Config
) -> tuple[State, Metrics]:
    """`update` with the standard normal numbers `[policy_delay, B, A + D]` of its smoothings."""
    state, steps = lax.scan(lambda s, x: critic_step(s, *x, config), state, (batch, noise))
    state, actor_metrics = actor_step(state, jax.tree.map(lambda x: x[-1], batch), config)
    return state, jax.tree.map(lambda x: x[-1], steps) | actor_metrics


def scored_actor(state: State, config: Config) -> Params:
    """The weights to score: the averaged actor, or the actor itself at `actor_mean_rate=1`."""
    return state.actor if config.actor_mean_rate == 1.0 else state.mean_actor


def act(params: Params, obs: jax.Array, config: Config, world: World) -> jax.Array:
    """Greedy action `[..., A]` for observations `[..., O]`."""
    return networks.policy(params, config, world, obs)
