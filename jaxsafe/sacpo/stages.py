# SPDX-License-Identifier: Apache-2.0
"""What the binary trains: each stage from the Hugging Face folder that the one before it left."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsafe.core import parallel
from jaxsafe.core.checks import UserError
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Program, Stage
from jaxsafe.core.run import Folder
from jaxsafe.lm import decoder, hf, lora, optimiser, tiny
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.sacpo import chain, sharded, train
from jaxsafe.sacpo.config import Config, adapter_of
from jaxsafe.sacpo.experiment import Experiment
from jaxsafe.sacpo.sources import Source
from jaxsafe.sacpo.train import Plan, Run
from jaxsafe.sacpo.types import Params


class Member(NamedTuple):
    """One policy to train.

    Attributes:
      name: of the policy, with its ratio.
      parent: the policy it starts from; "" for a fresh one.
      plan: its stage and data.
    """

    name: str
    parent: str
    plan: Plan


def members(experiment: Experiment, source: Source, model: DecoderConfig) -> list[Member]:
    """The policies to train, parents first.

    Raises:
      UserError: data do not fit a stage; it is named.
    """
    found = []
    for name, parent, data, temperature in chain.order(experiment):
        stage = chain.stage_of(experiment, data, temperature)
        # One model over many devices was measured with whole rows.
        share = experiment.model.spread == "seeds"
        try:
            plan = train.plan(model, stage, source.training(data, stage.loss), share)
        except UserError as error:
            raise UserError(f"stage {name}: {error}") from error
        found.append(Member(name, parent, plan))
    return found


def stages(experiment: Experiment, source: Source, model: DecoderConfig) -> list[Stage]:
    """One training stage per policy."""
    return [stage(x, experiment, source) for x in members(experiment, source, model)]


def stage(member: Member, experiment: Experiment, source: Source, models: str = "") -> Stage:
    """The training stage of one policy.

    Args:
      member: what is trained, on what.
      experiment: the run's.
      source: of the tokenizer.
      models: folder of an earlier run with the parent in it; empty: this run's own.
    """
    plan = member.plan

    def start(key: jax.Array) -> Run:
        """For shapes alone where there is a parent, whose parameters are not there yet."""
        key_params, key = jax.random.split(key)
        return train.begin(key, decoder.init(key_params, plan.config.model), plan)

    return Stage(
        name=member.name,
        init=start,
        chunk=lambda run, first, n: train.chunk(run, first, n, plan),
        num_steps=plan.config.steps,
        parameters=train.trained,
        result=train.trained,
        unit="rows",
        units_per_step=plan.config.stage.batch_size,
        build=functools.partial(_program, member, experiment, source, models),
    )


def _program(
    member: Member,
    experiment: Experiment,
    source: Source,
    models: str,
    stage: Stage,
    options: RunOptions,
    mesh: Mesh,
) -> Program:
    """What runs a stage: it writes its policies in the end, and those who come after read them."""
    plan, base = member.plan, experiment.model.folder
    own = Folder(pathlib.Path(options.out or "")).models
    earlier = pathlib.Path(models) if models else own
    starts = [
        place(earlier, member.parent, seed) if member.parent else pathlib.Path(base)
        for seed in seeds_of(options)
    ]
    one = experiment.model.spread == "parameters"

    def result(run: Run) -> dict:
        params = train.policy(run, plan)
        if one:
            out = place(own, member.name, options.seed)
            save_one(starts[0], out, plan.config, params)
            save_adapters(out, plan.config, run.learner.adapters, starts[0])
        else:
            host, adapters = parallel.to_host((params, run.learner.adapters))
            if parallel.is_main_process():
                save(own, member.name, options, plan.config.model, host, source.tokenizer)
                for i, seed in enumerate(seeds_of(options)):
                    own_part = jax.tree.map(lambda x, i=i: x[i], adapters)
                    save_adapters(place(own, member.name, seed), plan.config, own_part, starts[i])
        parallel.largest(0)  # the next stage reads them in every process
        return {}

    stage = dataclasses.replace(stage, result=result)
    if one:
        tensor = experiment.model.tensor
        return sharded.Sharded(stage, options, plan, starts[0], tensor, source.blank)
    if not (member.parent or base):
        return Program(stage, options, mesh)
    begin = functools.partial(train.begin, plan=plan)
    return Continued(stage, options, mesh, lambda: load(starts), begin)


class Continued(Program):
    """A program whose seeds start from what those of an earlier stage came to."""

    def __init__(
        self,
        stage: Stage,
        options: RunOptions,
        mesh: Mesh,
        starts: Callable[[], Params],
        begin: Callable[[jax.Array, Params], Any],
    ):
        super().__init__(stage, options, mesh)
        self._starts = starts
        self._begin = jax.jit(parallel.map_seeds(lambda both: begin(*both), mesh))
        self.init = self._init

    def _init(self, keys: jax.Array) -> Any:
        """States `[num_seeds, ...]` of keys `[num_seeds]`."""
        starts = jax.device_put(self._starts(), parallel.seed_sharding(self.mesh))
        return self._begin((keys, starts))


def place(models: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Where a policy's Hugging Face folder is among the `models` of a run."""
    return models / name / f"seed{seed}"


def seeds_of(options: RunOptions) -> range:
    """The seeds of a run."""
    return range(options.seed, options.seed + options.num_seeds)


def save(
    models: pathlib.Path,
    name: str,
    options: RunOptions,
    config: DecoderConfig,
    params: Params,
    tokenizer: Any,
) -> None:
    """Writes policies with leaves `[num_seeds, ...]`."""
    for i, seed in enumerate(seeds_of(options)):
        one = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), params)
        tiny.save(place(models, name, seed), config, one, tokenizer)


def save_one(start: pathlib.Path, out: pathlib.Path, config: Config, params: Params) -> None:
    """Writes a policy in the dtype of the computation, beside the tokenizer of where it began."""
    half = jax.jit(lambda p: optimiser.cast(p, config.model.dtype))(params)
    hf.save(out, config.model, half, like=start)


def save_adapters(policy: pathlib.Path, config: Config, adapters: Any, start: pathlib.Path) -> None:
    """Writes a policy's adapters, where it has any, beside the merged model it is."""
    options = adapter_of(config.stage)
    if options:
        lora.save(policy / "adapter", adapters, options, base=str(start) if start.name else None)


def load(paths: Sequence[pathlib.Path]) -> Params:
    """Reads one policy per seed, stacked, as numpy float32.

    Raises:
      UserError: a folder is missing or damaged.
    """
    each = []
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is missing: train the stage before this one first.")
        each.append(jax.tree.map(np.asarray, hf.load(path, dtype="float32")[1]))
    return jax.tree.map(lambda *x: np.stack(x), *each)
