# SPDX-License-Identifier: Apache-2.0
"""Models that refuse too much, from SACPO's synthetic task and stages; where TSDI meets SACPO."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.sacpo import merge, synthetic, variants
from jaxsafe.sacpo import sources as sacpo_sources
from jaxsafe.sacpo import stages as sacpo_stages
from jaxsafe.sacpo.experiment import Experiment as Alignment
from jaxsafe.sacpo.sources import Source as Data
from jaxsafe.sacpo.stages import Member
from jaxsafe.sacpo.types import Params
from jaxsafe.sacpo.variants import NAMES, Variants
from jaxsafe.tsdi.sources import Prompt, Source

PARENT = "helpful"


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


def stages(align: Alignment, how: Variants, names: Sequence[str], models: str) -> list[Stage]:
    """SACPO's first stages, unless an earlier run has done them, and one for each variant."""
    data, model = data_of(align, models)
    first = dataclasses.replace(align, policies=("sft", PARENT), stage="all")
    found = [] if models else sacpo_stages.stages(first, data, model)
    own = [name for name in names if name in NAMES]
    made = (Member(n, PARENT, variants.plan(n, align, data, model, how)) for n in own)
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
      prompts: which of `variants.PROMPTS`.
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
