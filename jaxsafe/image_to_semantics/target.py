# SPDX-License-Identifier: Apache-2.0
""" "Real" worlds: a task in MuJoCo C with other physics, seen through a camera in other light.

Four published levels say how far a target is from its source. MuJoCo C solves the equations that
MJX solves, so none of them is real. Level 3 is for the last report: nothing is tuned on it.
"""

import copy
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from jaxsafe.core.checks import check_range
from jaxsafe.envs import host_steps, raycaster, scenes
from jaxsafe.envs.raycaster import Camera, Poses, Scene
from jaxsafe.image_to_semantics.worlds import World

BLOCK = 128  # images that one call draws at most
_KERNEL = (0.25, 0.5, 0.25)


@dataclasses.dataclass(frozen=True)
class Gap:
    """How a target differs from its source: factors and additions.

    Attributes:
      damping: factor on joint damping.
      mass: factor on masses and inertias.
      gear: factor on motors' strength.
      friction: factor on sliding friction of contacts.
      joint_friction: dry friction of driven joints, N m.
      delay: control steps by which actions come late.
      look: whether light, colours and camera vary by episode, with a distractor, blur and noise.
    """

    damping: float = 1.0
    mass: float = 1.0
    gear: float = 1.0
    friction: float = 1.0
    joint_friction: float = 0.0
    delay: int = 0
    look: bool = False


LEVELS = (
    Gap(),
    Gap(look=True),
    Gap(damping=1.2, mass=1.1, friction=0.9, look=True),
    Gap(damping=1.4, mass=1.25, gear=0.8, friction=0.7, joint_friction=0.05, delay=1, look=True),
)


def physics(world: World, gap: Gap) -> mujoco.MjModel:
    """The target's model: a copy of the source's in MuJoCo C, changed as `gap` says."""
    model = copy.copy(world.task.host.model)
    model.dof_damping[:] *= gap.damping
    model.body_mass[:] *= gap.mass
    model.body_inertia[:] *= gap.mass
    model.actuator_gear[:] *= gap.gear
    model.geom_friction[:, 0] *= gap.friction
    driven = model.jnt_dofadr[model.actuator_trnid[:, 0]]
    model.dof_frictionloss[driven] += gap.joint_friction
    if gap.mass != 1.0:
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


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
    scene = jax.tree.map(np.asarray, scenes.scene_of(world.task.host.model, world.square))
    camera = jax.tree.map(np.asarray, world.camera)
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


def looks(world: World, gap: Gap, rngs: list[np.random.Generator]) -> Looks:
    """Draws how episodes look, one for each generator."""
    return jax.tree.map(lambda *x: np.stack(x), *(look(world, gap, rng) for rng in rngs))


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
        image = raycaster.render(mine.scene, Poses(where, turn), camera, size)
        image = image + mine.blur * (_blurred(image) - image)
        key = jax.random.fold_in(jax.random.key(mine.seed), t)
        return raycaster.to_bytes(image + mine.noise * jax.random.normal(key, image.shape))

    return jax.vmap(one)(episode, position, rotation, along, step)


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
    """Draws states of a target world; holds scratch memory of MuJoCo's and no other state."""

    def __init__(self, world: World, size: tuple[int, int] = (64, 64)):
        check_range("image size", min(size), low=1)
        self.world, self.size = world, size
        self._model = world.task.host.model
        self._data = mujoco.MjData(self._model)
        self._geoms = scenes.visible_geoms(self._model)

    def poses(self, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places `[N, G, 3]` and rotations `[N, G, 3, 3]` of geoms at positions `[N, nq]`."""
        places = np.empty((len(qpos), len(self._geoms), 3), np.float32)
        turns = np.empty((len(qpos), len(self._geoms), 9), np.float32)
        for i, q in enumerate(qpos):
            self._data.qpos[:] = q
            mujoco.mj_kinematics(self._model, self._data)
            places[i] = self._data.geom_xpos[self._geoms]
            turns[i] = self._data.geom_xmat[self._geoms]
        return places, turns.reshape(*turns.shape[:2], 3, 3)

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


class Fleet:
    """B episodes of a target world side by side in MuJoCo C; call `close` at the end.

    Attributes:
      qpos: `[B, nq]`.
      qvel: `[B, nv]`.
      alive: `[B]` bool, episodes that have not ended by a fall.
      returns: `[B]`, rewards so far.
    """

    def __init__(
        self, world: World, gap: Gap, qpos: np.ndarray, qvel: np.ndarray, threads: int | None = None
    ):
        self._spec, self._world = world.task.host.spec, world
        self._model = physics(world, gap)
        self._pool = host_steps.make_pool(self._model, threads)
        self._late = [np.zeros((len(qpos), world.task.action_size))] * gap.delay
        self.qpos, self.qvel = qpos.copy(), qvel.copy()
        self.alive = np.ones(len(qpos), bool)
        self.returns = np.zeros(len(qpos))

    @property
    def semantics(self) -> np.ndarray:
        """True semantics `[B, S]`."""
        return self._spec.observe(np, self.qpos, self.qvel, ()).astype(np.float32)

    def step(self, actions: np.ndarray) -> None:
        """Takes one control step with `actions` `[B, A]`, which are clipped, and may come late."""
        task, spec = self._world.task, self._spec
        now = np.clip(np.asarray(actions, np.float64), task.action_low, task.action_high)
        self._late.append(now)
        acting = self._late.pop(0)
        models = [self._model] * len(self.qpos)
        qpos, qvel = host_steps.step_batch(spec, self._pool, models, self.qpos, self.qvel, acting)
        terminated = spec.terminated(np, qpos, qvel)
        reward, _ = spec.pay(np, self.qpos, qpos, qvel, acting, terminated, {}, {})
        self.returns += np.where(self.alive, reward, 0.0)
        living = self.alive[:, None]
        self.qpos = np.where(living, qpos, self.qpos)
        self.qvel = np.where(living, qvel, self.qvel)
        self.alive = self.alive & ~terminated

    def close(self) -> None:
        """Ends the threads."""
        self._pool.rollout.close()
