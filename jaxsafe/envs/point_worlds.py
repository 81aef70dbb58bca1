# SPDX-License-Identifier: Apache-2.0
"""Circle, Run and Hazard: cost-bearing worlds of a point mass, in pure JAX.

Rewards and costs of Circle and Run are Bullet-Safety-Gym's formulas; its robots are not here. The
body is ours, a point of mass m pushed in the plane against linear drag and random gusts,

    v' = v + dt (force a - drag v) / m + noise sqrt(dt) xi,   p' = p + dt v',   xi ~ N(0, I),

and so are the agent's term of the reward, -|a|^2, Run's speed limit, and all of Hazard. Returns
are therefore not comparable with Bullet-Safety-Gym's.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import check_choice, check_range
from jaxsafe.envs.types import Leaf, Task, Timestep

DT = 0.1  # s
RADIUS, WALL = 7.0, 6.0  # m, of Circle: the ring's, and how far out x may be
LANE, LIMIT = 2.0, 2.5  # m, m/s, of Run: half the width, and the speed allowed
FIELD, HAZARD, REACH = 4.0, 0.8, 0.4  # m, of Hazard: half width, radius, how near the goal counts
_PRIZE = 5.0  # for a goal reached
# m, where Run runs to; of NumPy, as JAX would look for its devices on import
_FAR = np.array([1000.0, 0.0], np.float32)


@flax.struct.dataclass
class PointModel:
    """The body and, for Hazard, where the hazards lie.

    Attributes:
      mass: kg.
      drag: kg/s.
      force: of a full action along one axis, N.
      noise: of the gusts, m/s per square root of a second.
      hazards: their centres, `[K, 2]`, m; `[0, 2]` in the other worlds.
    """

    mass: jax.Array
    drag: jax.Array
    force: jax.Array
    noise: jax.Array
    hazards: jax.Array


@flax.struct.dataclass
class PointState:
    """A point under way.

    The words of the episode's key are plain numbers here, folded with the step: so a state may be
    stepped twice, as that of any other task.

    Attributes:
      position: `[2]`, m.
      velocity: `[2]`, m/s.
      goal: `[2]`, m; zeros but for Hazard.
      words: of the episode's key, uint32.
      steps: control steps since the reset, `[]` int32.
    """

    position: jax.Array
    velocity: jax.Array
    goal: jax.Array
    words: jax.Array
    steps: jax.Array


@dataclasses.dataclass(frozen=True)
class _World:
    """Pure functions of one world; `pay` is `(model, before, after, action) -> (reward, cost)`."""

    observe: Callable[[PointModel, PointState], jax.Array]
    pay: Callable[..., tuple[jax.Array, jax.Array]]
    obs_scale: tuple[float, ...]
    start: float  # m, half-width of the box that episodes start in
    hazards: tuple[tuple[float, float], ...] = ()


def _effort(action: jax.Array) -> jax.Array:
    return -jnp.square(action).sum()


def circle_pay(model, before: PointState, after: PointState, action: jax.Array):
    """r = 0.1 p . (-v_y, v_x) / (1 + ||p| - 7|) - 0.01 |a|^2; c = 1 where |x| > 6.

    Clockwise motion is what pays, as in Bullet-Safety-Gym.
    """
    (x, y), (vx, vy) = after.position, after.velocity
    off = jnp.abs(jnp.linalg.norm(after.position) - RADIUS)
    reward = 0.1 * (y * vx - x * vy) / (1 + off) + 0.01 * _effort(action)
    return reward, jnp.abs(x) > WALL


def run_pay(model, before: PointState, after: PointState, action: jax.Array):
    """r = 60 (metres nearer to (1000, 0)) - |a|^2; c = 1 where |y| > 2 or |v| > 2.5 m/s."""
    # Of two distances near 1000 m, 32 bits keep the difference to 1e-4 m only, and 60 times that.
    along = before.position + after.position - 2 * _FAR
    step = after.position - before.position
    distances = (jnp.linalg.norm(s.position - _FAR) for s in (before, after))
    nearer = -(along @ step) / sum(distances)
    reward = 60 * nearer + _effort(action)
    fast = jnp.linalg.norm(after.velocity) > LIMIT
    return reward, (jnp.abs(after.position[1]) > LANE) | fast


def hazard_pay(model, before: PointState, after: PointState, action: jax.Array):
    """r = metres nearer to the goal + 5 where it is reached - 0.01 |a|^2; c = 1 in a hazard."""
    was, now = (jnp.linalg.norm(s.position - before.goal) for s in (before, after))
    reward = was - now + _PRIZE * (now < REACH) + 0.01 * _effort(action)
    gaps = jnp.linalg.norm(model.hazards - after.position, axis=-1)
    return reward, (gaps < HAZARD).any()


def _see_circle(model, state: PointState) -> jax.Array:
    return jnp.concatenate([state.position, state.velocity])


def _see_run(model, state: PointState) -> jax.Array:
    return jnp.concatenate([state.position[1:], state.velocity])


def _see_hazard(model: PointModel, state: PointState) -> jax.Array:
    """Place, velocity, the way to the goal and to the nearest hazard's centre, `[8]`."""
    ways = model.hazards - state.position
    nearest = ways[jnp.square(ways).sum(-1).argmin()]
    return jnp.concatenate([state.position, state.velocity, state.goal - state.position, nearest])


_WORLDS = {
    "Circle-v0": _World(_see_circle, circle_pay, (0.15, 0.15, 0.2, 0.2), 0.5),
    "Run-v0": _World(_see_run, run_pay, (0.5, 0.3, 0.3), 0.5),
    "Hazard-v0": _World(
        _see_hazard,
        hazard_pay,
        (0.25, 0.25, 0.4, 0.4, 0.25, 0.25, 0.4, 0.4),
        FIELD,
        ((2.0, 0.0), (0.0, 2.0), (-2.0, 0.0), (0.0, -2.0), (0.0, 0.0)),
    ),
}
WORLDS = tuple(_WORLDS)


def make(name: str, max_episode_steps: int = 100) -> Task:
    """Builds a point world; episodes are truncated, never terminated.

    Actions are pushes along x and y in [-1, 1]. `explore` starts from a box twice as wide.

    - Circle: observes `[x, y, vx, vy]`; starts near the centre.
    - Run: observes `[y, vx, vy]`; starts near the origin.
    - Hazard: observes `[place, velocity, way to the goal, way to the nearest hazard]`, starts
      anywhere in a square of 8 m, and a goal reached is followed by a new one.

    Args:
      name: one of `WORLDS`.
      max_episode_steps: T.

    Raises:
      UserError: if the name is unknown, or T is below 1.
    """
    check_choice("point world", name, _WORLDS)
    check_range("max_episode_steps", max_episode_steps, low=1)
    world = _WORLDS[name]
    return Task(
        name=name,
        model=PointModel(
            mass=jnp.float32(1.0),
            drag=jnp.float32(1.0),
            force=jnp.float32(10.0),
            noise=jnp.float32(0.3),
            hazards=jnp.array(world.hazards, jnp.float32).reshape(-1, 2),
        ),
        reset=lambda model, key: _reset(world.start, key),
        explore=lambda model, key: _reset(2 * world.start, key),
        step=lambda model, state, action: _step(world, max_episode_steps, model, state, action),
        observe=world.observe,
        obs_size=len(world.obs_scale),
        action_size=2,
        action_low=np.full(2, -1, np.float32),
        action_high=np.full(2, 1, np.float32),
        obs_scale=np.array(world.obs_scale, np.float32),
        max_episode_steps=max_episode_steps,
        parameters={
            "mass": Leaf("mass", (), "kg"),
            "drag": Leaf("drag", (), "kg/s"),
            "force": Leaf("force", (), "N"),
            "noise": Leaf("noise", ()),
        },
        host=None,
    )


def _reset(width: float, key: jax.Array) -> PointState:
    place_key, own_key = jax.random.split(key)
    position = jax.random.uniform(place_key, (2,), jnp.float32, -width, width)
    words = jax.random.key_data(own_key)
    steps = jnp.int32(0)
    return PointState(position, jnp.zeros_like(position), _goal(words, steps), words, steps)


def _key(words: jax.Array, steps: jax.Array, purpose: int) -> jax.Array:
    key = jax.random.wrap_key_data(words, impl="threefry2x32")
    return jax.random.fold_in(jax.random.fold_in(key, steps), purpose)


def _goal(words: jax.Array, steps: jax.Array) -> jax.Array:
    return jax.random.uniform(_key(words, steps, 1), (2,), jnp.float32, -FIELD, FIELD)


def _step(
    world: _World, length: int, model: PointModel, state: PointState, action: Any
) -> tuple[PointState, Timestep]:
    action = jnp.clip(action, -1.0, 1.0).astype(jnp.float32)
    gust = jax.random.normal(_key(state.words, state.steps, 0), (2,), jnp.float32)
    push = (model.force * action - model.drag * state.velocity) / model.mass
    velocity = state.velocity + DT * push + model.noise * DT**0.5 * gust
    position = state.position + DT * velocity
    steps = state.steps + 1
    after = PointState(position, velocity, state.goal, state.words, steps)
    reward, cost = world.pay(model, state, after, action)
    reached = jnp.linalg.norm(position - state.goal) < REACH
    # In the other worlds nothing reads the goal.
    goal = jnp.where(reached, _goal(state.words, steps), state.goal)
    after = dataclasses.replace(after, goal=goal)
    timestep = Timestep(
        obs=world.observe(model, after),
        reward=reward.astype(jnp.float32),
        cost=cost.astype(jnp.float32),
        terminated=jnp.bool_(False),
        truncated=steps >= length,
    )
    return after, timestep
