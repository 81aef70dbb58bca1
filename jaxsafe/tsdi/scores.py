# SPDX-License-Identifier: Apache-2.0
"""Answers of a method, and what is measured of each."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.lm import DecoderConfig, Generation, logprobs
from jaxsafe.lm import tokenizer as tokens
from jaxsafe.lm.generate import BUCKETS, generate
from jaxsafe.tsdi import models
from jaxsafe.tsdi.experiment import Decoding
from jaxsafe.tsdi.methods import Method
from jaxsafe.tsdi.sources import Scorer, Source, refuses
from jaxsafe.tsdi.types import Params

_ROWS = 512  # answers generated at once


class Answers(NamedTuple):
    """Answers to N prompts, S each."""

    texts: list[list[str]]  # [N][S]
    tokens: np.ndarray  # [N, S, M]
    lengths: np.ndarray  # [N, S]


def answer(method: Method, source: Source, how: Decoding, key: jax.Array) -> Answers:
    """Answers every prompt of the source; equal keys give all methods the same draws.

    Raises:
      ValueError: the method neither mixes models nor corrects one.
    """
    ids, samples = source.prompt_ids(), how.samples
    temperature = how.temperature if method.temperature is None else method.temperature
    options = Generation(
        max_new=how.max_new,
        temperature=temperature,
        top_p=how.top_p,
        stop_ids=source.stop_ids(),
        pad_id=source.tokenizer.pad_token_id or 0,
        samples=samples,
    )
    longest, parts = max(map(len, ids)), []
    width = (next((b for b in BUCKETS if b >= longest), longest),)
    size = max(1, _ROWS // samples)
    for i in range(0, len(ids), size):
        prompts, part_key = ids[i : i + size], jax.random.fold_in(key, i)
        if method.mix is not None:
            part = generate(
                method.models, prompts, options, part_key, mix=method.mix, buckets=width
            )
        else:
            at_work = method.correction
            if at_work is None:
                raise ValueError(f"{method.name} neither mixes models nor corrects one")
            at_work = at_work.replace(alpha=at_work.alpha[i : i + size])
            part = models.generate(
                method.models[0],
                prompts,
                options,
                part_key,
                at_work,
                method.space,
                buckets=width,
            )
        parts.append((np.asarray(part.tokens), np.asarray(part.lengths)))
    said = np.concatenate([x for x, _ in parts])
    lengths = np.concatenate([x for _, x in parts])
    decode = functools.partial(tokens.decode, source.tokenizer)
    texts = [decode(row[:n]) for row, n in zip(said, lengths, strict=True)]
    return Answers(
        [texts[i : i + samples] for i in range(0, len(texts), samples)],
        said.reshape(-1, samples, how.max_new),
        lengths.reshape(-1, samples),
    )


@functools.partial(jax.jit, static_argnames=("config", "max_new"))
def _nll(params: Params, ids, mask, completion, config: DecoderConfig, max_new: int) -> jax.Array:
    found = logprobs.per_token(config, params, ids, mask, completion, max_completion=max_new)
    return -found.sum(1) / jnp.maximum(completion.sum(1), 1)


def nll(given: Answers, prompts: Sequence[Sequence[int]], params: Params, config: DecoderConfig):
    """Nats per token `[N, S]` of answers under a model: what garbage has much of."""
    count, samples, max_new = given.tokens.shape
    width = max(map(len, prompts)) + max_new
    shape = (count * samples, width)
    ids, end, start = np.zeros(shape, np.int32), np.zeros(shape[0], int), np.zeros(shape[0], int)
    for row in range(shape[0]):
        n, s = divmod(row, samples)
        start[row] = len(prompts[n])
        end[row] = start[row] + given.lengths[n, s]
        ids[row, : start[row]] = prompts[n]
        ids[row, start[row] : end[row]] = given.tokens[n, s, : given.lengths[n, s]]
    slots = np.arange(width)
    mask = slots < end[:, None]
    arrays = ids, mask, mask & (slots >= start[:, None])
    parts = [
        np.asarray(_nll(params, *(x[i : i + _ROWS] for x in arrays), config, max_new))
        for i in range(0, shape[0], _ROWS)
    ]
    return np.concatenate(parts).reshape(count, samples)


def repetition(text: str) -> float:
    """Share of an answer's words that came before in it."""
    words = text.split()
    return 1 - len(set(words)) / len(words) if words else 0.0


def score(given: Answers, source: Source) -> dict[str, np.ndarray]:
    """`[N, S]` of each scorer, and `refusal`, `words`, `repetition`.

    Raises:
      UserError: a scorer gives something else than a finite number.
    """

    def each(scorer: Scorer, name: str) -> np.ndarray:
        rows = zip(source.prompts, given.texts, strict=True)
        found = np.array([[scorer(p.text, text) for text in texts] for p, texts in rows], float)
        if not np.isfinite(found).all():
            raise UserError(f"scorer {name!r} gave a value that is not finite: check it.")
        return found

    return {name: each(scorer, name) for name, scorer in source.scorers.items()} | {
        "refusal": each(lambda _, text: float(refuses(text)), "refusal"),
        "words": each(lambda _, text: float(len(text.split())), "words"),
        "repetition": each(lambda _, text: repetition(text), "repetition"),
    }


def by_group(values: Mapping[str, np.ndarray], harmful: np.ndarray) -> dict[str, float]:
    """Means over harmless and over harmful prompts; a group without prompts is left out."""
    found: dict[str, float] = {}
    for group, chosen in (("benign", ~harmful), ("harmful", harmful)):
        if chosen.any():
            found |= {f"{group}_{name}": float(x[chosen].mean()) for name, x in values.items()}
    return found
