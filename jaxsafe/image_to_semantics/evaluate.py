# SPDX-License-Identifier: Apache-2.0
"""Scores: matching distance, label drift, and the return of pi(F(image)) in the target world."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.data.image_episodes import ImageEpisodes
from jaxsafe.image_to_semantics import (
    algorithm,
    augment,
    collect,
    controllers,
    networks,
    study,
    target,
    worlds,
)
from jaxsafe.image_to_semantics.collect import Recipe
from jaxsafe.image_to_semantics.config import Config
from jaxsafe.image_to_semantics.controllers import Controller
from jaxsafe.image_to_semantics.target import LEVELS
from jaxsafe.image_to_semantics.types import Range
from jaxsafe.image_to_semantics.worlds import World


class Policy(NamedTuple):
    """V translators of one seed and what acts on their semantics.

    Attributes:
      vae: parameters of the autoencoder.
      heads: of V predictors, leaves `[V, ...]`.
      range: of semantics.
      controller: a trained policy; None takes the world's own.
    """

    vae: Any
    heads: Any
    range: Range
    controller: Controller | None = None


class Transfer(NamedTuple):
    """What V agents did in B episodes each.

    Attributes:
      returns: `[V, B]`, undiscounted.
      distance: `[V]`, matching distance on the states that the agents themselves came to.
    """

    returns: np.ndarray
    distance: np.ndarray


def squared_errors(truth: np.ndarray, found: np.ndarray, range_: Range) -> np.ndarray:
    """Mean squared error of each normalised dimension over rows: `[N, S]` twice to `[S]`.

    The matching distance is their sum (page 2.4: a sum over dimensions, a mean over steps). Every
    observed step counts, the last of an episode included.
    """
    gap = (np.asarray(truth) - np.asarray(found)) / np.asarray(range_.width)
    return (gap**2).reshape(-1, gap.shape[-1]).mean(0)


@partial(jax.jit, static_argnums=(1,))
def _translate(
    policy: Policy, config: Config, images: jax.Array, stacks: jax.Array, key: jax.Array
):
    latents = algorithm.encode_rows(policy.vae, config, images, stacks)
    z = networks.sample(key, latents) if config.sample_latents else latents.mean
    return jax.vmap(lambda head: networks.predict(head, config, policy.range, z))(policy.heads)


def translate(policy: Policy, config: Config, data: ImageEpisodes, seed: int = 0) -> np.ndarray:
    """Semantics that V predictors see in every image of a data set, `[V, N, S]`."""
    std = np.ones(data.truth.shape[1])
    stacks = study.table(data, config.frames, std).stacks
    found = _translate(policy, config, jnp.asarray(data.images), stacks, jax.random.key(seed))
    return np.asarray(found)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _act(world: World, config: Config, gain: float, policy: Policy, images, key, before):
    """Actions `[V, B, A]` and estimates `[V, B, S]` for stacks `[V, B, F, 64, 64, 3]`.

    With a gain below 1 an estimate is the simulator's prediction from the one before, corrected by
    that share of the difference to what the image says.
    """
    number, batch = images.shape[:2]
    latents = networks.encode(policy.vae, config, images.reshape(-1, *images.shape[2:]))
    z = networks.sample(key, latents) if config.sample_latents else latents.mean
    z = z.reshape(number, batch, -1)
    size = len(policy.range.low)
    seen = jax.vmap(lambda h, x: networks.predict(h, config, policy.range, x))(policy.heads, z)
    if gain < 1 and before is not None:
        simulator = worlds.simulator(world)

        def predicted(semantics, action):
            return simulator.read(simulator.transition(simulator.place(semantics), action))

        flat = jax.vmap(predicted)(*(x.reshape(-1, x.shape[-1]) for x in before))
        expected = flat.reshape(number, batch, size)
        seen = expected + gain * (seen - expected)
    return controllers.control(world, policy.controller, jnp, seen), seen


def transfer(
    policy: Policy,
    config: Config,
    recipe: Recipe,
    episodes: int,
    gain: float = 1.0,
    keep: Callable[[int, np.ndarray, np.ndarray, np.ndarray], None] | None = None,
) -> Transfer:
    """Runs V agents pi(F(image)) in the target world.

    Args:
      policy: of one seed.
      config: static.
      recipe: names the world and the level; every agent gets the same starts and looks.
      episodes: B.
      gain: weight of the image against the simulator's prediction, in (0, 1]; the paper's is 1.
      keep: called at each step with it, images `[V, B, 64, 64, 3]`, and truth and estimates
        `[V, B, S]`.

    Raises:
      UserError: the world has no policy.
    """
    world, gap = worlds.make(recipe.world), LEVELS[recipe.level]
    controllers.check(world, policy.controller)
    number = len(jax.tree.leaves(policy.heads)[0])
    rngs = collect.generators(recipe, range(episodes))
    starts = [world.start(rng) for rng in rngs]
    some = target.looks(world, gap, rngs)
    qpos, qvel = (np.tile(np.stack(c), (number, 1)) for c in zip(*starts, strict=True))
    renderer = target.open_renderer(world, by=recipe.renderer)
    fleet = target.open_fleet(world, gap, qpos, qvel)
    episode, shape = np.tile(np.arange(episodes), number), (number, episodes)
    stack, before, errors = None, None, []
    try:
        for t in range(world.steps):
            images = renderer.draw(some, episode, np.full(len(episode), t), fleet.qpos)
            frame = images.reshape(*shape, 1, *images.shape[1:])
            stack = np.concatenate(
                [frame] * config.frames if stack is None else [frame, stack[:, :, :-1]], axis=2
            )
            key = jax.random.fold_in(jax.random.key(recipe.seed), t)
            actions, seen = _act(world, config, gain, policy, stack, key, before)
            truth = fleet.semantics.reshape(*shape, -1)
            errors.append(
                [squared_errors(a, b, policy.range).sum() for a, b in zip(truth, seen, strict=True)]
            )
            if keep:
                keep(t, images.reshape(*shape, *images.shape[1:]), truth, np.asarray(seen))
            before = (seen, actions) if gain < 1 else None
            fleet.step(np.asarray(actions).reshape(len(episode), -1))
    finally:
        fleet.close()
        renderer.close()
    return Transfer(fleet.returns.reshape(shape), np.mean(errors, axis=0))


def true_state_returns(
    recipe: Recipe, episodes: int, controller: Controller | None = None
) -> np.ndarray:
    """Returns `[B]` of a policy that sees true states in the target world.

    Args:
      recipe: names the world and the level; level 0 is the source's physics.
      episodes: B.
      controller: the policy; None takes the world's own.

    Raises:
      UserError: the world has no policy.
    """
    world, gap = worlds.make(recipe.world), LEVELS[recipe.level]
    controllers.check(world, controller)
    starts = [world.start(rng) for rng in collect.generators(recipe, range(episodes))]

    def act(t: int, semantics: np.ndarray) -> np.ndarray:
        return controllers.control(world, controller, np, semantics.astype(np.float64))

    return collect.play(world, gap, starts, act)


def normalised_return(value: Any, truth: float, behaviour: float) -> Any:
    """0 for random behaviour and 1 for the policy on true states, both in the target world.

    Raises:
      UserError: the two are equal.
    """
    if truth == behaviour:
        raise UserError(f"policy and behaviour both return {truth}: nothing can be told apart.")
    return (value - behaviour) / (truth - behaviour)


def label_drift(world: World, data: ImageEpisodes, std: np.ndarray) -> np.ndarray:
    """RMS error of replayed labels at each step, in standard deviations of semantics, `[T]`.

    Steps that no episode has are NaN.
    """
    table = study.table(data, 1, std)
    steps = table.rows.shape[1]
    roll = jax.jit(
        lambda start, actions, lengths: augment.roll_out(
            worlds.simulator(world), start, actions, lengths, steps
        )
    )
    labels = roll(table.truth[:, 0], table.actions, table.lengths)
    gap = np.asarray(augment.disagreement(labels.semantics, table.truth, table.std))
    mask = np.asarray(labels.mask)
    total, count = np.where(mask, gap, 0.0).sum(0), mask.sum(0)
    return np.sqrt(np.where(count > 0, total / np.maximum(count, 1), np.nan))
