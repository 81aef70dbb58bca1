# SPDX-License-Identifier: Apache-2.0
"""Target worlds that are games on a grid: the source's rules, shown in pixels with other looks.

A state is its semantics `[S]`, which stand in for positions; there are no velocities. gymnax steps
source and target alike, so no gap has other physics.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.envs import minatar, raycaster
from jaxsafe.image_to_semantics.mjcf import Gap
from jaxsafe.image_to_semantics.worlds import World

# Of the ground, bricks, ball and paddle.
_COLOURS = np.array([[0.08, 0.08, 0.1], [0.75, 0.35, 0.2], [0.95, 0.9, 0.3], [0.2, 0.7, 0.9]])


class GameLooks(NamedTuple):
    """What stays the same in an episode, leaves `[E, ...]`.

    Attributes:
      colours: `[E, 4, 3]` of ground, bricks, ball and paddle.
      shift: `[E, 2]` pixels by which the picture is moved down and right.
      noise: `[E]` standard deviation of pixels.
      seed: `[E]` of the noise.
    """

    colours: np.ndarray
    shift: np.ndarray
    noise: np.ndarray
    seed: np.ndarray


def look(gap: Gap, rng: np.random.Generator) -> GameLooks:
    """Draws how one episode looks, without the axis E."""
    seed = np.asarray(rng.integers(2**32), np.uint32)
    colours, shift, noise = _COLOURS, np.zeros(2), 0.0
    if gap.look:
        colours = np.clip(colours * rng.uniform(0.75, 1.25, (4, 3)), 0, 1)
        shift, noise = rng.uniform(-1.5, 1.5, 2), 0.02
    single = colours.astype(np.float32), shift.astype(np.float32)
    return GameLooks(*single, np.asarray(noise, np.float32), seed)


@functools.partial(jax.jit, static_argnums=(4,))
def _draw(some: GameLooks, episode, step, semantics, size: tuple[int, int]) -> jax.Array:
    def one(e, t, s):
        mine: GameLooks = jax.tree.map(lambda leaf: leaf[e], some)
        kinds = jnp.zeros((minatar.CELLS, minatar.CELLS), jnp.int32)
        bricks = s[6:].reshape(-1, minatar.CELLS).astype(jnp.int32)
        kinds = kinds.at[slice(*minatar.BRICKS)].set(bricks)
        column, row, paddle = (s[i].astype(jnp.int32) for i in (0, 1, 4))
        kinds = kinds.at[minatar.CELLS - 1, paddle].set(3).at[row, column].set(2)
        places = [
            jnp.floor((jnp.arange(n) + 0.5 - shift) * minatar.CELLS / n).astype(jnp.int32)
            for n, shift in zip(size, mine.shift, strict=True)
        ]
        down, across = (jnp.clip(p, 0, minatar.CELLS - 1) for p in places)
        key = jax.random.fold_in(jax.random.key(mine.seed), t)
        image = mine.colours[kinds[down][:, across]]
        return raycaster.to_bytes(image + mine.noise * jax.random.normal(key, image.shape))

    return jax.vmap(one)(episode, step, semantics)


class GameRenderer:
    """Draws states of a game; `draw` and `close` as `target.Renderer`."""

    def __init__(self, size: tuple[int, int] = (64, 64)):
        self.size = size

    def draw(
        self, some: GameLooks, episode: np.ndarray, step: np.ndarray, qpos: np.ndarray
    ) -> np.ndarray:
        """Draws N states `[N, S]`: images `[N, H, W, 3]` uint8."""
        rows = 1 << (len(qpos) - 1).bit_length()  # filled up: few compilations
        filled = np.arange(rows) % len(qpos)
        columns = episode.astype(np.int32), step.astype(np.int32), qpos.astype(np.float32)
        return np.asarray(_draw(some, *(c[filled] for c in columns), self.size))[: len(qpos)]

    def close(self) -> None:
        """Nothing is held."""


@functools.partial(jax.jit, static_argnums=(0,))
def _advance(world: World, semantics: jax.Array, actions: jax.Array):
    def one(s, action):
        state, timestep = world.task.step(world.task.model, world.place(jnp, s), action)
        return world.task.observe(world.task.model, state), timestep.reward, timestep.terminated

    return jax.vmap(one)(semantics, actions)


class GameFleet:
    """B episodes of a game side by side; attributes as `fleet.Fleet`, without velocities."""

    def __init__(self, world: World, qpos: np.ndarray):
        self._world = world
        self.qpos, self.qvel = qpos.copy(), np.zeros((len(qpos), 0))
        self.alive, self.returns = np.ones(len(qpos), bool), np.zeros(len(qpos))

    @property
    def semantics(self) -> np.ndarray:
        """True semantics `[B, S]`."""
        return self.qpos.astype(np.float32)

    def step(self, actions: np.ndarray) -> None:
        """Takes one step with `actions` `[B, 1]`."""
        columns = jnp.asarray(self.semantics), jnp.asarray(actions, jnp.float32)
        after, reward, ended = map(np.asarray, _advance(self._world, *columns))
        self.returns += np.where(self.alive, reward, 0.0)
        self.qpos = np.where(self.alive[:, None], after, self.qpos)
        self.alive = self.alive & ~ended

    def close(self) -> None:
        """Nothing is held."""
