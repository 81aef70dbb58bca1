# SPDX-License-Identifier: Apache-2.0
""" "Real" worlds: a task in MuJoCo C with other physics, seen through a camera in other light.

Four published levels say how far a target is from its source. MuJoCo C solves the equations that
MJX solves, so none of them is real. Level 3 is for the last report: nothing is tuned on it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from jaxsafe.core.checks import UserError, check_choice, check_range
from jaxsafe.envs import batch_renderer, raycaster, scenes
from jaxsafe.envs.batch_renderer import BatchRenderer
from jaxsafe.envs.offscreen import Offscreen
from jaxsafe.envs.raycaster import Camera, Poses, Scene
from jaxsafe.image_to_semantics import games
from jaxsafe.image_to_semantics.fleet import LEVELS, Fleet, Gap, physics
from jaxsafe.image_to_semantics.games import GameFleet, GameRenderer
from jaxsafe.image_to_semantics.worlds import World

__all__ = ["LEVELS", "Fleet", "Gap", "Looks", "Renderer", "look", "looks", "physics"]
__all__ += ["open_fleet", "open_renderer"]

RENDERERS = ("raycaster", "mujoco", "mjx")
BLOCK = 128  # images that one call draws at most
_KERNEL = (0.25, 0.5, 0.25)


class Looks(NamedTuple):
    """What stays the same in an episode: leaves `[E, ...]`, and `[E]` where no shape is given.

    Attributes:
      scene: geoms, the last of them a distractor where the gap has a look.
      camera: before it follows anything.
      distractor: `[E, 3]` its place.
      noise: standard deviation of pixels.
      blur: share of the blurred image that is mixed in.
      seed: of the pixels' noise.
    """

    scene: Scene
    camera: Camera
    distractor: np.ndarray
    noise: np.ndarray
    blur: np.ndarray
    seed: np.ndarray


def look(world: World, gap: Gap, rng: np.random.Generator) -> Looks:
    """Draws how one episode looks, without the axis E."""
    model = world.task.host.model
    scene = jax.tree.map(np.asarray, scenes.scene_of(model, world.square, world.dark))
    camera = jax.tree.map(np.asarray, world.eye)
    seed = np.asarray(rng.integers(2**32), np.uint32)
    if not gap.look:
        return Looks(scene, camera, np.zeros(3, np.float32), _float(0), _float(0), seed)
    colours = np.clip(scene.colour * rng.uniform(0.85, 1.15, (len(scene.kinds), 1, 3)), 0, 1)
    light = np.asarray(scene.light) + rng.normal(size=3) * 0.25
    ball = rng.uniform(0.1, 0.9, 3)
    scene = scene.replace(
        kinds=(*scene.kinds, "sphere"),
        size=np.vstack([scene.size, [0.05, 0, 0]]).astype(np.float32),
        colour=np.concatenate([colours, np.tile(ball, (1, 2, 1))]).astype(np.float32),
        square=np.append(scene.square * rng.uniform(0.8, 1.25), 0).astype(np.float32),
        light=(light / np.linalg.norm(light)).astype(np.float32),
        ambient=_float(rng.uniform(0.3, 0.5)),
        sky=np.clip(scene.sky * rng.uniform(0.8, 1.1, 3), 0, 1).astype(np.float32),
    )
    turn = _small_rotation(rng.normal(size=3) * 0.01) @ camera.rotation
    place = camera.position + rng.normal(size=3) * 0.015
    angle = rng.uniform(0, 2 * np.pi)
    aside = 0.9 * np.array([np.cos(angle), 0 if world.tracks else np.sin(angle), 0.1])
    return Looks(
        scene,
        Camera(place.astype(np.float32), turn.astype(np.float32), camera.fovy),
        (aside + np.array([0, 0.3 * world.tracks, 0])).astype(np.float32),
        _float(0.02),
        _float(rng.uniform(0.0, 0.5)),
        seed,
    )


def _float(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def _small_rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation `[3, 3]` by `angles` (rad) about x, y and z; small, so that order hardly matters."""
    quaternion = np.zeros(4)
    length = np.linalg.norm(angles)
    mujoco.mju_axisAngle2Quat(quaternion, angles / max(length, 1e-12), length)
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def looks(world: World, gap: Gap, rngs: list[np.random.Generator]) -> Any:
    """Draws how episodes look, one for each generator: `Looks`, or `games.GameLooks`."""
    game = world.task.host is None
    each = [games.look(gap, rng) if game else look(world, gap, rng) for rng in rngs]
    return jax.tree.map(lambda *x: np.stack(x), *each)


@functools.partial(jax.jit, static_argnums=(6,))
def _draw(
    some: Looks,
    episode: jax.Array,
    position: jax.Array,
    rotation: jax.Array,
    along: jax.Array,
    step: jax.Array,
    size: tuple[int, int],
) -> jax.Array:
    """Draws rows of (episode, pose, camera's x, step) as uint8."""

    def one(e, where, turn, x, t):
        mine: Looks = jax.tree.map(lambda leaf: leaf[e], some)
        if len(mine.scene.kinds) > len(where):  # the distractor comes last
            where = jnp.concatenate([where, mine.distractor[None]])
            turn = jnp.concatenate([turn, jnp.eye(3)[None]])
        camera = mine.camera.replace(position=mine.camera.position.at[0].add(x))
        return _exposed(mine, raycaster.render(mine.scene, Poses(where, turn), camera, size), t)

    return jax.vmap(one)(episode, position, rotation, along, step)


def _exposed(mine: Looks, image: jax.Array, t: jax.Array) -> jax.Array:
    """An image `[H, W, 3]` in [0, 1] with its episode's blur and its step's noise, as uint8."""
    image = image + mine.blur * (_blurred(image) - image)
    key = jax.random.fold_in(jax.random.key(mine.seed), t)
    return raycaster.to_bytes(image + mine.noise * jax.random.normal(key, image.shape))


@jax.jit
def expose(some: Looks, episode: jax.Array, step: jax.Array, images: jax.Array) -> jax.Array:
    """Blurs images `[N, H, W, 3]` uint8 and adds noise, as the episodes' looks say."""

    def one(e, t, image):
        mine: Looks = jax.tree.map(lambda leaf: leaf[e], some)
        return _exposed(mine, image.astype(jnp.float32) / 255, t)

    return jax.vmap(one)(episode, step, images)


def _blurred(image: jax.Array) -> jax.Array:
    """Weights 1/4, 1/2, 1/4 along both axes; the edge is repeated past itself."""
    # As products of matrices: XLA would draw the image once for each shifted copy of it.
    down, across = (jnp.asarray(_blur_matrix(n)) for n in image.shape[:2])
    return jnp.einsum("hi,iwc->hwc", down, jnp.einsum("wj,ijc->iwc", across, image))


def _blur_matrix(n: int) -> np.ndarray:
    eye = np.eye(n, dtype=np.float32)
    shifted = [eye[np.clip(np.arange(n) + k, 0, n - 1)] for k in (-1, 0, 1)]
    return np.tensordot(np.asarray(_KERNEL, np.float32), shifted, axes=1)


class Renderer:
    """Draws states of a target world, and keeps no state but scratch memory; `close` it at the end.

    Raises:
      UserError: a size below 1, an unknown renderer, OpenGL is missing for "mujoco", or
        warp-lang for "mjx".
    """

    def __init__(self, world: World, size: tuple[int, int] = (64, 64), by: str = "raycaster"):
        check_range("image size", min(size), low=1)
        check_choice("renderer", by, RENDERERS)
        self.world, self.size = world, size
        self._gl = Offscreen(world.task.host.model, size) if by == "mujoco" else None
        self._by = by
        self._batch: BatchRenderer | None = None
        if by == "mjx":
            batch_renderer.check_installed()
        self._model = world.task.host.model
        self._data = mujoco.MjData(self._model)
        self._geoms = scenes.visible_geoms(self._model)

    def poses(self, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places `[N, G, 3]` and rotations `[N, G, 3, 3]` of geoms at positions `[N, nq]`."""
        places = np.empty((len(qpos), len(self._geoms), 3), np.float32)
        turns = np.empty((*places.shape, 3), np.float32)
        for i, q in enumerate(qpos):
            self._data.qpos[:] = q
            mujoco.mj_kinematics(self._model, self._data)
            posed = scenes.poses_of(self._data, self._geoms)
            places[i], turns[i] = posed.position, posed.rotation
        return places, turns

    def draw(
        self, some: Looks, episode: np.ndarray, step: np.ndarray, qpos: np.ndarray
    ) -> np.ndarray:
        """Draws N states, `[N, H, W, 3]` uint8.

        Args:
          some: how the episodes look.
          episode: `[N]` index into `some`.
          step: `[N]` step of the episode, which settles the noise.
          qpos: `[N, nq]`.
        """
        if self._gl is not None:
            return self._draw_by_gl(self._gl, some, episode, step, qpos)
        if self._by == "mjx":
            return self._draw_by_mjx(some, episode, step, qpos)
        places, turns = self.poses(qpos)
        along = (qpos[:, 0] if self.world.tracks else np.zeros(len(qpos))).astype(np.float32)
        columns = (episode.astype(np.int32), places, turns, along, step.astype(np.int32))
        images = np.empty((len(qpos), *self.size, 3), np.uint8)
        block = min(BLOCK, 1 << (len(qpos) - 1).bit_length())
        for first in range(0, len(qpos), block):
            rows = np.arange(first, first + block) % len(qpos)  # filled up: few compilations
            kept = min(block, len(qpos) - first)
            drawn = _draw(some, *(c[rows] for c in columns), self.size)
            images[first : first + kept] = np.asarray(drawn)[:kept]
        return images

    def _draw_by_gl(
        self, gl: Offscreen, some: Looks, episode: np.ndarray, step: np.ndarray, qpos: np.ndarray
    ) -> np.ndarray:
        images = np.empty((len(qpos), *self.size, 3), np.uint8)
        for i, (e, q) in enumerate(zip(episode, qpos, strict=True)):
            mine: Looks = jax.tree.map(lambda leaf, e=e: leaf[e], some)
            along = np.array([q[0] if self.world.tracks else 0, 0, 0], np.float32)
            camera = mine.camera.replace(position=mine.camera.position + along)
            more = len(mine.scene.kinds) > len(self._geoms)
            images[i] = gl.draw(q, mine.scene, camera, mine.distractor[None] if more else None)
        for first in range(0, len(qpos), BLOCK):
            part = slice(first, first + BLOCK)
            images[part] = expose(some, episode[part], step[part], images[part])
        return images

    def _draw_by_mjx(
        self, some: Looks, episode: np.ndarray, step: np.ndarray, qpos: np.ndarray
    ) -> np.ndarray:
        extra = len(some.scene.kinds) - len(self._geoms)
        if self._batch is None:  # one size of batch for all, as each is compiled for half a minute
            fovy, spec = float(self.world.eye.fovy), self.world.task.host.spec
            self._batch = BatchRenderer(spec, self.size, fovy, BLOCK, extra)
        places, turns = self.poses(qpos)
        along = np.zeros((len(qpos), 3), np.float32)
        along[:, 0] = qpos[:, 0] * self.world.tracks
        images = np.empty((len(qpos), *self.size, 3), np.uint8)
        for first in range(0, len(qpos), BLOCK):
            rows = np.arange(first, first + BLOCK) % len(qpos)
            mine: Looks = jax.tree.map(lambda leaf, rows=rows: leaf[episode[rows]], some)
            camera = mine.camera.replace(position=mine.camera.position + along[rows])
            where, turn = places[rows], turns[rows]
            if extra:
                where = np.concatenate([where, mine.distractor[:, None]], axis=1)
                flat = np.broadcast_to(np.eye(3, dtype=np.float32), (BLOCK, 1, 3, 3))
                turn = np.concatenate([turn, flat], axis=1)
            posed = Poses(jnp.asarray(where), jnp.asarray(turn))
            drawn = self._batch.draw(mine.scene, posed, camera)
            drawn = expose(some, episode[rows], step[rows], drawn)
            kept = min(BLOCK, len(qpos) - first)
            images[first : first + kept] = np.asarray(drawn)[:kept]
        return images

    def close(self) -> None:
        """Gives OpenGL's context back, where there is one."""
        if self._gl is not None:
            self._gl.close()


def open_renderer(
    world: World, size: tuple[int, int] = (64, 64), by: str = "raycaster"
) -> Renderer | GameRenderer:
    """What draws a target world; `close` it at the end.

    Raises:
      UserError: as `Renderer`, or OpenGL is asked to draw a game.
    """
    if world.task.host is not None:
        return Renderer(world, size, by)
    if by != "raycaster":
        raise UserError(f"renderer={by!r} draws bodies, and {world.name} is a game: leave it out.")
    return GameRenderer(size)


def open_fleet(world: World, gap: Gap, qpos: np.ndarray, qvel: np.ndarray) -> Fleet | GameFleet:
    """Episodes of a target world from starts `[B, nq]`, `[B, nv]`; `close` them at the end."""
    return GameFleet(world, qpos) if world.task.host is None else Fleet(world, gap, qpos, qvel)
