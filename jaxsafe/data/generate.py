# SPDX-License-Identifier: Apache-2.0
"""Offline data made here: many trajectories of one task in one compiled program, as DSRL's files.

task = safety_tasks.make("Circle-v0")
generate.write("circle.hdf5", task, number=1000, seed=0)
"""

import functools
import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import provenance as core_provenance
from jaxsafe.core.checks import check_memory, check_range
from jaxsafe.data import filters, trajectories
from jaxsafe.data.behaviours import Behaviour, Knobs, scripted
from jaxsafe.data.gaits import ROBOTS
from jaxsafe.data.trajectories import Trajectories
from jaxsafe.envs.types import Task

LICENCE = "Apache-2.0"
_PACKAGE = pathlib.Path(__file__).parent.parent
# What decides the numbers besides the seed and the versions of libraries.
_SOURCES = (
    *("data/behaviours.py", "data/gaits.py", *(f"data/assets/{robot}.json" for robot in ROBOTS)),
    *("data/generate.py", "envs/safety_tasks.py", "envs/point_worlds.py"),
    *("envs/locomotion.py", "envs/mujoco_tasks.py", "envs/derived.py"),
)


class Generated(NamedTuple):
    """Trajectories, and the knobs of each.

    Attributes:
      trajectories: E episodes.
      knobs: by name, `[E, ...]`.
    """

    trajectories: Trajectories
    knobs: dict[str, np.ndarray]


def episode(task: Task, behaviour: Behaviour, model: Any, key: jax.Array) -> tuple[Knobs, Any]:
    """Runs one episode in one model; pure, for `jax.jit` and `jax.vmap`; consumes `key`.

    Returns:
      `(knobs, columns)`: the seven keys of `trajectories.KEYS` over T steps, `[T, ...]`, and
      `valid` `[T]`, which is false after the end.
    """
    reset_key, knob_key, act_key = jax.random.split(key, 3)
    knobs = behaviour.draw(knob_key)
    state = task.reset(model, reset_key)
    low, high = jnp.asarray(task.action_low), jnp.asarray(task.action_high)

    def body(carry, t):
        state, obs, alive = carry
        action = behaviour.act(knobs, obs, jax.random.fold_in(act_key, t), t)
        action = jnp.clip(action, low, high).astype(jnp.float32)
        state, timestep = task.step(model, state, action)
        row = {
            "observations": obs,
            "next_observations": timestep.obs,
            "actions": action,
            "rewards": timestep.reward,
            "costs": timestep.cost,
            "terminals": timestep.terminated,
            "timeouts": timestep.truncated,
            "valid": alive,
        }
        alive = alive & ~(timestep.terminated | timestep.truncated)
        return (state, timestep.obs, alive), row

    carry = (state, task.observe(model, state), jnp.bool_(True))
    _, columns = jax.lax.scan(body, carry, jnp.arange(task.max_episode_steps))
    return knobs, columns


@functools.partial(jax.jit, static_argnums=(0, 1))
def _episodes(task: Task, behaviour: Behaviour, model: Any, keys: jax.Array) -> tuple[Knobs, Any]:
    run = functools.partial(episode, task, behaviour)
    return jax.vmap(run, in_axes=(None, 0))(model, keys)


def generate(
    task: Task,
    number: int,
    seed: int,
    behaviour: Behaviour | None = None,
    batch: int = 512,
) -> Generated:
    """Makes trajectories of a task's nominal model.

    Args:
      task: the world.
      number: E.
      seed: of starts, knobs and all noise. Episode i depends on it and i alone; between batches of
        other sizes it may differ by rounding.
      behaviour: who acts; `scripted(task)` by default. Keep it, as the task, or it compiles again.
      batch: episodes side by side.

    Raises:
      UserError: a number is below 1, the data would not fit in memory, the task has no scripted
        behaviour, or a value is not finite.
    """
    check_range("number", number, low=1)
    check_range("batch", batch, low=1)
    width = 4 * (2 * task.obs_size + task.action_size + 3)
    check_memory(
        f"{number} episodes of {task.max_episode_steps} steps",
        2 * number * task.max_episode_steps * width,
        "Lower number, or write several files.",
    )
    behaviour = behaviour or scripted(task)
    batch = min(batch, number)
    root, parts = jax.random.key(seed), []
    for start in range(0, number, batch):  # The last batch is filled up and cut: one compilation.
        keys = jax.vmap(jax.random.fold_in, (None, 0))(root, jnp.arange(start, start + batch))
        knobs, columns = jax.device_get(_episodes(task, behaviour, task.model, keys))
        left = min(batch, number - start)
        valid = columns.pop("valid")[:left]
        rows = {key: column[:left][valid] for key, column in columns.items()}
        parts.append((rows, {name: knob[:left] for name, knob in knobs.items()}))
    merged = [_joined([part[i] for part in parts]) for i in range(2)]
    data = trajectories.build(merged[0], f"{behaviour.name} on {task.name}", trailing="keep")
    return Generated(data, merged[1])


def _joined(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def flatten(
    generated: Generated,
    seed: int,
    bins: tuple[int, int] = (10, 50),
    most: int = 10,
    least: int = 0,
) -> Generated:
    """Thins out what is common on the plane of cost and reward, as DSRL does with its data.

    Args:
      generated: what to thin out.
      seed: of the choice.
      bins: cells along cost and reward.
      most: episodes that stay in a cell.
      least: a cell with so few episodes or fewer loses them; DSRL's 2 drops what is rare.
    """
    data = generated.trajectories
    returns, costs = trajectories.totals(data)
    kept = filters.grid_filter(np.random.default_rng(seed), costs, returns, bins, most, least)
    knobs = {name: knob[kept] for name, knob in generated.knobs.items()}
    return Generated(trajectories.select(data, kept), knobs)


def generator_hash(task: Task, behaviour: Behaviour) -> str:
    """SHA-256 of the sources that make the data, of the task and of the behaviour's name."""
    digest = hashlib.sha256(f"{task.name} {task.max_episode_steps} {behaviour.name}".encode())
    for source in _SOURCES:
        digest.update((_PACKAGE / source).read_bytes())
    return digest.hexdigest()


def provenance(
    task: Task, behaviour: Behaviour, seed: int, licence: str = LICENCE
) -> dict[str, str | int]:
    """Returns attributes for a file: what made it, from which seed, under which licence."""
    return {
        "env_id": task.name,
        "max_episode_steps": task.max_episode_steps,
        "behaviour": behaviour.name,
        "seed": seed,
        "generator": "jaxsafe.data.generate",
        "generator_hash": generator_hash(task, behaviour),
        "licence": licence,
        "versions": json.dumps(core_provenance.versions()),
    }


def write(
    path: str | os.PathLike[str],
    task: Task,
    number: int,
    seed: int,
    behaviour: Behaviour | None = None,
    flat: bool = False,
    licence: str = LICENCE,
) -> Generated:
    """Makes trajectories and writes them; the same call gives the same bytes.

    The knobs are kept beside the seven keys, as `knobs/<name>`.

    Args:
      path: of the file; one that is there is replaced.
      task: the world.
      number: of episodes that are made.
      seed: as in `generate`, and of `flatten`.
      behaviour: who acts; `scripted(task)` by default.
      flat: thin out by `flatten` before writing.
      licence: under which the file may be used.

    Raises:
      UserError: as `generate`, or the folder is absent.
    """
    behaviour = behaviour or scripted(task)
    made = generate(task, number, seed, behaviour)
    if flat:
        made = flatten(made, seed)
    extras = {f"knobs/{name}": knob for name, knob in made.knobs.items()}
    attributes = provenance(task, behaviour, seed, licence)
    trajectories.save(path, made.trajectories, attributes | {"flat": int(flat)}, extras)
    return made
