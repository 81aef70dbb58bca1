# SPDX-License-Identifier: Apache-2.0
"""A stage of a run, and the compiled program it becomes over seeds and devices."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsafe.core import checkpoint, checks, parallel
from jaxsafe.core.flags import RunOptions


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training program of a run; every function is pure and for one seed.

    Attributes:
      name: names its rows and its checkpoints.
      init: `key -> state`.
      chunk: `(state, first step, length) -> (state, metrics)`, metrics a flat dict of scalars.
      num_steps: steps in all.
      parameters: `state -> tree` of the trained parameters, to be counted.
      result: `states [num_seeds, ...] -> tree` of what is scored once the stage is done.
      unit: what one step does `units_per_step` of, for rates and rows.
      units_per_step: how many, per seed.
      build: `(stage, options, mesh) -> Program`, where it is not to be the plain one.
    """

    name: str
    init: Callable[[jax.Array], Any]
    chunk: Callable[[Any, jax.Array, int], tuple[Any, dict[str, jax.Array]]]
    num_steps: int
    parameters: Callable[[Any], Any]
    result: Callable[[Any], Any]
    unit: str = "env_steps"
    units_per_step: int = 1
    build: Callable[["Stage", RunOptions, Mesh], "Program"] | None = None


def build(stage: Stage, options: RunOptions, mesh: Mesh) -> "Program":
    """The stage's own program, or the plain one: seeds over the mesh's devices."""
    return (stage.build or Program)(stage, options, mesh)


@dataclasses.dataclass
class Program:
    """A stage mapped over this run's seeds and devices."""

    stage: Stage
    options: RunOptions
    mesh: Mesh

    def __post_init__(self) -> None:
        seeds = parallel.map_seeds(self.stage.init, self.mesh)
        self.init: Callable[[jax.Array], Any] = jax.jit(seeds)
        self.compile_s = 0.0
        self._compiled: dict[int, Any] = {}

    def keys(self) -> jax.Array:
        """One typed key per seed, placed on the mesh."""
        seeds = self.options.seed, self.options.num_seeds
        # Made where they belong: one process cannot place arrays on the devices of another.
        sharding = parallel.seed_sharding(self.mesh)
        return jax.jit(lambda: parallel.seed_keys(*seeds), out_shardings=sharding)()

    def shapes(self) -> Any:
        """Shapes, dtypes and placement of the state, without allocating it."""
        sharding = parallel.seed_sharding(self.mesh)
        one = jax.eval_shape(lambda: self.stage.init(jax.random.key(0)))
        seeds = self.options.num_seeds
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype, sharding=sharding), one
        )

    def lower(self, length: int) -> Any:
        """A chunk of so many steps, ready to be compiled; other programs have their own."""
        mapped = parallel.map_seeds(
            lambda state, first: self.stage.chunk(state, first, length),
            self.mesh,
            num_shared=1,
            in_turn=self.options.in_turn,
        )
        first = jax.ShapeDtypeStruct((), jnp.int32)
        return jax.jit(mapped, donate_argnums=0).lower(self.shapes(), first)

    def compiled(self, length: int) -> Any:
        """What `lower` gives, compiled once for each length."""
        if length not in self._compiled:
            start = time.perf_counter()
            self._compiled[length] = self.lower(length).compile()
            self.compile_s += time.perf_counter() - start
        return self._compiled[length]

    def chunk(self, length: int) -> Any:
        """The compiled chunk `(state, first) -> (state, metrics)`; the state is donated."""
        return self.compiled(length)

    def length_at(self, step: int) -> int:
        """Steps of the chunk that begins at `step`: up to the next row, or to the end."""
        log_every = self.options.log_every
        return min(log_every - step % log_every, self.stage.num_steps - step)

    def state_bytes(self) -> int:
        """Size of the state of all seeds."""
        leaves = checkpoint.flatten(self.shapes()).values()
        return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in leaves)

    def check_memory(self) -> None:
        """Raises `UserError` where the state of all seeds is too large for this machine."""
        checks.check_memory(
            f"the training state of {self.stage.name} over {self.options.num_seeds} seeds",
            self.state_bytes(),
            "Lower the replay capacity or --num_seeds.",
        )

    def num_parameters(self) -> int:
        """Trained parameters of one seed."""
        # Traced, as `parameters` may take a part of an array.
        of_key = lambda key: self.stage.parameters(self.stage.init(key))  # noqa: E731
        found = jax.eval_shape(of_key, jax.random.key(0))
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(found))

    def describe(self) -> dict[str, Any]:
        """What a dry run tells of one stage: parameters, memory and compile seconds."""
        analysis = self.compiled(self.length_at(0)).memory_analysis()
        temporary = getattr(analysis, "temp_size_in_bytes", 0) * self.mesh.size
        return {
            "parameters": self.num_parameters(),
            "state_mib": round(self.state_bytes() / 2**20, 1),
            "temporary_mib": round(temporary / 2**20, 1),
            "compile_s": round(self.compile_s, 1),
        }
