# SPDX-License-Identifier: Apache-2.0
"""How a token is chosen: the options, what may change the logits, and the draw itself."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.core import checks
from jaxsafe.lm.layers import FAR

# `(logits [B, V] float32, step [])`, and `extra` where it is given, to logits `[B, V]`.
Processor = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class Generation:
    """How to choose tokens, and when to stop.

    Attributes:
      max_new: tokens of an answer at most, the stop token among them.
      min_new: no stop token before this many.
      temperature: 0 takes the most probable token, no key being needed.
      top_p: sample among the most probable tokens that together have this probability.
      top_k: sample among this many; 0, all.
      stop_ids: an answer ends with the first of these, which it holds.
      pad_id: what stands after an answer's end, and before short prompts.
      samples: answers to each prompt, in rows beside each other.
      log_probs: return the chosen tokens' log-probabilities: of the processed logits, before
        temperature, top-k and top-p.
    """

    max_new: int = 64
    min_new: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop_ids: tuple[int, ...] = ()
    pad_id: int = 0
    samples: int = 1
    log_probs: bool = False


class Dynamic(NamedTuple):
    """What may change without a new program."""

    temperature: jax.Array
    top_p: jax.Array
    mix: jax.Array  # [n]
    extra: Any


def check_options(options: Generation) -> None:
    """Raises `UserError` naming the option, its value and what would do."""
    checks.check_range("max_new", options.max_new, 1)
    checks.check_range("min_new", options.min_new, 0, options.max_new)
    checks.check_range("temperature", options.temperature, 0)
    checks.check_range("top_p", options.top_p, 1e-6, 1)
    checks.check_range("top_k", options.top_k, 0)
    checks.check_range("samples", options.samples, 1)


def _truncated(logits: jax.Array, options: Generation, top_p: jax.Array) -> jax.Array:
    """Logits `[B, V]` with what top-k and top-p leave out put far down."""
    if 0 < options.top_k < logits.shape[-1]:
        least = lax.top_k(logits, options.top_k)[0][:, -1:]
        logits = jnp.where(logits < least, FAR, logits)
    if options.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        share = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(share, axis=-1) - share
        least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, FAR, logits)
    return logits


def _argmax(logits: jax.Array) -> jax.Array:
    """The first of the greatest logits `[B, V]`, int32; `jnp.argmax` is slow on CPUs."""
    ids = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    best = logits == jnp.max(logits, axis=-1, keepdims=True)
    return jnp.min(jnp.where(best, ids, ids[-1]), axis=-1)


def choose(
    logits: jax.Array, key: jax.Array, options: Generation, dynamic: Dynamic
) -> tuple[jax.Array, jax.Array]:
    """A token `[B]` int32 for each row of processed logits `[B, V]`, and its log-probability."""
    if options.temperature > 0:
        law = _truncated(logits / dynamic.temperature, options, dynamic.top_p)
        token = jax.random.categorical(key, law, axis=-1).astype(jnp.int32)
    else:
        token = _argmax(logits)
    if not options.log_probs:
        return token, jnp.zeros(token.shape)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
    return token, chosen - jax.nn.logsumexp(logits, axis=-1)


def next_logits(
    each: Sequence[jax.Array],
    index: jax.Array,
    dynamic: Dynamic,
    options: Generation,
    processor: Processor | None,
) -> jax.Array:
    """What token `index` is chosen by, `[R, V]`: the models' logits mixed, then processed."""
    logits = each[0]
    if len(each) > 1:
        logits = jnp.asarray(sum(power * x for power, x in zip(dynamic.mix, each, strict=True)))
    if processor is not None:
        arguments = (logits, index) if dynamic.extra is None else (logits, index, dynamic.extra)
        logits = processor(*arguments).astype(jnp.float32)
    if options.min_new and options.stop_ids:
        stops = jnp.asarray(options.stop_ids, jnp.int32)
        early = index < options.min_new
        logits = logits.at[:, stops].set(jnp.where(early, FAR, logits[:, stops]))
    return logits
