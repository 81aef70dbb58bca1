# SPDX-License-Identifier: Apache-2.0
"""Ways to answer: the safe model plain and corrected, and what else would make it refuse less."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsafe.lm.decoding import Prepared
from jaxsafe.tsdi import decode
from jaxsafe.tsdi.experiment import Baselines, Decoding
from jaxsafe.tsdi.types import Correction, Table, correction

PLAIN, REFERENCE = "safe", "reference"


class Method(NamedTuple):
    """One way to answer.

    Attributes:
      name: of the row.
      family: the curve it belongs to.
      at: its place on that curve.
      models: one, or several of which `mix` has the powers.
      mix: None for one model.
      correction: at work on the logits, alpha `[N]`, one for each prompt; None where models mix.
      space: of its table.
      temperature: None: as for all.
    """

    name: str
    family: str
    at: float
    models: tuple[Prepared, ...]
    mix: tuple[float, ...] | None = None
    correction: Correction | None = None
    space: str = "logprob"
    temperature: float | None = None


def main_name(how: Decoding) -> str:
    """Of the row that the statement made beforehand is about."""
    return f"TSDI alpha {how.alpha:g}"


def raised_name(how: Decoding) -> str:
    """Of the row of the tokens raised most, in place of the whole table."""
    return f"TSDI raised {how.raised} alpha {how.raised_alpha:g}"


def methods(
    how: Decoding,
    baselines: Baselines,
    table: Table,
    variants: Mapping[str, Table],
    prepared: Mapping[str, Prepared],
    scores: np.ndarray,
    refusal_ids: Sequence[int],
) -> list[Method]:
    """All of them. Those of one model share one program, as numbers alone differ.

    Args:
      how: prompts are answered.
      baselines: which ones.
      table: the bias.
      variants: tables estimated in other ways, by name.
      prepared: `safe` and `reference`, and further single models.
      scores: `[N]` of the prompts' harm.
      refusal_ids: first tokens of refusals.
    """
    safe, reference = prepared[PLAIN], prepared[REFERENCE]
    one = functools.partial(_one, len(scores), model=safe, table=table, length=how.length)
    others = [name for name in prepared if name not in (PLAIN, REFERENCE)]
    return [
        one(PLAIN, PLAIN, 0.0),
        one(REFERENCE, REFERENCE, 0.0, model=reference),
        *_corrected(one, how, variants, scores),
        *_raised(one, how, table),
        *(one(f"temperature {t:g}", "temperature", t, heat=t) for t in baselines.temperatures),
        *_mixtures(safe, reference, baselines),
        *_penalties(one, table, refusal_ids, baselines),
        *(one(name, "weights", 0.0, model=prepared[name]) for name in others),
    ]


def _one(
    prompts: int,
    name: str,
    family: str,
    at: float,
    *,
    model: Prepared,
    table: Table,
    length: int,
    alpha: float | np.ndarray = 0.0,
    heat: float | None = None,
) -> Method:
    """A method of one model; alpha is a number or one for each of the prompts."""
    each = jnp.broadcast_to(jnp.asarray(alpha, jnp.float32), (prompts,))
    at_work = correction(table, 0.0, length).replace(alpha=each)
    return Method(name, family, at, (model,), None, at_work, table.space, heat)


def _corrected(
    one: Callable[..., Method], how: Decoding, variants: Mapping[str, Table], scores: np.ndarray
) -> Iterator[Method]:
    """TSDI: by alpha, by positions, with a gate, and with tables estimated in other ways."""
    for alpha in dict.fromkeys([*how.alphas, how.alpha]):
        yield one(f"TSDI alpha {alpha:g}", "TSDI, alpha", alpha, alpha=alpha)
    for n in how.lengths:
        yield one(f"TSDI {n} positions", "TSDI, positions", n, alpha=how.alpha, length=n)
    if how.gate:
        gated = np.asarray(decode.gate(jnp.asarray(scores), 0.0, 1.0, how.alpha))
        yield one("TSDI gated", "TSDI, gated", how.alpha, alpha=gated)
    for name, other in variants.items():
        yield one(f"TSDI {name}", "TSDI, other tables", 0.0, table=other, alpha=how.alpha)


def _raised(one: Callable[..., Method], how: Decoding, table: Table) -> Iterator[Method]:
    """TSDI of the tokens that safety training raised most: by alpha, and by their number."""
    most = table.bias.shape[1]
    if not (how.raised and table.bias.shape[0]):
        return
    own = decode.raised(table, min(how.raised, most))
    for alpha in dict.fromkeys([*how.alphas, how.raised_alpha]):
        name = f"TSDI raised {how.raised} alpha {alpha:g}"
        yield one(name, "TSDI raised, alpha", alpha, table=own, alpha=alpha)
    for count in how.raised_counts:
        other = decode.raised(table, min(count, most))
        name = f"TSDI raised {count} tokens"
        yield one(name, "TSDI raised, tokens", count, table=other, alpha=how.raised_alpha)


def _mixtures(safe: Prepared, reference: Prepared, baselines: Baselines) -> Iterator[Method]:
    """Products of both models' laws."""
    both = (safe, reference)
    for q in baselines.interpolations:
        yield Method(f"interpolation {q:g}", "interpolation", q, both, (1 - q, q))
    for w in baselines.contrasts:
        yield Method(f"contrastive {w:g}", "contrastive", w, both, (-w, 1 + w))


def _penalties(
    one: Callable[..., Method], table: Table, refusal_ids: Sequence[int], baselines: Baselines
) -> Iterator[Method]:
    """The same penalty on every first token of a refusal, in place of an estimate."""
    if not table.bias.shape[0]:
        return
    row = jnp.zeros_like(table.bias).at[0, jnp.asarray(refusal_ids, int)].set(1.0)
    fixed = Table(row, jnp.zeros_like(row))
    for c in baselines.penalties:
        yield one(f"penalty {c:g}", "penalty", c, table=fixed, alpha=c, length=1)
