# SPDX-License-Identifier: Apache-2.0
"""Rollout, store and update as one pure iteration: where M2TD3 meets its worlds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from jaxsafe.core.program import Stage
from jaxsafe.data import replay
from jaxsafe.envs import rollout
from jaxsafe.envs.types import Task, TaskState
from jaxsafe.envs.uncertainty import UncertaintySet
from jaxsafe.m2td3 import adversary, algorithm, networks, omegas
from jaxsafe.m2td3.algorithm import Metrics
from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.draws import Draws, draw, start_keys
from jaxsafe.m2td3.types import State, Transition, World, make_world

# Iterations whose random numbers are drawn at once: a few KiB each.
_DRAWN_AT_ONCE = 200


class Run(struct.PyTreeNode):
    """One seed's whole training state. N worlds."""

    learner: State
    buffer: replay.Buffer  # Transition leaves [capacity, ...]
    worlds: TaskState  # [N, ...]
    omega: jax.Array  # [N, D] normalised
    total: jax.Array  # [N] return of the running episodes
    last_return: jax.Array  # [] mean of the episodes that ended last
    episodes: jax.Array  # [] int32, episodes ended
    restarts: jax.Array  # [] int32, candidates restarted
    key: jax.Array


def world_of(task: Task, uncertainty: UncertaintySet) -> World:
    """Collects the constants that the update needs from a task and its set."""
    return make_world(
        task.obs_scale,
        task.action_low,
        task.action_high,
        uncertainty.low,
        uncertainty.high,
        uncertainty.nominal(task.model),
    )


def init(key: jax.Array, config: Config, task: Task, uncertainty: UncertaintySet) -> Run:
    """Returns one seed's training state before its first step. `key` is consumed."""
    key_learner, key_start, key = jax.random.split(key, 3)
    world = world_of(task, uncertainty)
    learner = algorithm.init(key_learner, config, world)
    draws = draw(key_start, jnp.int32(0), config, world)
    omega = omegas.of_episodes(draws, learner, jnp.int32(0), config)

    def start(omega: jax.Array, key: jax.Array, explore: jax.Array):
        model = uncertainty.apply(task.model, world.physical(omega))
        return rollout.start(task, model, key, explore)

    sizes = (task.obs_size, task.action_size, len(uncertainty.names))
    obs, action, params = (jnp.zeros((size,)) for size in sizes)
    example = Transition(obs, action, jnp.float32(0), jnp.float32(0), obs, params)
    return Run(
        learner=learner.replace(episode_length=jnp.float32(task.max_episode_steps)),
        buffer=replay.empty(example, config.replay_capacity),
        worlds=jax.vmap(start)(omega, start_keys(draws), draws.explore),
        omega=omega,
        total=jnp.zeros((config.num_envs,)),
        last_return=jnp.float32(0),
        episodes=jnp.int32(0),
        restarts=jnp.int32(0),
        key=key,
    )


def explore(
    draws: Draws, learner: State, obs: jax.Array, step: jax.Array, config: Config
) -> jax.Array:
    """Training actions `[N, A]`: uniform while warming up, then the policy with noise."""
    low, high = learner.world.action_low, learner.world.action_high
    action = networks.policy(learner.actor, config, learner.world, obs)
    noise = config.exploration_noise * (high - low) / 2 * draws.action_noise
    uniform = low + (high - low) * draws.random_action
    return jnp.where(step < config.warmup_steps, uniform, jnp.clip(action + noise, low, high))


def _models(omega: jax.Array, world: World, task: Task, uncertainty: UncertaintySet):
    """The axes for `vmap` and the models of worlds with normalised omegas `[N, D]`."""
    models, axes = uncertainty.batched(task.model, world.physical(omega))
    return axes, models


def collect(
    draws: Draws,
    run: Run,
    step: jax.Array,
    config: Config,
    task: Task,
    uncertainty: UncertaintySet,
) -> Run:
    """Steps every world once, stores what happened, and starts anew the worlds that ended."""
    world = run.learner.world
    axes, models = _models(run.omega, world, task, uncertainty)
    obs = jax.vmap(task.observe, in_axes=(axes, 0))(models, run.worlds)
    action = explore(draws, run.learner, obs, step, config)
    omega = omegas.of_step(draws, run.learner, run.omega, obs, step, config)
    if config.has_nature:
        axes, models = _models(omega, world, task, uncertainty)
    stepped, ts = jax.vmap(task.step, in_axes=(axes, 0, 0))(models, run.worlds, action)
    if config.episode_steps:
        ts = ts._replace(truncated=ts.truncated | (stepped.steps >= config.episode_steps))
    ended = ts.terminated | ts.truncated
    final = ts.terminated if config.bootstrap_truncation else ended
    seen = algorithm.omega_for_critic(omega, config)
    items = Transition(obs, action, ts.reward, config.gamma * (1.0 - final), ts.obs, seen)
    run = run.replace(buffer=replay.write(run.buffer, items, step * config.num_envs))

    total = run.total + ts.reward
    count = jnp.sum(ended)
    mean = lambda x: jnp.sum(jnp.where(ended, x, 0.0)) / jnp.maximum(count, 1)  # noqa: E731
    learner = run.learner.replace(
        episode_length=jnp.where(count > 0, mean(stepped.steps), run.learner.episode_length)
    )
    learner, restarts = omegas.restart_candidates(learner, step, count > 0, config)
    learner = omegas.check_candidates(learner, step, config, task, uncertainty)
    fresh = omegas.of_episodes(draws, learner, step, config)
    renewed = ended | draws.omega_redraw if config.redraws else ended
    omega = jnp.where(renewed[:, None], fresh, omega)
    axes, models = _models(omega, world, task, uncertainty)
    reset = jax.vmap(partial(rollout.auto_reset, task), in_axes=(axes, 0, 0, 0, 0))
    return run.replace(
        learner=learner,
        worlds=reset(models, stepped, ts, start_keys(draws), draws.explore),
        omega=omega,
        total=jnp.where(ended, 0.0, total),
        last_return=jnp.where(count > 0, mean(total), run.last_return),
        episodes=run.episodes + count,
        restarts=run.restarts + restarts,
    )


def learn(
    draws: Draws, learner: State, buffer: replay.Buffer, step: jax.Array, config: Config
) -> tuple[State, Metrics]:
    """The iteration's updates on fresh minibatches, `updates_per_step` critic steps in all."""
    updates, delay = config.updates_per_step, config.policy_delay
    batch, noise = replay.take(buffer, draws.places), draws.smoothing
    metrics: Metrics = {}
    if updates % delay == 0:
        for i in range(0, updates, delay):
            block = jax.tree.map(lambda x, i=i: x[i : i + delay], batch)
            learner, metrics = algorithm.update_with(noise[i : i + delay], learner, block, config)
        return learner, metrics
    for i in range(updates):
        minibatch = jax.tree.map(lambda x, i=i: x[i], batch)
        learner, metrics = algorithm.critic_step(learner, minibatch, noise[i], config)
    # `step` is the same for every seed, so under vmap this stays a branch.
    learner, actor_metrics = lax.cond(
        _actor_is_due(step, config),
        lambda s: algorithm.actor_step(s, minibatch, config),
        lambda s: (s, {"actor/value": jnp.float32(0)}),
        learner,
    )
    return learner, metrics | actor_metrics


def _actor_is_due(step: jax.Array, config: Config) -> jax.Array:
    updates, delay = config.updates_per_step, config.policy_delay
    return ((step + 1) * updates) % delay < updates if updates < delay else step == step


def iterate(
    draws: Draws,
    run: Run,
    step: jax.Array,
    config: Config,
    task: Task,
    uncertainty: UncertaintySet,
) -> tuple[Run, Metrics]:
    """One iteration: `num_envs` environment steps, then `updates_per_step` critic updates.

    `step` `[]` is the iteration's number, one for all seeds, and `draws` are those of
    `draw(run.key, step, ...)`. Metrics are 0 while warming up.
    """
    run = collect(draws, run, step, config, task, uncertainty)

    def updated(learner: State) -> tuple[State, Metrics]:
        return learn(draws, learner, run.buffer, step, config)

    def idle(learner: State) -> tuple[State, Metrics]:
        shapes = jax.eval_shape(updated, learner)[1]
        return learner, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    learner, metrics = lax.cond(step >= config.warmup_steps, updated, idle, run.learner)
    return run.replace(learner=learner), metrics


def chunk(
    run: Run,
    first: jax.Array,
    length: int,
    config: Config,
    task: Task,
    uncertainty: UncertaintySet,
) -> tuple[Run, Metrics]:
    """Iterations `first` to `first + length - 1` in one program, and what they were like.

    Returns:
      the state, and scalars: means over the chunk's updates of the losses' metrics, and the last
      values of `rollout/*`, `omega/*` (candidates in physical units) and `params/norm`.
    """

    def block(run: Run, steps: jax.Array) -> tuple[Run, Metrics]:
        draws = jax.vmap(lambda step: draw(run.key, step, config, run.learner.world))(steps)
        one = lambda r, x: iterate(x[1], r, x[0], config, task, uncertainty)  # noqa: E731
        return lax.scan(one, run, (steps, draws))

    steps = first + jnp.arange(length)
    size = max(n for n in range(1, min(length, _DRAWN_AT_ONCE) + 1) if length % n == 0)
    run, traced = lax.scan(block, run, steps.reshape(-1, size))
    active = steps >= config.warmup_steps

    def mean(name: str, values: jax.Array) -> jax.Array:
        weight = active & _actor_is_due(steps, config) if name.startswith("actor/") else active
        return jnp.sum(values.ravel() * weight) / jnp.maximum(jnp.sum(weight), 1)

    metrics = {name: mean(name, values) for name, values in traced.items()}
    return run, metrics | _snapshot(run, config, uncertainty)


def _snapshot(run: Run, config: Config, uncertainty: UncertaintySet) -> Metrics:
    learner = run.learner
    metrics = {
        "rollout/return": run.last_return,
        "rollout/episodes": run.episodes,
        "params/norm": optax.tree.norm((learner.actor, learner.critic)),
    }
    if not config.has_candidates:
        return metrics
    metrics["omega/restarts"] = run.restarts
    candidates = learner.world.physical(adversary.omegas(learner.candidates, learner.world))
    for k in range(config.num_candidates):
        metrics[f"omega/{k}/probability"] = learner.candidates.probs[k]
        for d, name in enumerate(uncertainty.names):
            metrics[f"omega/{k}/{name}"] = candidates[k, d]
    return metrics


def stage(
    name: str,
    config: Config,
    task: Task,
    uncertainty: UncertaintySet,
    result: Callable[[Run], Any],
) -> Stage:
    """A whole training as a stage of a binary; `result` is what it leaves, from its last state."""
    return Stage(
        name=name,
        init=lambda key: init(key, config, task, uncertainty),
        chunk=lambda run, first, n: chunk(run, first, n, config, task, uncertainty),
        num_steps=config.total_steps,
        parameters=lambda run: (run.learner.actor, run.learner.critic),
        result=result,
        units_per_step=config.num_envs,
    )
