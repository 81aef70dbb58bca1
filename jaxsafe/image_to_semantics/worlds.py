# SPDX-License-Identifier: Apache-2.0
"""Source worlds: MJX tasks whose observations are the semantics, with what it takes to show them.

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

from jaxsafe.core.checks import check_choice
from jaxsafe.envs import mujoco_tasks, raycaster, reacher, scenes
from jaxsafe.envs.types import State, Task
from jaxsafe.image_to_semantics.augment import Simulator

HOLD = 10  # control steps for which random behaviour keeps an action
STEPS = {"reacher": 50, "hopper": 200, "half_cheetah": 200}  # of an episode
WORLDS = tuple(STEPS)


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """One task with its semantics, its policy and its camera; make it once, as tasks.

    Attributes:
      name: as `make` takes it.
      task: in MJX, with its model for MuJoCo C; its observation is the semantics `[S]`.
      steps: control steps of an episode.
      place: `(xp, semantics [..., S]) -> (qpos [..., nq], qvel [..., nv])`.
      start: `generator -> (qpos, qvel)`, a start in MuJoCo C.
      policy: `(xp, semantics [..., S]) -> actions [..., A]`, or None where there is none.
      camera: where the eye is while the first position is 0.
      tracks: whether it moves along x with the first position.
      square: side of the floor's squares, metres.
      names: of the S semantics.
      shown: whether one image shows them, as it does places and no speeds; `[S]` of bool.
    """

    name: str
    task: Task
    steps: int
    place: Callable[..., tuple[Any, Any]]
    start: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    policy: Callable[..., Any] | None
    camera: raycaster.Camera
    tracks: bool
    square: float
    names: tuple[str, ...]
    shown: tuple[bool, ...]

    @property
    def size(self) -> int:
        """S, the number of semantics."""
        return self.task.obs_size


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

    def place(semantics: jax.Array) -> State:
        qpos, qvel = world.place(jnp, semantics)
        return State(qpos, qvel, jnp.zeros_like(qvel), jnp.int32(0))

    return Simulator(
        place=place,
        transition=lambda state, action: task.step(model, state, action)[0],
        read=lambda state: task.observe(model, state),
    )


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
    """Runs random behaviour in the source for `episodes` episodes; `key` is consumed."""
    task = world.task
    limits = jnp.asarray(task.action_low), jnp.asarray(task.action_high)

    def episode(key: jax.Array) -> SourceEpisodes:
        reset_key, act_key = jax.random.split(key)
        state = task.reset(task.model, reset_key)

        def one(carry, t):
            state, alive = carry
            kept = jax.random.fold_in(act_key, t // HOLD)
            action = jax.random.uniform(kept, (task.action_size,), jnp.float32, *limits)
            moved, timestep = task.step(task.model, state, action)
            moved = jax.tree.map(lambda x, y: jnp.where(alive, x, y), moved, state)
            seen = task.observe(task.model, moved), action, alive
            return (moved, alive & ~timestep.terminated), seen

        first = task.observe(task.model, state)
        steps = jnp.arange(world.steps - 1)
        _, (later, actions, alive) = jax.lax.scan(one, (state, jnp.bool_(True)), steps)
        return SourceEpisodes(jnp.concatenate([first[None], later]), actions, alive)

    return jax.vmap(episode)(jax.random.split(key, episodes))


@functools.cache
def make(name: str) -> World:
    """Builds a world by name; one object, however often it is asked for.

    reacher: `envs.reacher`, 50 steps, seen from above, with a policy written by hand. hopper and
    half_cheetah: Gymnasium's v5 tasks without their x, 200 steps, seen from the side; no policy
    comes with them.

    Raises:
      UserError: the name is unknown, or the robot's file is absent.
    """
    check_choice("world", name, WORLDS)
    if name == "reacher":
        return _reacher()
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
        names=("cos q1", "sin q1", "cos q2", "sin q2", "w1", "w2", "ball x", "ball y"),
        shown=(True,) * 4 + (False,) * 2 + (True,) * 2,
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
        names=(*positions, *speeds),
        shown=(True,) * len(positions) + (False,) * len(speeds),
    )
