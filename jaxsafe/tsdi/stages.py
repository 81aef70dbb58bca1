# SPDX-License-Identifier: Apache-2.0
"""Estimates as stages of a run: one for each model that is corrected."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsafe import lm
from jaxsafe.core import parallel
from jaxsafe.core.checks import UserError
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Program, Stage
from jaxsafe.core.run import Folder
from jaxsafe.lm import hf
from jaxsafe.tsdi import bias, models, table_file
from jaxsafe.tsdi.config import Config
from jaxsafe.tsdi.experiment import Experiment
from jaxsafe.tsdi.sources import Source
from jaxsafe.tsdi.table_file import Made
from jaxsafe.tsdi.types import Pair, Params, Table


class Given(NamedTuple):
    """What an estimate reads and does not change."""

    pair: Pair
    ids: Any  # [K / B, B, P + L] int32, or its shape


def stage_name(name: str) -> str:
    """Of the estimate of a model's bias."""
    return f"bias_{name}"


def read(source: Source, folder: Folder, name: str, seed: int) -> Params:
    """A model's parameters, float32.

    Raises:
      UserError: its folder is missing or damaged, or of another decoder than the source's.
    """
    path = source.place(folder, name, seed)
    if not path.is_dir():
        raise UserError(f"{path} is missing: train that model first, or name another.")
    config, params = hf.load(path, dtype="float32")
    models.check_alike(config, source.config)
    return params


def draws_of(
    source: Source, experiment: Experiment, config: Config, pair: Pair, pool: str, seed: int
) -> np.ndarray:
    """Random prompts and answers `[K / B, B, P + L]` of one seed, in the model's template."""
    author = None
    if config.prefix != "random":
        params = pair.safe if config.prefix == "safe" else pair.reference
        author = lm.prepare(params, decoder_of(source))
    return models.draws(
        jax.random.fold_in(jax.random.key(seed), 77),
        source.pool(pool, experiment.pool_file),
        models.template_of(source.tokenizer, source.template),
        config,
        author,
        source.stop_ids(),
        source.tokenizer.pad_token_id or 0,
    )


def made_of(source: Source, experiment: Experiment, pair: Pair, seed: int) -> Made:
    """What this run's table is made of."""
    around = models.template_of(source.tokenizer, source.template)
    return models.made(pair, source.tokenizer, around, experiment.bias, experiment.pool, seed)


def chosen_table(source: Source, experiment: Experiment, pair: Pair, seed: int) -> Table | None:
    """The table of `experiment.table`; None where the run's own estimate is to be taken off.

    Raises:
      UserError: it is none, it was made for other models, tokenizer or template, or it has fewer
        positions than are to be corrected.
    """
    if not experiment.table:
        return None
    made = dataclasses.asdict(made_of(source, experiment, pair, seed))
    expected = {name: made[name] for name in table_file.MUST_AGREE}
    found = table_file.load(experiment.table, expected)[0]
    how = experiment.decoding
    wanted, positions = max((how.length, *how.lengths)), found.bias.shape[0]
    if wanted > positions:
        raise UserError(
            f"{experiment.table} has {positions} positions, and decoding.length or lengths has "
            f"{wanted}: give {positions} at most, or estimate a longer table."
        )
    return found


def decoder_of(source: Source) -> lm.DecoderConfig:
    """The source's decoder in float32, as a bias is a small difference of large numbers."""
    return dataclasses.replace(source.config, dtype="float32", param_dtype="float32")


def stages(experiment: Experiment, source: Source) -> list[Stage]:
    """One estimate per safe model."""
    names = experiment.safe if experiment.source == "trained" else ("safe",)
    return [_stage(name, experiment, source) for name in names]


def _stage(name: str, experiment: Experiment, source: Source) -> Stage:
    config, decoder = experiment.bias, decoder_of(source)
    model = models.of_decoder(decoder)

    def given(folder: Folder, seed: int) -> Given:
        each = (read(source, folder, x, seed) for x in (name, experiment.reference))
        pair = Pair(*each)
        chosen_table(source, experiment, pair, seed)  # a wrong one is refused ahead of the work
        ids = draws_of(source, experiment, config, pair, experiment.pool, seed)
        models.check_logits(ids[0, :2], config, model, pair)
        return Given(pair, jnp.asarray(ids))

    def shapes() -> Given:
        params = jax.eval_shape(lambda: lm.init(jax.random.key(0), decoder))
        around = models.template_of(source.tokenizer, source.template)
        width = sum(map(len, around)) + config.prompt_length + config.positions
        rows = (config.draws // config.batch_size, config.batch_size, width)
        return Given(Pair(params, params), jax.ShapeDtypeStruct(rows, jnp.int32))

    def chunk(state: Any, first: jax.Array, length: int, held: Given) -> Any:
        return models.chunk(state, first, length, held.ids, config, model, held.pair)

    def unbuilt(state: Any, first: jax.Array, length: int) -> Any:
        raise RuntimeError("an estimate needs the run folder: build its program")

    def build(stage: Stage, options: RunOptions, mesh: Mesh) -> Program:
        folder = Folder(pathlib.Path(options.out or ""))

        def alone(state: Any, first: jax.Array, length: int) -> Any:
            """Of the first seed, to look for a NaN in."""
            return chunk(state, first, length, given(folder, options.seed))

        stage = dataclasses.replace(stage, chunk=alone)
        return Estimation(stage, options, mesh, given, shapes, chunk)

    return Stage(
        name=stage_name(name),
        init=lambda key: bias.init(key, config, decoder.vocab_size),
        chunk=unbuilt,
        num_steps=config.draws // config.batch_size,
        parameters=lambda state: state.mean,
        result=lambda state: state.replace(key=None),
        unit="prompts",
        units_per_step=config.batch_size,
        build=build,
    )


class Estimation(Program):
    """A program whose chunks are given, beside the state, two models and the draws.

    They are read when the first chunk runs, as earlier stages may have to train the models first.
    """

    def __init__(
        self,
        stage: Stage,
        options: RunOptions,
        mesh: Mesh,
        given: Callable[[Folder, int], Given],
        shapes: Callable[[], Given],
        step: Callable[..., Any],
    ):
        super().__init__(stage, options, mesh)
        self._given, self._given_shapes, self._step = given, shapes, step
        self._held: list[Given] = []

    def lower(self, length: int) -> Any:
        """A chunk of `((state, given), first)`, ready to be compiled."""
        mapped = parallel.map_seeds(
            lambda both, first: self._step(both[0], first, length, both[1]),
            self.mesh,
            num_shared=1,
            in_turn=self.options.in_turn,
        )
        seeds, sharding = self.options.num_seeds, parallel.seed_sharding(self.mesh)
        held = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype, sharding=sharding),
            self._given_shapes(),
        )
        first = jax.ShapeDtypeStruct((), jnp.int32)
        return jax.jit(mapped).lower((self.shapes(), held), first)

    def chunk(self, length: int) -> Any:
        """The compiled chunk `(state, first) -> (state, metrics)`."""
        program = self.compiled(length)

        def call(state: Any, first: jax.Array) -> Any:
            if not self._held:
                self._held.append(self._read())
            return program((state, self._held[0]), first)

        return call

    def _read(self) -> Given:
        first, count = self.options.seed, self.options.num_seeds
        folder = Folder(pathlib.Path(self.options.out or ""))
        each = [self._given(folder, seed) for seed in range(first, first + count)]
        stacked = jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x]), *each)
        return jax.device_put(stacked, parallel.seed_sharding(self.mesh))
