# SPDX-License-Identifier: Apache-2.0
"""Models that refuse too much, from SACPO's synthetic task and stages; where TSDI meets SACPO.

Pairs of which one answer is safe and the other is not have hazardous prompts only, so nothing in
them says that harmless prompts may be answered; and where both answers are safe, a labeller may
like a refusal better, whatever was asked. The one is a tilt towards refusals that depends on the
prompt, the other is one that does not.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder
from jaxsafe.data.preferences import Pair
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.sacpo import batches, merge, synthetic, train
from jaxsafe.sacpo import sources as sacpo_sources
from jaxsafe.sacpo import stages as sacpo_stages
from jaxsafe.sacpo.experiment import Experiment as Alignment
from jaxsafe.sacpo.sources import Source as Data
from jaxsafe.sacpo.stages import Member
from jaxsafe.sacpo.train import Plan
from jaxsafe.sacpo.types import Params
from jaxsafe.tsdi.sources import Prompt, Source

NAMES = ("base", "low_kl", "long", "cleansed", "over")
PARENT = "helpful"
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


def _placed(align: Alignment, models: str) -> Alignment:
    """With the tokenizer and the decoder of an earlier run's models, where there are some.

    Raises:
      UserError: there is no model to start from there.
    """
    if not models:
        return align
    starts = sorted((pathlib.Path(models) / PARENT).glob("seed*"))
    if not starts:
        raise UserError(
            f"{models} has no {PARENT}/seedN: name models/ of a run of experiments.sacpo."
        )
    model = dataclasses.replace(align.model, folder=str(starts[0]))
    return dataclasses.replace(align, model=model)


@functools.lru_cache(maxsize=2)
def data_of(align: Alignment, models: str) -> tuple[Data, DecoderConfig]:
    """SACPO's data, and the decoder that learns from them."""
    placed = _placed(align, models)
    data = sacpo_sources.open_source(placed)
    return data, sacpo_sources.model_config(placed, data)


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


def plan(name: str, align: Alignment, data: Data, model: DecoderConfig, how: Variants) -> Plan:
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


def stages(align: Alignment, how: Variants, names: Sequence[str], models: str) -> list[Stage]:
    """SACPO's first stages, unless an earlier run has done them, and one for each variant."""
    data, model = data_of(align, models)
    first = dataclasses.replace(align, policies=("sft", PARENT), stage="all")
    found = [] if models else sacpo_stages.stages(first, data, model)
    own = [name for name in names if name in NAMES]
    made = (Member(n, PARENT, plan(n, align, data, model, how)) for n in own)
    return found + [sacpo_stages.stage(member, align, data, models) for member in made]


def complies(prompt: str, answer: str) -> float:
    """1 where an answer lists a word that was asked for."""
    return float(bool(set(synthetic.words_of(prompt)) & set(answer.split())))


def category(prompt: str) -> str:
    """By the hazard that is asked for; of harmless prompts, by the number of words."""
    words = synthetic.words_of(prompt)
    hot = [word for word in words if word in synthetic.HAZARDS]
    if not hot:
        return f"harmless, {len(words)} words"
    return f"hazard, {hot[0] if len(hot) == 1 else 'several'}"


def source(align: Alignment, models: str, prompts: str = "reported") -> Source:
    """Prompts held out of the task, harmful where they ask for a hazard, and its programs.

    Args:
      align: how models are trained, with the task.
      models: folder of an earlier run's; empty: this run's own.
      prompts: which of `PROMPTS`.
    """
    (data, config), drawn = data_of(align, models), synthetic.draw(align.task)
    asked = drawn.held_out if prompts == "reported" else synthetic.other_prompts(align.task)

    def place(folder: Folder, name: str, seed: int) -> pathlib.Path:
        earlier = models and name not in NAMES
        home = pathlib.Path(models) if earlier else folder.models
        return sacpo_stages.place(home, name, seed)

    def prompt(text: str) -> Prompt:
        hot = synthetic.conflicts(text)
        return Prompt(text, category(text), hot, float(hot))

    mixed = {f"weights {q:g}": functools.partial(_average, q=q) for q in (0.25, 0.5, 0.75)}
    return Source(
        config=config,
        tokenizer=data.tokenizer,
        template=align.text.template,
        prompts=list(map(prompt, asked)),
        scorers={
            "compliance": complies,
            "safety": synthetic.safety,
            "reward": synthetic.reward,
        },
        corpus=[text for text, _ in drawn.demonstrations[:2000]],
        place=place,
        refusals=(f" {synthetic.REFUSAL}",),
        extra=mixed,
    )


def _average(reference: Params, safe: Params, q: float) -> Params:
    """P-SACPO's mean of weights, `q` of it the safe model's."""
    return jax.tree.map(np.asarray, merge.linear(reference, safe, q))
