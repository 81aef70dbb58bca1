# SPDX-License-Identifier: Apache-2.0
"""What a world is: a record of pure functions over a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import numpy as np


class Timestep(NamedTuple):
    """What one control step shows to the learner.

    `terminated` and `truncated` are kept apart, and both may be true: bootstrapping uses
    `discount = gamma * (1 - terminated)`, so it goes on through a time limit.

    Attributes:
      obs: observation after the step, `[O]`, in the precision of the model.
      reward: `[]` float32.
      cost: safety cost, `[]` float32; zero where the task has none.
      terminated: `[]` bool, the state has no future.
      truncated: `[]` bool, the time limit is reached.
    """

    obs: jax.Array
    reward: jax.Array
    cost: jax.Array
    terminated: jax.Array
    truncated: jax.Array


class TaskState(Protocol):
    """What every task's state is: a pytree that counts its steps."""

    @property
    def steps(self) -> jax.Array:
        """Control steps since the reset, `[]` int32."""
        ...


@flax.struct.dataclass
class State:
    """The state of a MuJoCo task: all that a step needs beyond the model.

    Attributes:
      qpos: generalised positions, `[nq]`.
      qvel: generalised velocities, `[nv]`.
      qacc: the last accelerations, `[nv]`, from which the constraint solver starts; zeros will do.
      steps: control steps since the reset, `[]` int32.
      derived: what else the task's observation and reward read, by the engine's name; mostly empty.
    """

    qpos: jax.Array
    qvel: jax.Array
    qacc: jax.Array
    steps: jax.Array
    derived: Any = ()


@flax.struct.dataclass
class AdaptedState:
    """The state of a task that comes from another library.

    Attributes:
      inner: that library's own state, a pytree of arrays.
      steps: control steps since the reset, `[]` int32.
    """

    inner: Any
    steps: jax.Array


@dataclass(frozen=True)
class Leaf:
    """Where a physical parameter lives in a model.

    Attributes:
      field: name of the model's array, dotted if nested (`"body_mass"`, `"opt.gravity"`).
      index: one entry per axis of that array, so `()` for a scalar; `None` takes the whole axis.
      unit: of the parameter, e.g. `"kg"`; empty where it has none.
    """

    field: str
    index: tuple[int | None, ...]
    unit: str = ""

    @property
    def slices(self) -> tuple[int | slice, ...]:
        """The index as NumPy and JAX take it."""
        return tuple(slice(None) if i is None else i for i in self.index)


@dataclass(frozen=True, eq=False)
class Task:
    """A world as pure functions of one (unbatched) model; batch them with `jax.vmap`.

    Tasks compare and hash by identity, so a task can be closed over or be a static argument of
    `jax.jit`; make it once and keep it, or each new one compiles again.

    Attributes:
      name: the task's name, as `make` takes it.
      model: the nominal model, a pytree.
      reset: `(model, key) -> state`, the start of an episode; consumes `key`.
      explore: `(model, key) -> state`, a start from a wide box, for training only; consumes `key`.
      step: `(model, state, action [A]) -> (state, Timestep)`; actions are clipped to the limits.
      observe: `(model, state) -> obs [O]`.
      obs_size: O.
      action_size: A.
      action_low: `[A]` float32.
      action_high: `[A]` float32.
      obs_scale: `[O]` float32; networks see `obs * obs_scale`, which is of order one.
      max_episode_steps: control steps until `truncated`.
      parameters: physical parameters by name, and where the model keeps each.
      host: what `envs.host` needs to run the same task in MuJoCo C; None where it cannot.
    """

    name: str
    model: Any
    reset: Callable[[Any, jax.Array], TaskState]
    explore: Callable[[Any, jax.Array], TaskState]
    step: Callable[[Any, Any, jax.Array], tuple[TaskState, Timestep]]
    observe: Callable[[Any, Any], jax.Array]
    obs_size: int
    action_size: int
    action_low: np.ndarray
    action_high: np.ndarray
    obs_scale: np.ndarray
    max_episode_steps: int
    parameters: Mapping[str, Leaf]
    host: Any
