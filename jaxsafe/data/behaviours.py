# SPDX-License-Identifier: Apache-2.0
"""Who acts in offline data: controllers whose knobs are drawn anew for each trajectory.

Spread over the knobs, trajectories spread over the plane of cost and reward, from timid to reckless
and from good to useless.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxsafe.core.checks import UserError
from jaxsafe.data import gaits
from jaxsafe.envs.types import Task

Knobs = Mapping[str, jax.Array]


@dataclass(frozen=True, eq=False)
class Behaviour:
    """A family of policies; one is drawn per trajectory.

    Attributes:
      name: for the file's attributes.
      draw: `key -> knobs`, arrays by name; consumes `key`.
      act: `(knobs, obs [O], key, t []) -> action [A]` at step t; consumes `key`.
    """

    name: str
    draw: Callable[[jax.Array], Knobs]
    act: Callable[[Knobs, jax.Array, jax.Array, jax.Array], jax.Array]


def scripted(task: Task) -> Behaviour:
    """Returns the controllers of a task: of a point world its own; of a robot `walk` or `gait`.

    Raises:
      UserError: if there are none.
    """
    length = task.max_episode_steps
    if task.name in _SCRIPTS:
        ranges, drive = _SCRIPTS[task.name]

        def act(knobs: Knobs, obs, key, t) -> jax.Array:
            wanted = drive(knobs, obs, t / length)
            # Against the nominal drag, with half of the speed error made up in 0.17 s.
            push = 0.1 * wanted + 0.3 * (wanted - _velocity(task.name, obs))
            return push + knobs["noise"] * jax.random.normal(key, push.shape, jnp.float32)

        return Behaviour(f"scripted {task.name}", lambda key: _uniform(key, ranges), act)
    robot = task.name.removeprefix("Safety").removesuffix("Velocity-v1")
    if robot in gaits.ROBOTS:
        return walk(task, robot)
    if task.host is not None:
        return gait(task)
    raise UserError(f"{task.name} has no scripted behaviour: give one of your own.")


def _uniform(key: jax.Array, ranges: Mapping[str, tuple[float, float]]) -> dict[str, jax.Array]:
    draws = jax.random.uniform(key, (len(ranges),), jnp.float32)
    rows = zip(ranges.items(), draws, strict=True)
    return {name: low + (high - low) * u for (name, (low, high)), u in rows}


def _velocity(name: str, obs: jax.Array) -> jax.Array:
    return obs[1:3] if name == "Run-v0" else obs[2:4]


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-3)


def _circle(knobs: Knobs, obs: jax.Array, phase: jax.Array) -> jax.Array:
    """Clockwise at a speed, towards a radius; after the first part with |x| held below a bound."""
    place = obs[:2]
    outwards = _unit(place)
    clockwise = jnp.stack([outwards[1], -outwards[0]])
    off = knobs["radius"] - jnp.linalg.norm(place)
    wanted = knobs["speed"] * clockwise + jnp.clip(2 * off, -4, 4) * outwards
    clip = jnp.where(phase < knobs["burst"], jnp.inf, knobs["clip"])
    bound = 3 * (jnp.array([-1.0, 1.0]) * clip - place[0])
    return wanted.at[0].set(jnp.clip(wanted[0], bound[0], bound[1]))


def _run(knobs: Knobs, obs: jax.Array, phase: jax.Array) -> jax.Array:
    """Fast for the first part of the episode, then slow, along a line beside the lane's middle."""
    speed = jnp.where(phase < knobs["burst"], knobs["fast"], knobs["slow"])
    return jnp.stack([speed, jnp.clip(2 * (knobs["offset"] - obs[0]), -2, 2)])


def _hazard(knobs: Knobs, obs: jax.Array, phase: jax.Array) -> jax.Array:
    """To the goal, and around the nearest hazard where that is nearer than a margin."""
    way, nearest = obs[4:6], obs[6:8]
    gap = jnp.linalg.norm(nearest)
    away = -_unit(nearest)
    side = jnp.stack([away[1], -away[0]])
    # Of the two ways around, the one that leads towards the goal.
    around = side * jnp.where(side @ way >= 0, 1.0, -1.0)
    near = jnp.clip((knobs["margin"] - gap) / 0.5, 0, 1)
    towards = jnp.minimum(knobs["speed"], 2 * jnp.linalg.norm(way) + 0.5) * _unit(way)
    blocked = jnp.maximum(-(towards @ away), 0.0) * away  # what of it leads into the hazard
    return towards + near * (blocked + 0.7 * knobs["speed"] * around + away)


_SCRIPTS: dict[str, tuple[dict[str, tuple[float, float]], Callable[..., jax.Array]]] = {
    "Circle-v0": (
        {
            "radius": (3.0, 10.0),
            "speed": (0.0, 8.0),
            "clip": (3.0, 9.0),
            "burst": (-0.5, 1.2),
            "noise": (0.0, 0.6),
        },
        _circle,
    ),
    "Run-v0": (
        {
            "slow": (0.0, 2.4),
            "fast": (1.5, 8.0),
            "burst": (-0.3, 1.2),
            "offset": (-2.6, 2.6),
            "noise": (0.0, 0.4),
        },
        _run,
    ),
    "Hazard-v0": ({"speed": (0.2, 5.0), "margin": (0.0, 2.0), "noise": (0.0, 0.8)}, _hazard),
}


def walk(task: Task, robot: str) -> Behaviour:
    """The saved walkers of `gaits`, at a pace, weakened and shaken by knobs.

    Args:
      task: that robot's velocity task.
      robot: one of `gaits.ROBOTS`.
    """
    saved = jax.tree.map(jnp.asarray, gaits.load(robot))
    seconds, reach = _seconds(task), jnp.asarray(task.action_high)
    ranges = {"pace": (-0.2, 1.2), "scale": (0.0, 2.0), "noise": (-0.2, 0.4)}

    def draw(key: jax.Array) -> Knobs:
        knobs = _uniform(key, ranges)
        # Half of them at full strength, a third without noise; the weak ones fall or stand still.
        return knobs | {
            "scale": jnp.minimum(knobs["scale"], 1.0),
            "noise": jnp.maximum(knobs["noise"], 0.0),
        }

    def act(knobs: Knobs, obs, key, t) -> jax.Array:
        action = gaits.action(jnp, saved, knobs["pace"], obs, seconds * t)
        noise = knobs["noise"] * jax.random.normal(key, reach.shape, jnp.float32)
        return jnp.clip(knobs["scale"] * action, -reach, reach) + reach * noise

    return Behaviour(f"walk {robot}", draw, act)


def gait(task: Task) -> Behaviour:
    """Sines of one frequency with random phases, for robots without a trained policy.

    Swimmer swims so, below and above its limit.
    """
    size, seconds = task.action_size, _seconds(task)
    reach = jnp.asarray(task.action_high)

    def draw(key: jax.Array) -> Knobs:
        knob_key, phase_key = jax.random.split(key)
        ranges = {"amplitude": (0.0, 1.0), "frequency": (0.2, 2.5), "noise": (0.0, 0.3)}
        phases = jax.random.uniform(phase_key, (size,), jnp.float32, 0, 2 * math.pi)
        return {**_uniform(knob_key, ranges), "phases": phases}

    def act(knobs: Knobs, obs, key, t) -> jax.Array:
        turn = 2 * math.pi * knobs["frequency"] * seconds * t
        wave = knobs["amplitude"] * jnp.sin(turn + knobs["phases"])
        return reach * (wave + knobs["noise"] * jax.random.normal(key, (size,), jnp.float32))

    return Behaviour("gait", draw, act)


def _seconds(task: Task) -> float:
    spec, model = task.host
    return spec.frame_skip * model.opt.timestep


def of_policy(
    task: Task, policy: Callable[[Any], jax.Array], name: str, scale: tuple[float, float] = (0.3, 1)
) -> Behaviour:
    """A trained policy, weakened and shaken by knobs `scale` and `noise`.

    Args:
      task: whose actions they are.
      policy: `obs [O] -> action [A]`, pure.
      name: for the file's attributes, e.g. the run that trained it: it stands for the policy there.
      scale: range of the factor on the policy's actions.
    """
    reach = jnp.asarray(task.action_high)

    def act(knobs: Knobs, obs, key, t) -> jax.Array:
        noise = knobs["noise"] * reach * jax.random.normal(key, reach.shape, jnp.float32)
        return knobs["scale"] * policy(obs) + noise

    ranges = {"scale": scale, "noise": (0.0, 0.5)}
    return Behaviour(name, lambda key: _uniform(key, ranges), act)
