# SPDX-License-Identifier: Apache-2.0
"""What the binary trains: each stage from the Hugging Face folder that the one before it left."""

import dataclasses
import pathlib
from collections.abc import Callable
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
from jaxsafe.lm import decoder, hf, tiny
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.sacpo import experiment as experiments
from jaxsafe.sacpo import train
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
    """The policies to train, parents first."""
    found = []
    for name, parent, data, temperature in experiments.chain(experiment):
        stage = experiments.stage_of(experiment, data, temperature)
        found.append(
            Member(name, parent, train.plan(model, stage, source.training(data, stage.loss)))
        )
    return found


def stages(members: list[Member], tokenizer: Any) -> list[Stage]:
    """One training stage per policy."""
    return [_stage(member, tokenizer) for member in members]


def _stage(member: Member, tokenizer: Any) -> Stage:
    plan = member.plan

    def build(stage: Stage, options: RunOptions, mesh: Mesh) -> Program:
        folder = Folder(pathlib.Path(options.out or ""))

        def result(run: Run) -> Params:
            """Writes the policies, and returns them."""
            params = parallel.to_host(train.policy(run))
            if parallel.is_main_process():
                save(folder, member.name, options, plan.config.model, params, tokenizer)
            parallel.largest(0)  # the next stage reads them in every process
            return params

        stage = dataclasses.replace(stage, result=result)
        if not member.parent:
            return Program(stage, options, mesh)
        return Continued(
            stage,
            options,
            mesh,
            lambda: load(folder, member.parent, options),
            lambda key, params: train.begin(key, params, plan),
        )

    def start(key: jax.Array) -> Run:
        """For shapes alone where there is a parent, whose parameters are not there yet."""
        key_params, key = jax.random.split(key)
        return train.begin(key, decoder.init(key_params, plan.config.model), plan)

    return Stage(
        name=member.name,
        init=start,
        chunk=lambda run, first, n: train.chunk(run, first, n, plan),
        num_steps=plan.config.steps,
        parameters=train.policy,
        result=train.policy,
        unit="rows",
        units_per_step=plan.config.stage.batch_size,
        build=build,
    )


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


def place(folder: Folder, name: str, seed: int) -> pathlib.Path:
    """Where a policy's Hugging Face folder is."""
    return folder.models / name / f"seed{seed}"


def save(
    folder: Folder,
    name: str,
    options: RunOptions,
    config: DecoderConfig,
    params: Params,
    tokenizer: Any,
) -> None:
    """Writes policies with leaves `[num_seeds, ...]`."""
    for i in range(options.num_seeds):
        one = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), params)
        tiny.save(place(folder, name, options.seed + i), config, one, tokenizer)


def load(folder: Folder, name: str, options: RunOptions) -> Params:
    """Reads them again, stacked, as numpy.

    Raises:
      UserError: a folder is missing or damaged.
    """
    each = []
    for i in range(options.num_seeds):
        path = place(folder, name, options.seed + i)
        if not path.is_dir():
            raise UserError(f"{path} is missing: run --stage={name.partition('@')[0]} first.")
        each.append(jax.tree.map(np.asarray, hf.load(path)[1]))
    return jax.tree.map(lambda *x: np.stack(x), *each)
