# SPDX-License-Identifier: Apache-2.0
"""Source worlds: tasks whose observations are the semantics, with what it takes to show them.

A world's simulator can be put to any semantics, which is what lets logged actions be replayed from
an annotation.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from jaxsafe.core.checks import UserError, check_choice
from jaxsafe.envs import minatar, mujoco_tasks, raycaster, reacher, scenes, types
from jaxsafe.envs.mujoco_tasks import state_at
from jaxsafe.envs.types import Task
from jaxsafe.image_to_semantics.augment import Simulator

HOLD = 10  # control steps for which random behaviour keeps an action
STEPS = {"reacher": 50, "hopper": 200, "half_cheetah": 200, "breakout": 100}  # of an episode
WORLDS = tuple(STEPS)
BODIES = ("reacher", "hopper", "half_cheetah")  # which run in MuJoCo; the others are games
_WILD = 0.25  # share of a game's behaviour that is random


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """One task with its semantics, its policy and its camera; make it once, as tasks.

    Attributes:
      name: as `make` takes it.
      task: in MJX, with its model for MuJoCo C; a game of gymnax's has none there. Its observation
        is the semantics `[S]`.
      steps: control steps of an episode.
      place: `(xp, semantics [..., S]) -> (qpos [..., nq], qvel [..., nv])`; a game's, which is for
        one state, gives the state.
      start: `generator -> (qpos, qvel)`, a start in MuJoCo C; a game's is semantics and `[0]`.
      policy: `(xp, semantics [..., S]) -> actions [..., A]`, or None where there is none.
      names: of the S semantics.
      shown: whether one image shows them, as it does places and no speeds; `[S]` of bool.
      camera: where the eye is while the first position is 0; a game has none.
      tracks: whether it moves along x with the first position.
      square: side of the floor's squares, metres.
      dark: brightness of each second one, as a share of the others'.
      limits: least and greatest semantics `[S]`, where the rules give them.
    """

    name: str
    task: Task
    steps: int
    place: Callable[..., Any]
    start: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    policy: Callable[..., Any] | None
    names: tuple[str, ...]
    shown: tuple[bool, ...]
    camera: raycaster.Camera | None = None
    tracks: bool = False
    square: float = 0.0
    dark: float = 0.7
    limits: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def size(self) -> int:
        """S, the number of semantics."""
        return self.task.obs_size

    @property
    def eye(self) -> raycaster.Camera:
        """The camera of a world in space."""
        assert self.camera is not None
        return self.camera


FACTORS = ("damping", "mass", "gear")


def simulator(world: World, factors: jax.Array | None = None) -> Simulator:
    """The source world as augmentation calls it.

    Args:
      world: any.
      factors: `[3]` on joint damping, masses with inertias, and motors' strength, in the order of
        `FACTORS`; nominal physics without them.
    """
    task, model = world.task, world.task.model
    if factors is not None:
        damping, mass, gear = factors
        model = model.replace(
            dof_damping=damping * model.dof_damping,
            body_mass=mass * model.body_mass,
            body_inertia=mass * model.body_inertia,
            actuator_gear=gear * model.actuator_gear,
        )

    def place(semantics: jax.Array) -> Any:
        if task.host is None:
            return world.place(jnp, semantics)
        qpos, qvel = world.place(jnp, semantics)
        return state_at(task, model, qpos, qvel)

    return Simulator(
        place=place,
        transition=lambda state, action: task.step(model, state, action)[0],
        read=lambda state: task.observe(model, state),
    )


def behaviour(rng: np.random.Generator, world: World, qpos: np.ndarray, steps: int) -> np.ndarray:
    """Actions `[steps, A]` of the offline data from a start at `qpos`.

    Of bodies random ones, `held_actions`. Of games, where these soon end an episode, the policy's,
    of which a quarter are random; as the rules are the source's, they can be played ahead.
    """
    if world.task.host is not None:
        return held_actions(rng, world, steps)
    key = jax.random.key(rng.integers(2**32))
    actions = np.asarray(_played(world, jnp.asarray(qpos, jnp.float32), key).actions)
    return np.concatenate([actions, actions[-1:]])[:steps]


@functools.partial(jax.jit, static_argnums=(0,))
def _played(world: World, start: jax.Array, key: jax.Array) -> "SourceEpisodes":
    return _episode(world, world.place(jnp, start), key)


def held_actions(rng: np.random.Generator, world: World, steps: int) -> np.ndarray:
    """Random behaviour `[steps, A]`: uniform actions, each kept for `HOLD` steps."""
    low, high = world.task.action_low, world.task.action_high
    drawn = rng.uniform(low, high, (-(-steps // HOLD), len(low)))
    return np.repeat(drawn, HOLD, axis=0)[:steps].astype(np.float32)


class SourceEpisodes(NamedTuple):
    """Random behaviour in a source.

    Attributes:
      semantics: `[E, T, S]`; a step after an episode's end repeats its last semantics.
      actions: `[E, T - 1, A]`, what led from each step to the next.
      alive: `[E, T - 1]` bool, whether the episode went on until then.
    """

    semantics: jax.Array
    actions: jax.Array
    alive: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def source_episodes(world: World, episodes: int, key: jax.Array) -> SourceEpisodes:
    """Runs the behaviour of the offline data in the source; `key` is consumed."""

    def episode(key: jax.Array) -> SourceEpisodes:
        reset_key, act_key = jax.random.split(key)
        return _episode(world, world.task.reset(world.task.model, reset_key), act_key)

    return jax.vmap(episode)(jax.random.split(key, episodes))


def _episode(world: World, state: Any, key: jax.Array) -> SourceEpisodes:
    task = world.task
    limits = jnp.asarray(task.action_low), jnp.asarray(task.action_high)

    def one(carry, t):
        state, alive = carry
        kept = jax.random.fold_in(key, t // HOLD)
        action = jax.random.uniform(kept, (task.action_size,), jnp.float32, *limits)
        if task.host is None:
            assert world.policy is not None
            wild = jax.random.bernoulli(jax.random.fold_in(key, world.steps + t), _WILD)
            own = world.policy(jnp, task.observe(task.model, state))
            action = jnp.round(jnp.where(wild, action, own))
        moved, timestep = task.step(task.model, state, action)
        moved = jax.tree.map(lambda x, y: jnp.where(alive, x, y), moved, state)
        seen = task.observe(task.model, moved), action, alive
        return (moved, alive & ~timestep.terminated), seen

    first = task.observe(task.model, state)
    steps = jnp.arange(world.steps - 1)
    _, (later, actions, alive) = jax.lax.scan(one, (state, jnp.bool_(True)), steps)
    return SourceEpisodes(jnp.concatenate([first[None], later]), actions, alive)


@functools.cache
def make(name: str) -> World:
    """Builds a world by name; one object, however often it is asked for.

    reacher: `envs.reacher`, 50 steps, seen from above, with a policy written by hand. hopper and
    half_cheetah: Gymnasium's v5 tasks without their x, 200 steps, seen from the side; no policy
    comes with them. breakout: gymnax's MinAtar game, 100 steps, with a policy written by hand.

    Raises:
      UserError: the name is unknown, or the robot's file is absent.
    """
    check_choice("world", name, WORLDS)
    if name == "reacher":
        return _reacher()
    if name == "breakout":
        return _breakout()
    return _runner(name, {"hopper": "Hopper-v5", "half_cheetah": "HalfCheetah-v5"}[name])


def _reacher() -> World:
    task = reacher.make()
    model = task.host.model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return World(
        name="reacher",
        task=task,
        steps=STEPS["reacher"],
        place=reacher.place,
        start=reacher.start,
        policy=reacher.reach,
        camera=scenes.camera_of(model, data, "top"),
        tracks=False,
        square=0.25,
        dark=0.9,
        names=("cos q1", "sin q1", "cos q2", "sin q2", "w1", "w2", "ball x", "ball y"),
        shown=(True,) * 4 + (False,) * 2 + (True,) * 2,
    )


def _breakout() -> World:
    return World(
        name="breakout",
        task=minatar.make(),
        steps=STEPS["breakout"],
        place=lambda xp, semantics: types.AdaptedState(minatar.place(semantics), jnp.int32(0)),
        start=minatar.start,
        policy=minatar.follow,
        names=minatar.NAMES,
        shown=(True, True, False, False, True, False, *[True] * 30),
        limits=(minatar.LOW, minatar.HIGH),
    )


def check_level(world: str, level: int) -> None:
    """Raises `UserError` where a world has no such gap: a game's rules are always the source's."""
    if world not in BODIES and level > 1:
        raise UserError(
            f"level={level} changes physics, which {world} has none of: give data.level 0 or 1."
        )


def _runner(name: str, task_name: str) -> World:
    task = mujoco_tasks.make(task_name)
    spec, model = task.host.spec, task.host.model
    joints = model.nq - 1

    def place(xp, semantics):
        still = xp.zeros_like(semantics[..., :1])
        qpos = xp.concatenate([still, semantics[..., :joints]], axis=-1)
        return qpos, semantics[..., joints:]

    def start(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        width = spec.reset_noise
        qpos = model.qpos0 + rng.uniform(-width, width, model.nq)
        if spec.reset_normal:
            return qpos, width * rng.standard_normal(model.nv)
        return qpos, rng.uniform(-width, width, model.nv)

    positions = [model.joint(i).name for i in range(1, model.njnt)]
    speeds = [f"speed of {model.joint(i).name}" for i in range(model.njnt)]
    side = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # columns: right, up, towards the eye
    height = 0.8 if name == "hopper" else 0.4
    return World(
        name=name,
        task=task,
        steps=STEPS[name],
        place=place,
        start=start,
        policy=None,
        camera=raycaster.Camera(
            jnp.array([0.0, -2.6, height]), jnp.asarray(side, jnp.float32), jnp.float32(45.0)
        ),
        tracks=True,
        square=0.4,
        dark=0.7,
        names=(*positions, *speeds),
        shown=(True,) * len(positions) + (False,) * len(speeds),
    )
