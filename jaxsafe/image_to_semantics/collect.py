# SPDX-License-Identifier: Apache-2.0
"""Offline data of a target world: images, actions and ends, drawn in several processes."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxsafe.core.checks import check_range
from jaxsafe.data import image_episodes
from jaxsafe.data.image_episodes import ImageEpisodes
from jaxsafe.image_to_semantics import target, worlds
from jaxsafe.image_to_semantics.target import LEVELS


class Recipe(NamedTuple):
    """What settles a data set; episode i depends on it and on i alone.

    Attributes:
      world: name.
      level: of the gap, an index into `target.LEVELS`.
      seed: of starts, actions and looks; starts and actions are the same at every level.
      renderer: one of `target.RENDERERS`.
    """

    world: str
    level: int
    seed: int
    renderer: str = "raycaster"


def generators(recipe: Recipe, episodes: range | list[int]) -> list[np.random.Generator]:
    """One generator per episode."""
    return [np.random.default_rng([recipe.seed, i]) for i in episodes]


def collect(
    recipe: Recipe, episodes: int, processes: int = 1, size: tuple[int, int] = (64, 64)
) -> ImageEpisodes:
    """Runs random behaviour in a target world and draws what a camera sees.

    Args:
      recipe: what data.
      episodes: E.
      processes: side by side; the data do not depend on it. More than one are started afresh, so a
        script must guard its own start by `__name__`.
      size: H and W of images.

    Raises:
      UserError: a number is below 1, the level is not in 0 to 3, or the world is unknown.
    """
    check_range("episodes", episodes, low=1)
    check_range("processes", processes, low=1)
    check_range("level", recipe.level, low=0, high=len(LEVELS) - 1)
    worlds.make(recipe.world)  # an unknown name is refused here, and not in each process
    worlds.check_level(recipe.world, recipe.level)
    parts = np.array_split(np.arange(episodes), min(processes, episodes))
    if len(parts) == 1:
        return _collect(recipe, list(range(episodes)), size)
    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(len(parts), fresh) as pool:
        jobs = [pool.submit(_collect, recipe, part.tolist(), size) for part in parts]
        return image_episodes.join([job.result() for job in jobs])


def _collect(recipe: Recipe, episodes: list[int], size: tuple[int, int]) -> ImageEpisodes:
    world, gap = worlds.make(recipe.world), LEVELS[recipe.level]
    rngs = generators(recipe, episodes)
    starts = [world.start(rng) for rng in rngs]
    actions = _actions(world, rngs, starts)
    some = target.looks(world, gap, rngs)
    qpos, truth, lengths = _drive(world, gap, starts, actions)
    steps = np.arange(world.steps)
    episode, step = np.nonzero(steps < lengths[:, None])
    renderer = target.open_renderer(world, size, recipe.renderer)
    try:
        images = renderer.draw(some, episode, step, qpos[episode, step])
    finally:
        renderer.close()
    columns = {
        "images": images,
        "actions": actions[episode, step],
        "ends": step == lengths[episode] - 1,
        "truth": truth[episode, step],
    }
    limits = {"action_low": world.task.action_low, "action_high": world.task.action_high}
    return image_episodes.build(columns, f"behaviour in {recipe.world}", size, **limits)


def _actions(world: worlds.World, rngs: list, starts: list) -> np.ndarray:
    """Behaviour of each episode, `[E, T, A]`."""
    each = zip(rngs, starts, strict=True)
    return np.stack([worlds.behaviour(rng, world, qpos, world.steps) for rng, (qpos, _) in each])


def _drive(
    world: worlds.World, gap: target.Gap, starts: list, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs actions `[E, T, A]` open loop; returns `[E, T, nq]`, semantics `[E, T, S]`, lengths."""
    qpos, qvel = (np.stack(column) for column in zip(*starts, strict=True))
    fleet = target.open_fleet(world, gap, qpos, qvel)
    places, truth, alive = [fleet.qpos], [fleet.semantics], [fleet.alive]
    try:
        for t in range(world.steps - 1):
            fleet.step(actions[:, t])
            places.append(fleet.qpos)
            truth.append(fleet.semantics)
            alive.append(fleet.alive)
    finally:
        fleet.close()
    # The image of the state in which an episode ends is kept: it is its last.
    lengths = np.minimum(np.stack(alive).sum(0) + 1, world.steps)
    return np.stack(places, 1), np.stack(truth, 1), lengths


def behaviour_returns(recipe: Recipe, episodes: int) -> np.ndarray:
    """What random behaviour earns in the target world, `[E]`."""
    world, gap = worlds.make(recipe.world), LEVELS[recipe.level]
    rngs = generators(recipe, range(episodes))
    starts = [world.start(rng) for rng in rngs]
    actions = _actions(world, rngs, starts)
    return play(world, gap, starts, lambda t, _: actions[:, t])


def play(
    world: worlds.World,
    gap: target.Gap,
    starts: list,
    act: Callable[[int, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Returns `[E]` of whole episodes in the target world.

    Args:
      world: any.
      gap: of the target to it.
      starts: E pairs `(qpos [nq], qvel [nv])`, as from `world.start`.
      act: `(t, semantics [E, S]) -> actions [E, A]`.
    """
    qpos, qvel = (np.stack(column) for column in zip(*starts, strict=True))
    fleet = target.open_fleet(world, gap, qpos, qvel)
    try:
        for t in range(world.steps):
            fleet.step(act(t, fleet.semantics))
    finally:
        fleet.close()
    return fleet.returns
