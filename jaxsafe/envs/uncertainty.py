# SPDX-License-Identifier: Apache-2.0
"""Boxes of physical parameters, and the models they stand for."""

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from jaxsafe.core.checks import UserError, check_choice, check_memory, check_range
from jaxsafe.envs import mujoco_tasks, pendulum
from jaxsafe.envs.scenarios import (
    ENGINES,
    FLAVOURS,
    GYMNAX_SCENARIOS,
    SCENARIOS,
    scenario_ranges,
)
from jaxsafe.envs.types import Leaf, Task

__all__ = [
    "ENGINES",
    "FLAVOURS",
    "GYMNAX_SCENARIOS",
    "SCENARIOS",
    "UncertaintySet",
    "make_set",
    "scenario",
    "scenario_ranges",
]


@dataclass(frozen=True)
class UncertaintySet:
    """A box of D physical parameters; build it with `make_set`.

    It is plain hashable data, so it can be a static argument of `jax.jit`. Methods on omegas take
    any leading axes, except `apply` and `apply_host`, which take one omega. A bound may equal the
    other: that parameter is then a constant.

    Attributes:
      names: the D parameter names, in the order of omega's entries.
      low: lower bounds, in the parameter's own unit (masses: kg).
      high: upper bounds.
      leaves: where the model keeps each parameter.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    leaves: tuple[Leaf, ...]

    @property
    def size(self) -> int:
        """D, the number of parameters."""
        return len(self.names)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names as people read them, with their units."""
        units = [f" ({leaf.unit})" if leaf.unit else "" for leaf in self.leaves]
        return tuple(n.replace("_", " ") + u for n, u in zip(self.names, units, strict=True))

    @property
    def fields(self) -> tuple[str, ...]:
        """The model arrays that this set changes, each once."""
        return tuple(dict.fromkeys(leaf.field for leaf in self.leaves))

    def apply(self, model: Any, omega: jax.Array) -> Any:
        """Returns `model` with its named parameters set to `omega` `[D]`, all else untouched.

        Nothing derived is recomputed: a mass changes `body_mass` alone, not inertias or the
        constants MuJoCo computed at compile time, as the M2TD3 paper's code does. Under `jax.vmap`
        over omega only the changed arrays get a batch axis.

        Raises:
          UserError: if `omega` is not `[D]`.
        """
        self._check_one(omega)
        omega = jnp.asarray(omega)
        changed: dict[str, jax.Array] = {}
        for i, leaf in enumerate(self.leaves):
            array = jnp.asarray(changed.get(leaf.field, attrgetter(leaf.field)(model)))
            changed[leaf.field] = array.at[leaf.slices].set(omega[i].astype(array.dtype))
        return _replaced(model, changed)

    def apply_host(self, model: mujoco.MjModel, omega: np.ndarray) -> mujoco.MjModel:
        """Returns a copy of a MuJoCo C model with `omega` `[D]` set, in the way of `apply`.

        Raises:
          UserError: if `omega` is not `[D]`.
        """
        self._check_one(omega)
        model = copy.copy(model)
        for leaf, value in zip(self.leaves, np.asarray(omega, np.float64), strict=True):
            attrgetter(leaf.field)(model)[leaf.slices] = value
        return model

    def batched(self, model: Any, omegas: jax.Array) -> tuple[Any, Any]:
        """Returns N models as one, and the axes by which `jax.vmap` tells them apart.

        Args:
          model: one model.
          omegas: `[N, D]`.

        Returns:
          `(models, in_axes)`: the changed arrays are `[N, ...]` with axis 0 and every other array
          is shared, with axis None. Use: `jax.vmap(f, in_axes=(in_axes, 0))(models, states)`.
        """
        applied = jax.vmap(lambda omega: self._changed(self.apply(model, omega)))(omegas)
        axes = jax.tree.map(lambda _: None, model)
        return _replaced(model, applied), _replaced(axes, dict.fromkeys(self.fields, 0))

    def nominal(self, model: Any) -> np.ndarray:
        """Returns the values `[D]` that `model` has; of a leaf with many entries, the first.

        Takes an MJX model with concrete arrays or a C model, whose full precision it keeps.
        """
        values = [np.asarray(attrgetter(x.field)(model))[x.slices] for x in self.leaves]
        return np.asarray([np.ravel(value)[0] for value in values], np.float64)

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Returns `[*shape, D]` drawn uniformly from the box; consumes `key`."""
        low, high = self._bounds()
        return jax.random.uniform(key, (*shape, self.size), low.dtype, low, high)

    def grid(self, n: int) -> jax.Array:
        """Returns the `[n**D, D]` mesh of `n` evenly spaced values per parameter.

        Both ends of every range are in it (M2TD3 evaluation: n = 10), and the last parameter varies
        fastest; `n=1` gives the midpoint.

        Raises:
          UserError: if `n` is below 1, or the mesh would not fit in memory.
        """
        check_range("n", n, low=1)
        count = n**self.size
        check_memory(
            f"grid({n}) over {self.size} parameters, {count:,} points,",
            16 * count * self.size,  # float64 while it is made, and its float32 copy
            f"Lower n={n} or the number of parameters, or use sample().",
        )
        if n == 1:
            return self.denormalise(jnp.zeros((1, self.size)))
        axes = [np.linspace(lo, hi, n) for lo, hi in zip(self.low, self.high, strict=True)]
        mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        return jnp.asarray(mesh.reshape(count, self.size), dtype=self._bounds()[0].dtype)

    def project(self, omega: jax.Array) -> jax.Array:
        """Returns the point of the box nearest to `omega` `[..., D]`."""
        return jnp.clip(omega, *self._bounds())

    def normalise(self, omega: jax.Array) -> jax.Array:
        """Maps the box to `[-1, 1]` per parameter, `[..., D]`; a constant parameter maps to 0."""
        low, high = self._bounds()
        width = jnp.where(high > low, high - low, 1.0)
        return jnp.where(high > low, 2.0 * ((omega - low) / width) - 1.0, 0.0)

    def denormalise(self, unit: jax.Array) -> jax.Array:
        """Inverse of `normalise`, `[..., D]`: exact at -1 and 1, linear beyond them."""
        low, high = self._bounds()
        return jnp.where(high > low, 0.5 * ((1.0 - unit) * low + (1.0 + unit) * high), low)

    def _bounds(self) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(self.low), jnp.asarray(self.high)

    def _changed(self, model: Any) -> dict[str, Any]:
        return {field: attrgetter(field)(model) for field in self.fields}

    def _check_one(self, omega: Any) -> None:
        if np.shape(omega) != (self.size,):
            raise UserError(
                f"omega has shape {np.shape(omega)}, expected ({self.size},) for "
                f"{', '.join(self.names)}: apply one omega at a time, or use batched() or vmap."
            )


def _replaced(model: Any, changed: Mapping[str, Any]) -> Any:
    """Returns a dataclass with the (dotted) fields in `changed` replaced."""
    for field, value in changed.items():
        head, _, rest = field.partition(".")
        inner = _replaced(getattr(model, head), {rest: value}) if rest else value
        model = dataclasses.replace(model, **{head: inner})
    return model


def make_set(task: Task, ranges: Mapping[str, tuple[float, float]]) -> UncertaintySet:
    """Builds the box of `ranges` over the named parameters of `task`.

    Args:
      task: the world whose parameters vary.
      ranges: `(low, high)` by parameter name; its order is the order of omega's entries.

    Returns:
      The set, with bounds in the parameters' own units.

    Raises:
      UserError: if `ranges` is empty, a parameter is unknown, or a range is reversed, not finite or
        not a pair.
    """
    if not ranges:
        raise UserError(f"ranges is empty: name at least one of {', '.join(task.parameters)}.")
    for name, bounds in ranges.items():
        check_choice(f"{task.name} parameter", name, task.parameters)
        if np.shape(bounds) != (2,):
            raise UserError(f"{name}={bounds!r} is no range: give (low, high).")
        low, high = bounds
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError(f"{name}: range ({low}, {high}) is not finite: give finite bounds.")
        if low > high:
            raise UserError(f"{name}: low={low:g} is above high={high:g}; swap them.")
    return UncertaintySet(
        names=tuple(ranges),
        low=tuple(float(low) for low, _ in ranges.values()),
        high=tuple(float(high) for _, high in ranges.values()),
        leaves=tuple(task.parameters[name] for name in ranges),
    )


def scenario(
    name: str, version: str = "v5", flavour: str = "paper", engine: str = ENGINES[0]
) -> tuple[Task, UncertaintySet]:
    """Builds one of the M2TD3 paper's scenarios, or one of gymnax's.

    Args:
      name: a key of `SCENARIOS` or of `GYMNAX_SCENARIOS`; the latter have one version, flavour and
        engine alone, so leave the other arguments out.
      version: Gymnasium's version of the task; `"v4"` has the rewards of v2, which the paper used.
      flavour: one of `FLAVOURS`, whose differences `envs.scenarios` explains.
      engine: `"mjx"`, or `"analytic"`: the closed form of `envs.pendulum`, 25 to 36
        times faster on CPU, which InvertedPendulum alone has. The set fits both, and MuJoCo C.

    Returns:
      `(task, uncertainty)`.

    Raises:
      UserError: if the name, the version, the flavour or the engine is unknown, or the scenario
        lacks it.
    """
    family, ranges = scenario_ranges(name, flavour, version, engine)
    if name in GYMNAX_SCENARIOS:
        from jaxsafe.envs import gymnax  # takes seconds to import

        task = gymnax.make(family)
    else:
        make = pendulum.make if engine == "analytic" else mujoco_tasks.make
        task = make(f"{family}-{version}")
    return task, make_set(task, ranges)
