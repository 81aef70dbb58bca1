# SPDX-License-Identifier: Apache-2.0
"""M2TD3, its variants and its baselines as one update with a static config (paper section 4).

The baselines share every line of the update. DR-TD3 and TD3 see one constant omega, 0, in replay,
target and actor loss, and their target omega is not smoothed; otherwise an untrained corner of Q
would make them look worse than they are.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxsafe.m2td3 import adversary, losses, nature, networks
from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.types import Nature, Params, State, Transition, World

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


def nature_optimizer(config: Config):
    """Returns the optax transformation of an adversary that reads the state: the actor's."""
    return optimizers(config)[0]


def init(key: jax.Array, config: Config, world: World) -> State:
    """Returns a fresh learner. `key` is consumed.

    Args:
      key: typed PRNG key.
      config: static hyperparameters.
      world: sizes and constants of the task and its uncertainty set.
    """
    key_actor, key_critic, key_omega, key_nature, key = jax.random.split(key, 5)
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
        nature=_init_nature(key_nature, config, world),
        episode_length=jnp.float32(1000.0),
        step=jnp.int32(0),
        key=key,
        world=world,
    )


def _init_nature(key: jax.Array, config: Config, world: World) -> Nature | None:
    return nature.init(key, config, world, nature_optimizer(config)) if config.has_nature else None


def omega_for_critic(omega: jax.Array, config: Config) -> jax.Array:
    """What the critic may see of `omega` `[..., D]`: all of it, or 0 in DR-TD3 and TD3."""
    return omega if config.sees_omega else jnp.zeros_like(omega)


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
    if config.has_candidates:
        next_omega = losses.smoothed_omega(noise_omega, batch.omega, config, world)
    if config.has_nature:
        next_omega = nature.target_omega(
            state.nature, state.target_critic["q1"], batch.next_obs, next_action, config, world
        )
    target = losses.td_target(state.target_critic, batch, next_action, next_omega, config, world)
    grads, metrics = jax.grad(losses.critic_loss, has_aux=True)(
        state.critic, batch, target, config, world
    )
    _, critic_tx, _ = optimizers(config)
    updates, critic_opt = critic_tx.update(grads, state.critic_opt, state.critic)
    critic = optax.apply_updates(state.critic, updates)
    return state.replace(critic=critic, critic_opt=critic_opt, step=state.step + 1), metrics


def actor_step(state: State, batch: Transition, config: Config) -> tuple[State, Metrics]:
    """Actor up and adversary down on the same Q, then the targets, for a minibatch `[B]`."""
    if config.has_nature:
        state, value = _against_nature(state, batch, config)
    else:
        state, value = _against_candidates(state, batch, config)
    state = state.replace(
        target_actor=optax.incremental_update(state.actor, state.target_actor, config.tau),
        target_critic=optax.incremental_update(state.critic, state.target_critic, config.tau),
        mean_actor=state.actor
        if _is(config.actor_mean_rate, 1.0)
        else optax.incremental_update(state.actor, state.mean_actor, config.actor_mean_rate),
    )
    return state, {"actor/value": value}


def _climb(state: State, grad_action: jax.Array, pull_back, config: Config) -> State:
    """One Adam step of the actor up dJ/da `[B, A]`."""
    actor_tx, _, _ = optimizers(config)
    updates, actor_opt = actor_tx.update(pull_back(-grad_action)[0], state.actor_opt, state.actor)
    return state.replace(actor=optax.apply_updates(state.actor, updates), actor_opt=actor_opt)


def _against_candidates(state: State, batch: Transition, config: Config) -> tuple[State, jax.Array]:
    """The actor's and the worst candidate's step; a constant omega where there is none."""
    world, q1, obs = state.world, state.critic["q1"], batch.obs
    action, pull_back = jax.vjp(lambda p: networks.policy(p, config, world, obs), state.actor)
    omegas = omega_for_critic(adversary.omegas(state.candidates, world), config)
    if not config.has_candidates:
        omegas = omegas[:1]
    inputs = (q1, obs, action, omegas)
    if config.method == "soft_m2td3":
        case = losses.soft_case(*inputs, state.candidates.probs, config, world)
    else:
        case = losses.worst_case(*inputs, config, world)
    value, worst, grad_action, grad_omega = case
    if config.plus and not _is(config.average_weight, 0.0):
        rest, weight = _rest(q1, batch, action, config, world), config.average_weight
        grad_action = (1 - weight) * grad_action + weight * rest
    state = _climb(state, grad_action, pull_back, config)
    if not config.has_candidates:
        return state, value
    _, _, omega_tx = optimizers(config)
    horizon = config.probability_horizon or jnp.maximum(state.episode_length, 1.0)
    candidates = adversary.descend(state.candidates, worst, grad_omega, world, omega_tx)
    probs = adversary.reinforce(candidates.probs, worst, horizon)
    return state.replace(candidates=candidates.replace(probs=probs)), value


def _rest(
    q1: Params, batch: Transition, action: jax.Array, config: Config, world: World
) -> jax.Array:
    """dJ/da `[B, A]` of what m2td3_plus climbs beside the worst candidate: a mean or CVaR of J."""
    if _is(config.cvar_level, 1.0):
        grad = jax.grad(losses.policy_value, argnums=2)
        return grad(q1, batch.obs, action, batch.omega, config, world)
    omegas = batch.omega[: config.cvar_omegas]
    return losses.tail_case(q1, batch.obs, action, omegas, config, world)[1]


def _against_nature(state: State, batch: Transition, config: Config) -> tuple[State, jax.Array]:
    """The actor's step against an adversary that reads the state, and the adversary's."""
    world, q1, obs = state.world, state.critic["q1"], batch.obs
    action, pull_back = jax.vjp(lambda p: networks.policy(p, config, world, obs), state.actor)
    omega = networks.nature_policy(state.nature.params, config, world, obs)
    if config.method == "m3ddpg":
        omega = nature.worse_omega(q1, obs, action, omega, config, world)
    value, grad_action = jax.value_and_grad(losses.policy_value, argnums=2)(
        q1, obs, action, omega, config, world
    )
    after = _climb(state, grad_action, pull_back, config)
    after = after.replace(
        nature=nature.descend(
            state.nature, q1, batch, action, config, world, nature_optimizer(config)
        )
    )
    if config.method == "rarl":  # in turns; `m3ddpg` moves both at once
        turn = nature.actor_has_turn(state.step - 1, config)
        pick = partial(jax.tree.map, lambda new, old: jnp.where(turn, new, old))
        after = state.replace(
            actor=pick(after.actor, state.actor),
            actor_opt=pick(after.actor_opt, state.actor_opt),
            nature=pick(state.nature, after.nature),
        )
    target = optax.incremental_update(after.nature.params, after.nature.target, config.tau)
    return after.replace(nature=after.nature.replace(target=target)), value


def _is(value: float | jax.Array, constant: float) -> bool:
    """Whether a number of the config is known to be that constant, so not one swept by vmap."""
    return isinstance(value, int | float) and value == constant


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
    return state.actor if _is(config.actor_mean_rate, 1.0) else state.mean_actor


def act(params: Params, obs: jax.Array, config: Config, world: World) -> jax.Array:
    """Greedy action `[..., A]` for observations `[..., O]`."""
    return networks.policy(params, config, world, obs)
