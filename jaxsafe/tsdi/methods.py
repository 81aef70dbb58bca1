# SPDX-License-Identifier: Apache-2.0
"""Ways to answer: the safe model plain and corrected, and what else would make it refuse less."""

from collections.abc import Mapping, Sequence
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
    number, (safe, reference) = len(scores), (prepared[PLAIN], prepared[REFERENCE])

    def off(
        name: str,
        family: str,
        at: float,
        model: Prepared = safe,
        taken: Table = table,
        alpha: float | np.ndarray = 0.0,
        length: int = how.length,
        temperature: float | None = None,
    ) -> Method:
        each = jnp.broadcast_to(jnp.asarray(alpha, jnp.float32), (number,))
        at_work = correction(taken, 0.0, length).replace(alpha=each)
        return Method(name, family, at, (model,), None, at_work, taken.space, temperature)

    alphas = dict.fromkeys([*how.alphas, how.alpha])
    found = [off(PLAIN, PLAIN, 0.0), off(REFERENCE, REFERENCE, 0.0, reference)]
    found += [off(f"TSDI alpha {a:g}", "TSDI, alpha", a, alpha=a) for a in alphas]
    found += [
        off(f"TSDI {n} positions", "TSDI, positions", n, alpha=how.alpha, length=n)
        for n in how.lengths
    ]
    if how.gate:
        gated = np.asarray(decode.gate(jnp.asarray(scores), 0.0, 1.0, how.alpha))
        found.append(off("TSDI gated", "TSDI, gated", how.alpha, alpha=gated))
    found += [
        off(f"TSDI {name}", "TSDI, other tables", 0.0, taken=other, alpha=how.alpha)
        for name, other in variants.items()
    ]
    found += [
        off(f"temperature {t:g}", "temperature", t, temperature=t) for t in baselines.temperatures
    ]
    both = (safe, reference)
    found += [
        Method(f"interpolation {q:g}", "interpolation", q, both, (1 - q, q))
        for q in baselines.interpolations
    ]
    found += [
        Method(f"contrastive {w:g}", "contrastive", w, both, (-w, 1 + w))
        for w in baselines.contrasts
    ]
    if table.bias.shape[0]:
        row = jnp.zeros_like(table.bias).at[0, jnp.asarray(refusal_ids, int)].set(1.0)
        fixed = Table(row, jnp.zeros_like(row))
        found += [
            off(f"penalty {c:g}", "penalty", c, taken=fixed, alpha=c, length=1)
            for c in baselines.penalties
        ]
    found += [
        off(name, "weights", 0.0, model)
        for name, model in prepared.items()
        if name not in (PLAIN, REFERENCE)
    ]
    return found
