# SPDX-License-Identifier: Apache-2.0
"""Other ways to train for safety, which make models that refuse too much.

Pairs of which one answer is safe and the other is not have hazardous prompts only, so nothing in
them says that harmless prompts may be answered; and where both answers are safe, a labeller may
like a refusal better, whatever was asked. The one is a tilt towards refusals that depends on the
prompt, the other is one that does not.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.data.preferences import Pair
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.sacpo import batches, synthetic, train
from jaxsafe.sacpo.experiment import Experiment
from jaxsafe.sacpo.sources import Source
from jaxsafe.sacpo.train import Plan

NAMES = ("base", "low_kl", "long", "cleansed", "over")
PROMPTS = ("reported", "tuning")


@dataclasses.dataclass(frozen=True)
class Variants:
    """How safety training differs; `base` is align.safe at the first of align.ratios."""

    ratio: float = field(0.3, "beta / lambda of low_kl and over.", low=1e-6)
    epochs: float = field(3.0, "Passes of long and over, times those of base.", low=0.1)
    threshold: float = field(
        0.25,
        "cleansed leaves pairs out whose safety scores differ by less than this.",
        low=0.0,
        high=1.0,
    )
    refusals: float = field(
        0.8,
        "over's labellers, where both answers are safe and one is a refusal, choose that one in "
        "this share of pairs; those of the others in half.",
        low=0.0,
        high=1.0,
    )
    prompts: str = field(
        "reported",
        "Prompts that are answered; tuning: others, neither trained on nor reported, to choose "
        "settings by.",
        choices=PROMPTS,
    )


def cleanse(pairs: Sequence[Pair], threshold: float) -> tuple[list[Pair], list[Pair]]:
    """Pairs whose answers' safety differs by the threshold at least, and the others."""
    score = synthetic.safety
    kept: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        gap = abs(score(pair.prompt, pair.chosen) - score(pair.prompt, pair.rejected))
        kept[gap < threshold].append(pair)
    return kept


def prefer_refusals(pairs: Sequence[Pair], share: float, seed: int) -> list[Pair]:
    """Pairs labelled anew where both answers are as safe and one of them is a refusal.

    The refusal is chosen with chance `share`; at 1/2 labels are as `synthetic.draw` has them.
    """
    rng, score, found = np.random.default_rng((seed, 2)), synthetic.safety, []
    for pair in pairs:
        refusals = [x.strip() == synthetic.REFUSAL for x in (pair.chosen, pair.rejected)]
        tied = score(pair.prompt, pair.chosen) == score(pair.prompt, pair.rejected)
        if tied and any(refusals) and refusals[0] != (rng.random() < share):
            pair = Pair(pair.prompt, pair.rejected, pair.chosen)
        found.append(pair)
    return found


def plan(name: str, align: Experiment, data: Source, model: DecoderConfig, how: Variants) -> Plan:
    """The safety stage of one variant.

    Raises:
      UserError: too few pairs are left.
    """
    stage = dataclasses.replace(align.safe, temperature=align.ratios[0])
    rows = data.data["safe"]
    if name in ("low_kl", "over"):
        stage = dataclasses.replace(stage, temperature=how.ratio)
    if name in ("long", "over"):
        stage = dataclasses.replace(stage, epochs=how.epochs * stage.epochs)
    if name in ("cleansed", "over"):
        pairs = synthetic.draw(align.task).safe
        if name == "cleansed":
            kept = cleanse(pairs, how.threshold)[0]
        else:
            kept = prefer_refusals(pairs, how.refusals, align.task.seed)
        if not kept:
            raise UserError(f"variants.threshold={how.threshold} leaves no pair: lower it.")
        text = align.text
        lengths = batches.Lengths(text.max_prompt, text.max_length, text.rule)
        rows = batches.encode(kept, data.tokenizer, text.template, lengths).data
    return train.plan(model, stage, rows)
