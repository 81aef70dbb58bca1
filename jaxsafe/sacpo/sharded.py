# SPDX-License-Identifier: Apache-2.0
"""One stage of one large model over a mesh: rows over data x fsdp, parameters over fsdp.

Stands where `core.program.Program` stands for seeds, so that the same loop trains it, logs,
checkpoints and resumes. Parameters come sharded from the folder of the stage before, references
from a cache on disk; the model is never whole on one device, nor twice in memory.
"""

import dataclasses
import pathlib
import time
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxsafe.core import checks, loop, parallel
from jaxsafe.core.checks import UserError
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Program, Stage
from jaxsafe.lm import hf, reference_cache, sharding
from jaxsafe.sacpo import algorithm, batches, collectives
from jaxsafe.sacpo.train import Plan, Run
from jaxsafe.sacpo.types import Batch, Params, State


class Sharded(Program):
    """A stage whose state is spread over all devices; its rows are those of one seed."""

    def __init__(
        self,
        stage: Stage,
        options: RunOptions,
        plan: Plan,
        start: pathlib.Path,
        tensor: int = 1,
        blank: bool = False,
    ):
        """Plans the stage; nothing is read before `init`.

        Args:
          stage: names and counts; its `init` and `chunk` are replaced.
          options: of the run; one seed.
          plan: config, data and order.
          start: Hugging Face folder of the policy to start from.
          tensor: devices that share each matrix product.
          blank: whether the data are but of the right shape, for a dry run alone.

        Raises:
          UserError: several seeds, or rows of a batch that do not divide over the devices.
        """
        if options.num_seeds != 1:
            raise UserError(f"--num_seeds={options.num_seeds}: a folder's model trains one; set 1.")
        self.devices = sharding.make_mesh(tensor=tensor)
        self.plan, self.start, self.blank = plan, start, blank
        rows = plan.config.stage.batch_size // plan.config.stage.accumulation
        ways = self.devices.size // tensor
        if rows % ways:
            raise UserError(
                f"{rows} rows at a time (batch_size / accumulation) do not divide over {ways} "
                "devices: change one of the two."
            )
        super().__init__(stage, options, parallel.seed_mesh(1))
        self.init = self._init
        self._whole = NamedSharding(self.devices, PartitionSpec())

    def keys(self) -> jax.Array:
        """The seed's key."""
        return jax.random.key(self.options.seed)

    def shapes(self) -> Run:
        """Shapes and placement of the state, without allocating it."""
        run = jax.eval_shape(self._fresh, jax.random.key(0))
        where = sharding.shardings(run, self.devices)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), run, where
        )

    def _fresh(self, key: jax.Array) -> Run:
        learner = algorithm.init(key, self.plan.config)
        rows = jax.ShapeDtypeStruct(self.plan.data.ids.shape[:2], jnp.float32)
        stage = self.plan.config.stage
        cached = stage.loss != "sft" and stage.reference == "cached"
        return Run(learner, jnp.zeros(rows.shape) if cached else None)

    def _init(self, key: jax.Array) -> Run:
        """Reads the policy, places it, and fills the cache of references."""
        config, where = self.plan.config, self.shapes()
        shardings = jax.tree.map(lambda x: x.sharding, where)
        kind = config.model.dtype if config.stage.lora.rank else "float32"
        _, params = hf.load(self.start, shardings.learner.params, kind)
        with jax.set_mesh(self.devices):
            learner: State = jax.jit(
                lambda k, p: algorithm.init(k, config, p),
                out_shardings=shardings.learner,
                donate_argnums=1,
            )(key, params)
        if where.reference is None:
            return Run(learner, None)
        return Run(learner, jax.device_put(self._references(learner.params), self._whole))

    def _references(self, params: Params) -> np.ndarray:
        """log pi_ref `[N, K]`, from the disk where they are there."""
        config, data = self.plan.config, self.plan.data
        size = config.stage.batch_size // config.stage.accumulation
        rows = [
            reference_cache.row_id(x.reshape(-1), m.reshape(-1))
            for x, m in zip(np.asarray(data.ids), np.asarray(data.completion), strict=True)
        ]
        files = sorted(self.start.glob("*.safetensors"))
        key = {
            "model": reference_cache.fingerprint_files(*files, self.start / "config.json"),
            "dtype": config.model.dtype,
            "width": str(data.ids.shape[-1]),
        }
        step = jax.jit(lambda p, b: algorithm.answer_sums(p, b, config))

        def compute(begin: int, end: int) -> np.ndarray:
            taken = np.arange(begin, begin + size) % data.ids.shape[0]
            part = Batch(*(np.asarray(x)[taken] for x in data[:3]))
            with jax.set_mesh(self.devices):
                found = step(params, sharding.place(part, self.devices))
            return parallel.to_host(found)[: end - begin]

        # Each process keeps a whole cache of its own, as all of them take part in computing it.
        process = f".{jax.process_index()}" if jax.process_index() else ""
        name = f"{self.stage.name}.references{process}"
        out = pathlib.Path(self.options.out or "") / "checkpoints" / name
        columns = tuple(f"sequence_{k}" for k in range(data.ids.shape[1]))
        with loop.progress_bar(self.options, f"{self.stage.name}: references") as bar:

            def tell(done: int, total: int) -> None:
                bar.update(done / total - bar.n)

            cache = reference_cache.fill(out, key, columns, rows, compute, size, tell)
        return np.array(cache.values)

    def chunk(self, length: int) -> Any:
        """The compiled chunk `(state, first) -> (state, metrics)`; the state is donated."""
        if length not in self._compiled:
            lowered, data = self._lowered(length)
            compiled = self._timed(lowered)
            placed: list[Batch] = []

            def call(run: Run, first: jax.Array) -> Any:
                if not placed:
                    placed.append(jax.device_put(data, self._whole))
                return compiled(run, jax.device_put(first, self._whole), placed[0])

            self._compiled[length] = call
        return self._compiled[length]

    def _timed(self, lowered: Any) -> Any:
        clock = time.perf_counter()
        compiled = lowered.compile()
        self.compile_s += time.perf_counter() - clock
        return compiled

    def _lowered(self, length: int) -> tuple[Any, Batch]:
        plan, rows = self.plan, sharding.batch_sharding(self.devices)
        data = Batch(*jax.tree.map(np.asarray, tuple(plan.data)))
        shapes = self.shapes()

        def steps(run: Run, first: jax.Array, data: Batch) -> tuple[Run, dict[str, jax.Array]]:
            key = jax.random.fold_in(run.learner.key, 2**31)

            def one(learner: State, step: jax.Array) -> tuple[State, dict[str, jax.Array]]:
                batch = batches.rows_at(data, plan.order.take(key, step), run.reference)
                batch = jax.tree.map(lambda x: lax.with_sharding_constraint(x, rows), batch)
                return algorithm.update(learner, batch, plan.config)

            learner, traced = lax.scan(one, run.learner, first + jnp.arange(length))
            means = jax.tree.map(lambda x: jnp.mean(x)[None], traced)
            return run.replace(learner=learner), means

        out = jax.tree.map(lambda x: x.sharding, shapes)
        first = jax.ShapeDtypeStruct((), jnp.int32, sharding=self._whole)
        told = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._whole), data
        )
        with jax.set_mesh(self.devices):
            jitted = jax.jit(steps, donate_argnums=0, out_shardings=(out, self._whole))
            return jitted.lower(shapes, first, told), data

    def check_memory(self) -> None:
        """Raises `UserError` where this host has no room for its devices' parts of the state."""
        if self.options.dry_run:
            return
        if self.blank or not self.start.name:
            raise UserError(
                "there is nothing to train on: name --model.folder and --files.helpful, or look "
                "at the step with --dry_run."
            )
        if jax.default_backend() != "cpu":
            return
        checks.check_memory(
            f"the state of {self.stage.name}, {self.state_bytes() / 2**30:.1f} GiB,",
            self.bytes_per_device() * jax.local_device_count(),
            "Train it on more hosts, or look at its step with --dry_run.",
        )

    def bytes_per_device(self) -> int:
        """Bytes of the state that one device holds."""
        shapes = self.shapes()
        raw = jax.tree.map(
            lambda x: (
                jax.ShapeDtypeStruct((*x.shape, 2), jnp.uint32)
                if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
                else x
            ),
            shapes,
        )
        return sharding.bytes_per_device(raw, sharding.shardings(raw, self.devices))

    def num_parameters(self) -> int:
        """Trained parameters."""
        shapes = self.stage.parameters(self.shapes())
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))

    def describe(self) -> dict[str, Any]:
        """What a dry run tells: devices, bytes on each, and the collectives of one update."""
        key = (self._sizes(), self.plan.data.ids.shape, self.devices.size)
        if key in self._told:
            return self._told[key] | {"compile_s": 0.0}
        compiled = self._timed(self._lowered(1)[0])
        analysis = compiled.memory_analysis()
        self._told[key] = {
            "parameters": self.num_parameters(),
            "devices": self.devices.size,
            "state_gib_per_device": round(self.bytes_per_device() / 2**30, 3),
            "temporary_gib_per_device": round(
                getattr(analysis, "temp_size_in_bytes", 0) / 2**30, 3
            ),
            "compile_s": round(self.compile_s, 1),
        } | collectives.executed(compiled.as_text())
        return self._told[key]

    # Of programs that differ in the temperature alone, one is compiled for all.
    _told: ClassVar[dict[Any, dict[str, Any]]] = {}

    def _sizes(self) -> Any:
        config = self.plan.config
        stage = dataclasses.replace(config.stage, temperature=1.0)
        return dataclasses.replace(config, stage=stage)
