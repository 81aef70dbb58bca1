# SPDX-License-Identifier: Apache-2.0
"""Which omegas the training worlds get, and how candidates are renewed between updates."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.envs import rollout
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet
from jaxsafe.m2td3 import adversary, algorithm, nature
from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.draws import Draws
from jaxsafe.m2td3.types import Candidates, Params, State, World


def of_episodes(draws: Draws, learner: State, step: jax.Array, config: Config) -> jax.Array:
    """Normalised omegas `[N, D]` of new episodes, by method."""
    world, uniform = learner.world, draws.omega_uniform * learner.world.omega_varies
    if config.method == "td3":
        return jnp.broadcast_to(world.omega_nominal, uniform.shape)
    if not config.has_candidates:
        return uniform
    noise = jnp.float32(config.omega_noise)
    if config.anneal_omega_noise:
        learned = jnp.maximum(step - config.warmup_steps, 0)
        fraction = jnp.minimum(learned / ((config.total_steps - config.warmup_steps) / 2), 1.0)
        noise = config.omega_noise + (config.omega_noise_end - config.omega_noise) * fraction
    chosen = adversary.training_omegas(draws, learner.candidates, noise, config, world)
    return jnp.where(step < config.warmup_steps, uniform, chosen)


def of_step(
    draws: Draws,
    learner: State,
    omega: jax.Array,
    obs: jax.Array,
    step: jax.Array,
    config: Config,
) -> jax.Array:
    """Normalised omegas `[N, D]` of the next step: the episodes' `[N, D]`, or nature's choice."""
    if not config.has_nature:
        return omega
    world = learner.world
    chosen = nature.explore(draws.omega_noise, learner.nature, obs, config, world)
    uniform = draws.omega_uniform * world.omega_varies
    return jnp.where(step < config.warmup_steps, uniform, chosen)


def restart_candidates(
    learner: State, step: jax.Array, any_ended: jax.Array, config: Config
) -> tuple[State, jax.Array]:
    """Restarts candidates where the schedule says so; returns how many."""
    if not config.has_candidates:
        return learner, jnp.int32(0)
    due = step % config.restart_interval == 0 if config.restart_interval else any_ended
    due &= step >= config.warmup_steps
    _, _, omega_tx = algorithm.optimizers(config)
    key = jax.random.fold_in(learner.key, step)
    # On a schedule `due` is the same for every seed, and this stays a branch under vmap.
    candidates, restarts = lax.cond(
        due,
        lambda c: adversary.restart(key, c, config, learner.world, omega_tx),
        lambda c: (c, jnp.int32(0)),
        learner.candidates,
    )
    return learner.replace(candidates=candidates), restarts


def check_candidates(
    learner: State, step: jax.Array, config: Config, task: Task, uncertainty: UncertaintySet
) -> State:
    """Lets rollouts of the scored actor choose the candidates, every `check_interval` iterations.

    The K candidates and `check_omegas` uniform ones run one episode each from the same start; the
    K of least return, no two within `check_distance`, are the candidates from then on. Q may err
    about which omega is worst, and its candidates then defend the wrong place. The distance is to
    keep several places at once: were all candidates at the one that is worst now, the actor would
    run back and forth between two.
    """
    if not (config.plus and config.check_interval):
        return learner
    due = (step % config.check_interval == 0) & (step >= config.warmup_steps)
    key = jax.random.fold_in(jax.random.fold_in(learner.key, step), 1)

    def check(candidates: Candidates) -> Candidates:
        key_pool, key_start = jax.random.split(key)
        shape = (config.check_omegas, learner.world.omega_low.shape[0])
        uniform = jax.random.uniform(key_pool, shape, minval=-1.0, maxval=1.0)
        own = adversary.omegas(candidates, learner.world)
        pool = jnp.concatenate([own, uniform * learner.world.omega_varies])
        actor = algorithm.scored_actor(learner, config)
        returns = _returns(key_start, actor, learner.world, pool, config, task, uncertainty)
        chosen = adversary.least(returns, pool, config.num_candidates, config.check_distance)
        _, _, omega_tx = algorithm.optimizers(config)
        return adversary.moved(candidates, pool, chosen, omega_tx)

    return learner.replace(candidates=lax.cond(due, check, lambda c: c, learner.candidates))


def _returns(
    key: jax.Array,
    actor: Params,
    world: World,
    omegas: jax.Array,
    config: Config,
    task: Task,
    uncertainty: UncertaintySet,
) -> jax.Array:
    """Returns `[N]` of one episode at each normalised omega `[N, D]`, all from the same start."""
    models, axes = uncertainty.batched(task.model, world.physical(omegas))
    length = config.check_steps or task.max_episode_steps

    def one(model) -> jax.Array:
        act = lambda obs: algorithm.act(actor, obs, config, world)  # noqa: E731
        return rollout.episode_return(task, act, model, task.reset(model, key), length)[0]

    return jax.vmap(one, in_axes=(axes,))(models)
