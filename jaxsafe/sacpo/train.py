# SPDX-License-Identifier: Apache-2.0
"""One stage over its data, for one seed: references once ahead, then updates in shuffled passes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from jaxsafe.core.checks import UserError
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.sacpo import algorithm, batches, losses
from jaxsafe.sacpo.algorithm import Metrics
from jaxsafe.sacpo.batches import Order
from jaxsafe.sacpo.config import PAIRED, Config, Stage
from jaxsafe.sacpo.types import Batch, Params, State


class Run(struct.PyTreeNode):
    """A learner, and what the reference says of the data."""

    learner: State
    reference: jax.Array | None  # [N, K]; None where the learner keeps the reference itself


@dataclasses.dataclass(frozen=True)
class Plan:
    """A stage with its data.

    Attributes:
      config: of the learner.
      data: `[N, K, T]`, on the host.
      order: which rows come when.
    """

    config: Config
    data: Batch
    order: Order


def plan(model: DecoderConfig, stage: Stage, data: Batch, share_prompts: bool = True) -> Plan:
    """Fits data and stage to each other.

    Args:
      model: the decoder.
      stage: what is done.
      data: pairs `[N, 2, T]`, or for sft and kto single answers `[N, 1, T]`; pairs serve these too,
        chosen answers to learn, or chosen ones as desirable.
      share_prompts: run the prompt of a pair once for both of its answers, where it is the same.

    Raises:
      UserError: too few rows for a batch or an epoch, or data of another kind than the loss needs.
    """
    paired = data.ids.shape[1] == 2
    if stage.loss == "sft" and paired:
        data = Batch(*(x[:, :1] for x in data[:3]))
    elif stage.loss == "kto":
        data = batches.as_labelled(data) if paired else data
    elif stage.loss != "sft" and not paired:
        raise UserError(f"loss={stage.loss!r} needs pairs, the data are single answers: use kto.")
    weights = (1.0, 1.0)
    if stage.loss == "kto":
        if data.desirable is None:
            raise UserError("loss='kto' needs labels, the data have none: give labelled answers.")
        number = int(np.sum(np.asarray(data.desirable)))
        weights = losses.kto_weights(number, len(data.desirable) - number, stage.kto_balance)
    else:
        data = data._replace(desirable=None)
    order = batches.order(data, stage)
    if stage.loss == "kto" and stage.reference == "cached":
        data = batches.with_mismatches(data)
    steps = int(stage.epochs * order.per_epoch)
    if not steps:
        raise UserError(
            f"epochs={stage.epochs} of {order.per_epoch} batches is no update: raise epochs."
        )
    shared = batches.shared_prompt(data) if share_prompts and stage.loss in PAIRED else None
    config = Config(model, stage, steps, *weights, batches.max_completion(data), shared)
    return Plan(config, data, order)


def begin(key: jax.Array, params: Params | None, plan: Plan) -> Run:
    """Starts the stage from a policy, None for a fresh one. `key` is consumed."""
    stage = plan.config.stage
    learner = algorithm.init(key, plan.config, params)
    if stage.loss == "sft" or stage.reference == "online":
        return Run(learner, None)
    return Run(learner, sums(learner.params, plan.data, plan.config))


def sums(params: Params, data: Batch, config: Config, rows: int = 64) -> jax.Array:
    """log pi(answer | prompt) `[N, K]` of all rows, some at a time."""
    total = data.ids.shape[0]
    rows = min(rows, total)
    count = -(-total // rows)
    # The last ones overlap where they do not fill a batch.
    starts = np.minimum(np.arange(count) * rows, total - rows)
    held = jax.tree.map(jnp.asarray, Batch(*data[:3]))

    def one(start: jax.Array) -> jax.Array:
        part = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, rows), held)
        return algorithm.answer_sums(params, part, config)

    found = lax.map(one, jnp.asarray(starts))
    where = (starts[:, None] + np.arange(rows)).reshape(-1)
    first = np.unique(where, return_index=True)[1]
    return found.reshape(-1, data.ids.shape[1])[first]


def chunk(run: Run, first: jax.Array, length: int, plan: Plan) -> tuple[Run, Metrics]:
    """Updates `first` `[]` to `first + length - 1` in one program.

    Returns:
      the run, and the metrics' means, scalars.
    """
    data = jax.tree.map(jnp.asarray, plan.data)
    # Of its own, so that the update's draws are not these.
    key = jax.random.fold_in(run.learner.key, 2**31)

    def one(learner: State, step: jax.Array) -> tuple[State, Metrics]:
        batch = batches.rows_at(data, plan.order.take(key, step), run.reference)
        return algorithm.update(learner, batch, plan.config)

    learner, traced = lax.scan(one, run.learner, first + jnp.arange(length))
    return run.replace(learner=learner), jax.tree.map(jnp.mean, traced)


def policy(run: Run, plan: Plan) -> Any:
    """The policy's parameters, `[num_seeds, ...]` where the run's leaves are; adapters merged."""
    return algorithm.policy(run.learner, plan.config)


def trained(run: Run) -> Any:
    """What the stage changes: all parameters, or adapters alone."""
    return algorithm.trained(run.learner)
