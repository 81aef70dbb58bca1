# SPDX-License-Identifier: Apache-2.0
"""Models that refuse too much, from SACPO's synthetic task and stages; where TSDI meets SACPO.

Safety training on pairs that all tell a safe answer from an unsafe one holds hazardous prompts
only, so nothing in it says that harmless ones may be answered. With a small beta / lambda and many
passes, refusals spread to them.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from jaxsafe.core import parallel
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Program, Stage
from jaxsafe.core.run import Folder
from jaxsafe.data.preferences import Pair
from jaxsafe.lm import decoder
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.sacpo import batches, merge, synthetic, train
from jaxsafe.sacpo import sources as sacpo_sources
from jaxsafe.sacpo import stages as sacpo_stages
from jaxsafe.sacpo.experiment import Experiment as Alignment
from jaxsafe.sacpo.sources import Source as Data
from jaxsafe.sacpo.train import Plan, Run
from jaxsafe.sacpo.types import Params
from jaxsafe.tsdi.sources import Prompt, Source

NAMES = ("base", "low_kl", "long", "cleansed", "over")
PARENT = "helpful"


@dataclasses.dataclass(frozen=True)
class Variants:
    """How safety training differs; `base` is align.safe at the first of align.ratios."""

    ratio: float = field(0.01, "beta / lambda of low_kl and over.", low=1e-6)
    epochs: float = field(3.0, "Passes of long and over, times those of base.", low=0.1)
    threshold: float = field(
        0.25,
        "cleansed and over leave pairs out whose safety scores differ by less than this.",
        low=0.0,
        high=1.0,
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


def cleanse(pairs: Sequence[Pair], threshold: float) -> list[Pair]:
    """Pairs whose answers' safety differs by the threshold at least."""
    score = synthetic.safety
    return [
        p
        for p in pairs
        if abs(score(p.prompt, p.chosen) - score(p.prompt, p.rejected)) >= threshold
    ]


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
        kept = cleanse(synthetic.draw(align.task).safe, how.threshold)
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
    return found + [_safety(n, plan(n, align, data, model, how), data, models) for n in own]


def _safety(name: str, chosen: Plan, data: Data, models: str) -> Stage:
    """Safety training of one variant, from the helpful policy of each seed."""

    def build(stage: Stage, options: RunOptions, mesh: Mesh) -> Program:
        folder = Folder(pathlib.Path(options.out or ""))
        root = Folder(pathlib.Path(models).parent) if models else folder
        starts = [sacpo_stages.place(root, PARENT, s) for s in sacpo_stages.seeds_of(options)]

        def result(run: Run) -> dict:
            """Writes the policies; the estimates read them."""
            host = parallel.to_host(train.policy(run))
            if parallel.is_main_process():
                config = chosen.config.model
                sacpo_stages.save(folder, name, options, config, host, data.tokenizer)
            parallel.largest(0)
            return {}

        return sacpo_stages.Continued(
            dataclasses.replace(stage, result=result),
            options,
            mesh,
            lambda: sacpo_stages.load(starts),
            lambda key, params: train.begin(key, params, chosen),
        )

    def start(key: jax.Array) -> Run:
        """For shapes alone: the helpful policy may not be there yet."""
        key_params, key = jax.random.split(key)
        return train.begin(key, decoder.init(key_params, chosen.config.model), chosen)

    return Stage(
        name=name,
        init=start,
        chunk=lambda run, first, n: train.chunk(run, first, n, chosen),
        num_steps=chosen.config.steps,
        parameters=train.policy,
        result=train.policy,
        unit="rows",
        units_per_step=chosen.config.stage.batch_size,
        build=build,
    )


def complies(prompt: str, answer: str) -> float:
    """1 where an answer lists a word that was asked for."""
    return float(bool(set(synthetic.words_of(prompt)) & set(answer.split())))


def source(align: Alignment, models: str) -> Source:
    """The task's held-out prompts, harmful where they ask for a hazard, and its programs."""
    (data, config), drawn = data_of(align, models), synthetic.draw(align.task)

    def place(folder: Folder, name: str, seed: int) -> pathlib.Path:
        there = Folder(pathlib.Path(models).parent) if models else folder
        return sacpo_stages.place(folder if name in NAMES else there, name, seed)

    def prompt(text: str) -> Prompt:
        hot = synthetic.conflicts(text)
        kind = f"{'hazardous' if hot else 'harmless'}, {len(synthetic.words_of(text))} words"
        return Prompt(text, kind, hot, float(hot))

    mixed = {f"weights {q:g}": functools.partial(_average, q=q) for q in (0.25, 0.5, 0.75)}
    return Source(
        config=config,
        tokenizer=data.tokenizer,
        template=align.text.template,
        prompts=[prompt(text) for text in drawn.held_out],
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
