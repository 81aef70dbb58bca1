# SPDX-License-Identifier: Apache-2.0
"""Scores of finished policies: their answers, and what they think of held-out pairs.

`results` of `summary.json` is one flat row per policy, over S seeds:

  policy             name, with its ratio beta / lambda after @ and a merge's q after :
  reward, safety     means over seeds of the means over held-out prompts; only of the synthetic
                     task, whose scores are programs
  reward_low, reward_high, safety_low, safety_high
                     95% bootstrap intervals of these means over seeds
  bound, meets_bound b, and the number of seeds with E[g] >= b
  words              mean length of answers
  helpful_accuracy, safe_accuracy, test_accuracy
                     share of held-out pairs whose implicit margin against the SFT policy has the
                     right sign; 0.5 is chance. None for SFT itself and where there are no pairs;
                     test: of the file of pairs that are scored alone, where there is one
  helpful_longer, safe_longer, test_longer
                     share of held-out pairs whose chosen answer has more tokens, ties half: what
                     length alone would score
  helpful_nll, safe_nll, test_nll
                     mean -log pi(chosen answer | prompt) per token, nats
  ..._per_seed       the same of each seed, in order
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import stats
from jaxsafe.lm import decoding
from jaxsafe.lm import tokenizer as tokens
from jaxsafe.lm.choosing import Generation
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.generate import generate
from jaxsafe.sacpo import batches, losses, synthetic, train
from jaxsafe.sacpo.config import Config
from jaxsafe.sacpo.experiment import Evaluation
from jaxsafe.sacpo.types import Batch, Params

_BATCH = 256  # answers generated at once


class Answer(NamedTuple):
    """One answer to a prompt."""

    prompt: str
    text: str
    stopped: bool  # by its end, rather than for want of room


def answers(
    models: Sequence[Params],
    config: DecoderConfig,
    tokenizer: Any,
    prompts: Sequence[str],
    prompt_ids: Sequence[Sequence[int]],
    how: Evaluation,
    key: jax.Array,
    mix: Sequence[float] = (1.0,),
) -> list[Answer]:
    """Answers every prompt `how.samples` times. `key` is consumed.

    Args:
      models: parameters of one model, or of several whose laws are mixed.
      config: of the decoder.
      tokenizer: of transformers.
      prompts: texts.
      prompt_ids: their tokens.
      how: samples, temperature and length.
      key: typed PRNG key.
      mix: powers of the models' laws.
    """
    prepared = [decoding.prepare(params, config) for params in models]
    options = Generation(
        max_new=how.max_new,
        temperature=how.temperature,
        stop_ids=(tokenizer.eos_token_id,),
        pad_id=tokenizer.pad_token_id or 0,
        samples=how.samples,
    )
    size = max(1, _BATCH // how.samples)
    found = []
    for i in range(0, len(prompts), size):
        part = generate(
            prepared, prompt_ids[i : i + size], options, jax.random.fold_in(key, i), mix=tuple(mix)
        )
        rows = zip(*map(np.asarray, (part.tokens, part.lengths, part.stopped)), strict=True)
        for n, (ids, size_n, stopped) in enumerate(rows):
            text = tokens.decode(tokenizer, ids[: int(size_n)])
            found.append(Answer(prompts[i + n // how.samples], text, bool(stopped)))
    return found


def programmatic(given: Sequence[Answer]) -> dict[str, float]:
    """Mean reward and safety of answers to the synthetic task, exactly as it defines them."""
    return {
        "reward": float(np.mean([synthetic.reward(a.prompt, a.text) for a in given])),
        "safety": float(np.mean([synthetic.safety(a.prompt, a.text) for a in given])),
    }


class Sums(NamedTuple):
    """What a policy says of held-out pairs `[N, 2]`, chosen first: sums and lengths of answers."""

    log_probs: np.ndarray
    lengths: np.ndarray


_sums = jax.jit(
    lambda params, data, config: train.sums(params, data, config), static_argnames="config"
)


def pair_sums(params: Params, pairs: Batch, config: DecoderConfig) -> Sums:
    """Log-probabilities of held-out pairs `[N, 2, T]`."""
    how = Config(config, max_completion=batches.max_completion(pairs))
    data = jax.tree.map(jnp.asarray, Batch(*pairs[:3]))
    found = np.asarray(_sums(params, data, config=how), np.float64)
    return Sums(found, np.asarray(pairs.completion).sum(-1))


def implicit_accuracy(policy: Sums, reference: Sums) -> float:
    """Share of pairs whose implicit margin is positive; a margin of 0 counts half."""
    margins = losses.margin(
        *(jnp.asarray(x) for x in (*policy.log_probs.T, *reference.log_probs.T))
    )
    return float(np.mean(np.where(margins == 0, 0.5, margins > 0)))


def longer(lengths: np.ndarray) -> float:
    """Share of pairs with lengths `[N, 2]` whose chosen answer is the longer; ties count half."""
    return float(np.mean(np.sign(lengths[:, 0] - lengths[:, 1]) / 2 + 0.5))


def nll(policy: Sums) -> float:
    """Mean over tokens of -log pi of the chosen answers, nats."""
    return float(-policy.log_probs[:, 0].sum() / policy.lengths[:, 0].sum())


def summary(policy: str, rows: Sequence[Mapping[str, Any]], bound: float | None) -> dict[str, Any]:
    """One row of `summary.json` from the rows of a policy's seeds; the module has its schema."""
    found: dict[str, Any] = {"policy": policy}
    skip = {"policy", "seed"}
    names = [name for name in rows[0] if name not in skip]
    for name in names:
        values = [row[name] for row in rows]
        missing = any(value is None for value in values)
        found[name] = None if missing else float(np.mean(values))
        found[f"{name}_per_seed"] = values
        if name in ("reward", "safety") and not missing:
            low, high = stats.stratified_bootstrap_ci(values, np.mean)
            found |= {f"{name}_low": low, f"{name}_high": high}
    if bound is not None and "safety" in names:
        met = sum(row["safety"] >= bound for row in rows)
        found |= {"bound": bound, "meets_bound": met}
    return found
