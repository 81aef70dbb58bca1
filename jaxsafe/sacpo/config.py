# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters of one stage (values of line/sacpo @ b489ae5b where nothing else is said)."""

import dataclasses

from jaxsafe.core import checks
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.lora import TARGETS, Lora
from jaxsafe.lm.optimiser import Optimiser
from jaxsafe.sacpo import losses

LOSSES = ("sft", "dpo", "cdpo", "ipo", "kto")
PAIRED = ("dpo", "cdpo", "ipo")
REFERENCES = ("cached", "online")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Low-rank adapters to train in place of all weights (`lm.lora`)."""

    rank: int = field(0, "r of the adapters that are trained; 0: all weights are.", low=0)
    alpha: float = field(16.0, "Their product is scaled by alpha / r.", low=1e-6)
    targets: tuple[str, ...] = field(TARGETS, "Layers that have one.", choices=TARGETS)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One alignment of a policy to data, or its supervised fine-tuning."""

    loss: str = field(
        "dpo",
        "sft: likelihood; dpo; cdpo: labels wrong with some chance; ipo; kto: unpaired.",
        choices=LOSSES,
    )
    temperature: float = field(
        0.1, "Weight of the KL: beta of the helpful stage, beta / lambda of the safe one.", low=1e-6
    )
    smoothing: float = field(0.1, "cdpo: chance that a label is wrong.", low=0.0, high=0.5)
    kto_balance: str = field(
        "weights",
        "How kto evens out its two kinds: none; weights; interleave: batches half of each; both: "
        "as trl and line/sacpo do together, twice.",
        choices=losses.BALANCES,
    )
    batch_size: int = field(64, "Rows of an update: pairs, or single answers.", low=1)
    accumulation: int = field(1, "Parts a batch is computed in, one after the other.", low=1)
    epochs: float = field(3.0, "Passes over the data.", low=0.0)
    reference: str = field(
        "cached",
        "Reference log-probabilities: computed once ahead, or in every update by a second copy.",
        choices=REFERENCES,
    )
    lora: Adapter = Adapter()
    optimiser: Optimiser = Optimiser()


def adapter_of(stage: Stage) -> Lora | None:
    """The adapters that a stage trains; None where it trains all weights."""
    given = stage.lora
    return Lora(given.rank, given.alpha, given.targets) if given.rank else None


def validate_stage(stage: Stage, prefix: str) -> None:
    """Raises `UserError` naming field, value and fix where the fields do not fit together."""
    validate_bounds(stage, prefix.rstrip("."))
    checks.check_once(f"{prefix}lora.targets", stage.lora.targets)
    if stage.batch_size % stage.accumulation:
        raise checks.UserError(
            f"{prefix}batch_size={stage.batch_size} is no multiple of {prefix}accumulation="
            f"{stage.accumulation}: give one."
        )
    if stage.loss == "kto" and stage.batch_size < 2:
        raise checks.UserError(f"{prefix}batch_size=1 leaves kto no other row: give 2 or more.")
    if stage.loss == "kto" and interleaves(stage) and stage.batch_size % 2:
        raise checks.UserError(
            f"{prefix}batch_size={stage.batch_size} cannot hold half of each kind: give an "
            "even one."
        )


def interleaves(stage: Stage) -> bool:
    """Whether batches hold half of each kind."""
    return stage.loss == "kto" and stage.kto_balance in ("interleave", "both")


@dataclasses.dataclass(frozen=True)
class Config:
    """What `init` and `update` need beside arrays. Static under jit.

    Attributes:
      model: the decoder.
      stage: what is done to it.
      steps: updates in all, over which the learning rate runs.
      desirable_weight: w_d of KTO, from `losses.kto_weights`.
      undesirable_weight: w_u.
      max_completion: most tokens of an answer; None: T - 1.
      max_prompt: most tokens of a prompt, where both answers of each pair have the same one, which
        then runs once for both; None: rows run apart.
    """

    model: DecoderConfig
    stage: Stage = Stage()
    steps: int = 1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    max_completion: int | None = None
    max_prompt: int | None = None
