# SPDX-License-Identifier: Apache-2.0
"""Where a run's data come from, encoded: the synthetic task, or files."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.data import preferences
from jaxsafe.data.preferences import Pair
from jaxsafe.lm import tiny
from jaxsafe.lm import tokenizer as tokens
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.sacpo import batches, synthetic
from jaxsafe.sacpo import experiment as experiments
from jaxsafe.sacpo.batches import Encoded, Lengths
from jaxsafe.sacpo.experiment import Experiment
from jaxsafe.sacpo.types import Batch


@dataclasses.dataclass(frozen=True)
class Source:
    """All data of a run.

    Attributes:
      tokenizer: of transformers.
      data: `sft`, `helpful`, `safe` for training.
      labels: single answers by safety, for a safety stage by KTO; None: those of the pairs.
      held_out: `helpful` and `safe` pairs with held-out prompts, and `test`, a file of its own.
      prompts: texts to answer.
      prompt_ids: their tokens.
      told: lines for the log: what was read, left out, truncated.
      blank: whether there are but shapes, for a dry run.
    """

    tokenizer: Any
    data: Mapping[str, Batch]
    labels: Batch | None
    held_out: Mapping[str, Batch]
    prompts: list[str]
    prompt_ids: list[list[int]]
    told: list[str]
    blank: bool = False  # but shapes, for a dry run

    def training(self, name: str, loss: str = "dpo") -> Batch:
        """Data of `sft`, `helpful`, `safe` or `mixed`, for that loss."""
        if name == "safe" and loss == "kto" and self.labels is not None:
            return self.labels
        if name == "mixed":
            return batches.joined([self.data["helpful"], self.data["safe"]])
        return self.data[name]


def open_source(experiment: Experiment) -> Source:
    """Reads or draws the data, and trains a tokenizer where the model has none yet.

    Raises:
      UserError: a file is absent or malformed, or leaves too little.
    """
    if experiment.source == "synthetic":
        return _synthetic(experiment)
    if not experiment.files.helpful and experiment.model.spread == "parameters":
        return _blank(experiment)
    return _files(experiment)


_BLANK_ROWS = 30_000  # about what PKU-SafeRLHF-30K has


def _blank(experiment: Experiment) -> Source:
    """Rows of the full length without content, and without memory of their own."""
    shape = (_BLANK_ROWS, 2, experiment.text.max_length)
    ids, flags = (np.broadcast_to(np.zeros((), t), shape) for t in (np.int32, bool))
    answers = np.zeros(shape[-1], bool)
    answers[experiment.text.max_prompt :] = True
    data = Batch(ids, flags, np.broadcast_to(answers, shape))
    return Source(None, {"sft": data, "helpful": data, "safe": data}, None, {}, [], [], [], True)


def model_config(experiment: Experiment, source: Source) -> DecoderConfig:
    """The decoder that reads the source's tokens."""
    size = experiment.model.vocab_size if source.blank else len(source.tokenizer)
    return experiments.decoder_config(experiment.model, size)


class _Encoder:
    """Encodes rows, and notes how many were cut."""

    def __init__(self, experiment: Experiment, tokenizer: Any):
        text = experiment.text
        self.tokenizer, self.template, self.told = tokenizer, text.template, list[str]()
        self.lengths = Lengths(text.max_prompt, text.max_length, text.rule)

    def __call__(self, name: str, rows: Any) -> Batch:
        encoded: Encoded = batches.encode(rows, self.tokenizer, self.template, self.lengths)
        self.told.append(
            f"{name}: {len(rows)} rows, {encoded.truncated} cut, {encoded.data.ids.shape[-1]} "
            "tokens at most"
        )
        return encoded.data


def _tokenizer(experiment: Experiment, texts: list[str]) -> Any:
    model = experiment.model
    return (
        tokens.load(model.folder) if model.folder else tiny.train_tokenizer(texts, model.vocab_size)
    )


def _prompt_ids(experiment: Experiment, tokenizer: Any, prompts: list[str]) -> list[list[int]]:
    text = experiment.text
    room = text.max_length - 2
    ids = [tokens.encode_prompt(tokenizer, prompt, text.template) for prompt in prompts]
    return [
        tokens.truncate(x, [0, 0], text.max_prompt, text.max_length, text.rule).prompt
        if len(x) > room
        else x
        for x in ids
    ]


def _synthetic(experiment: Experiment) -> Source:
    drawn, template = synthetic.draw(experiment.task), experiment.text.template
    texts = [template.replace("{input}", p) + a for p, a in drawn.demonstrations[:2000]]
    tokenizer = _tokenizer(experiment, texts)
    encode = _Encoder(experiment, tokenizer)
    return Source(
        tokenizer=tokenizer,
        data={
            "sft": encode("sft", drawn.demonstrations),
            "helpful": encode("helpful", drawn.helpful),
            "safe": encode("safe", drawn.safe),
        },
        labels=encode("safety labels", drawn.labels),
        held_out={
            "helpful": encode("held-out helpful", drawn.held_out_helpful),
            "safe": encode("held-out safe", drawn.held_out_safe),
        },
        prompts=drawn.held_out,
        prompt_ids=_prompt_ids(experiment, tokenizer, drawn.held_out),
        told=encode.told,
    )


def _files(experiment: Experiment) -> Source:
    files, told = experiment.files, []
    if not files.helpful:
        raise UserError("files.helpful is empty: name a file of pairs, or take --source=synthetic.")

    def pairs(path: str, which: str) -> list[Pair]:
        read = preferences.read_pairs(path, which)
        told.append(str(read.report))
        return read.rows[: files.max_rows or None]

    def parts(path: str, which: str) -> tuple[list[Pair], list[Pair]]:
        return preferences.split(pairs(path, which), files.held_out)

    helpful, helpful_out = parts(files.helpful, "helpful")
    safe, safe_out = parts(files.safe or files.helpful, "safe")
    sft: list[Any] = [(row.prompt, row.chosen) for row in helpful + safe]
    if files.sft:
        read = preferences.read_labelled(files.sft, "helpful")
        told.append(str(read.report))
        rows, _ = preferences.split(read.rows[: files.max_rows or None], files.held_out)
        sft = [(row.prompt, row.completion) for row in rows if row.desirable]
    texts = [experiment.text.template.replace("{input}", p) + " " + a for p, a in sft]
    tokenizer = _tokenizer(experiment, texts)
    encode = _Encoder(experiment, tokenizer)
    data = {
        name: encode(name, x) for name, x in (("sft", sft), ("helpful", helpful), ("safe", safe))
    }
    held = {"helpful": helpful_out, "safe": safe_out}
    if files.test:
        learnt = {row[0] for row in (*sft, *helpful, *safe)}
        held["test"] = _unseen(pairs(files.test, "safe"), learnt, told)
    held_out = {name: encode(f"held-out {name}", x) for name, x in held.items() if x}
    # A prompt has pairs in plenty, and is answered once.
    asked = list(dict.fromkeys(row.prompt for row in helpful_out))
    prompts = _prompts(files.prompts) if files.prompts else asked
    ids = _prompt_ids(experiment, tokenizer, prompts)
    return Source(tokenizer, data, None, held_out, prompts, ids, told + encode.told)


def _unseen(pairs: list[Pair], learnt: set[str], told: list[str]) -> list[Pair]:
    """Pairs whose prompts nothing is learnt of; tells how many others there were."""
    seen = {prompt.strip() for prompt in learnt}
    found = [pair for pair in pairs if pair.prompt.strip() not in seen]
    told.append(f"test: {len(pairs) - len(found)} pairs with prompts that are learnt left out")
    if not found:
        raise UserError("files.test has no prompt that is not learnt: name another file.")
    return found


def _prompts(path: str) -> list[str]:
    found = []
    for place, record in preferences.records(pathlib.Path(path)):
        if not isinstance(record.get("prompt"), str):
            raise UserError(f"{place}, field 'prompt' is missing: give a text.")
        found.append(record["prompt"])
    return found
