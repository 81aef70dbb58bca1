# SPDX-License-Identifier: Apache-2.0
"""Generation: prompts of unequal length in, sampled or greedy tokens out, one program per bucket.

    model = lm.prepare(params, config)
    out = generate.generate(model, prompts, lm.Generation(max_new=64, stop_ids=(2,)))
    out.tokens[i, : out.lengths[i]]

Several models decode together as the normalised product of their laws, each to a power: with
`mix=(1 - q, q)` the log-linear interpolation of two (`sacpo.md` 2.3, the geometric merge).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.core import checks
from jaxsafe.core.checks import UserError
from jaxsafe.lm import decoding
from jaxsafe.lm.decoding import Prepared
from jaxsafe.lm.layers import FAR

# `(logits [B, V] float32, step [])`, and `extra` where it is given, to logits `[B, V]`.
Processor = Callable[..., jax.Array]
BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


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


class Answers(NamedTuple):
    """R = prompts times samples rows."""

    tokens: jax.Array  # [R, max_new] int32, padded at the end
    lengths: jax.Array  # [R] int32, the stop token counted
    stopped: jax.Array  # [R] bool, by a stop token rather than for want of room
    log_probs: jax.Array | None  # [R, max_new] float32, 0 at padding; None unless asked for


class _Dynamic(NamedTuple):
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


def pad_prompts(
    prompts: Sequence[Sequence[int]], pad_id: int = 0, buckets: Sequence[int] = BUCKETS
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts padded on the left to the least bucket that holds them: `[B, T]` ids and mask.

    Raises:
      UserError: there is no prompt, or one is empty.
    """
    longest = max((len(prompt) for prompt in prompts), default=0)
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise UserError(f"prompts[{i}] is empty: give one token at least, such as BOS.")
    if not longest:
        raise UserError("prompts is empty: give one at least.")
    width = next((bucket for bucket in buckets if bucket >= longest), longest)
    ids = np.full((len(prompts), width), pad_id, np.int32)
    mask = np.zeros((len(prompts), width), bool)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = prompt
        mask[i, width - len(prompt) :] = True
    return ids, mask


def generate(
    model: Prepared | Sequence[Prepared],
    prompts: Sequence[Sequence[int]],
    options: Generation,
    key: jax.Array | None = None,
    *,
    processor: Processor | None = None,
    extra: Any = None,
    mix: Sequence[float] | None = None,
    buckets: Sequence[int] = BUCKETS,
) -> Answers:
    """Answers prompts. Calls of equal batch, bucket and options share one compiled program.

    Args:
      model: from `decoding.prepare`; or several of one vocabulary.
      prompts: token ids of each.
      options: temperature and top_p may change without a new program.
      key: consumed; needed where temperature is above 0.
      processor: changes the logits before a token is chosen. It is called while tracing, and
        another function is another program: what changes between calls belongs in `extra`.
      extra: a tree of arrays, the processor's third argument where given.
      mix: powers of the several models' laws; None: 1 each.
      buckets: lengths that prompts are padded to.

    Raises:
      UserError: a bad option, no prompt, an empty one, or sampling without a key.
    """
    check_options(options)
    models = (model,) if isinstance(model, Prepared) else tuple(model)
    if options.temperature > 0 and key is None:
        raise UserError(f"temperature={options.temperature} samples: give a key.")
    powers = (1.0,) * len(models) if mix is None else tuple(mix)
    if len(powers) != len(models):
        raise UserError(f"mix={powers} has {len(powers)} powers: give {len(models)}.")
    ids, mask = pad_prompts(prompts, options.pad_id, buckets)
    static = dataclasses.replace(
        options,
        temperature=float(options.temperature > 0),
        top_p=0.5 if options.top_p < 1 else 1.0,
    )
    dynamic = _Dynamic(
        jnp.float32(options.temperature), jnp.float32(options.top_p), jnp.float32(powers), extra
    )
    key = jax.random.key(0) if key is None else key
    return _run(models, ids, mask, key, dynamic, options=static, processor=processor)


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


def choose(
    logits: jax.Array, key: jax.Array, options: Generation, dynamic: _Dynamic
) -> tuple[jax.Array, jax.Array]:
    """A token `[B]` int32 for each row of processed logits `[B, V]`, and its log-probability."""
    if options.temperature > 0:
        law = _truncated(logits / dynamic.temperature, options, dynamic.top_p)
        token = jax.random.categorical(key, law, axis=-1).astype(jnp.int32)
    else:
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if not options.log_probs:
        return token, jnp.zeros(token.shape)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
    return token, chosen - jax.nn.logsumexp(logits, axis=-1)


class _Loop(NamedTuple):
    step: jax.Array  # [] tokens chosen so far
    token: jax.Array  # [R] the last one
    done: jax.Array  # [R] bool
    tokens: jax.Array  # [R, M]
    log_probs: jax.Array  # [R, M]
    caches: tuple[decoding.Cache, ...]


@functools.partial(jax.jit, static_argnames=("options", "processor"))
def _run(
    models: tuple[Prepared, ...],
    ids: jax.Array,
    mask: jax.Array,
    key: jax.Array,
    dynamic: _Dynamic,
    *,
    options: Generation,
    processor: Processor | None,
) -> Answers:
    """The whole generation of one bucket, as one program."""
    stops = jnp.asarray(options.stop_ids, jnp.int32)

    def pick(each: Sequence[jax.Array], index: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = each[0]
        if len(each) > 1:
            logits = sum(power * x for power, x in zip(dynamic.mix, each, strict=True))
        if processor is not None:
            arguments = (logits, index) if dynamic.extra is None else (logits, index, dynamic.extra)
            logits = processor(*arguments).astype(jnp.float32)
        if options.min_new and options.stop_ids:
            early = index < options.min_new
            logits = logits.at[:, stops].set(jnp.where(early, FAR, logits[:, stops]))
        return choose(logits, jax.random.fold_in(key, index), options, dynamic)

    def write(state: _Loop, each: Sequence[jax.Array]) -> _Loop:
        token, log_prob = pick(each, state.step)
        token = jnp.where(state.done, options.pad_id, token)
        log_prob = jnp.where(state.done, 0.0, log_prob)
        at = (jnp.zeros_like(state.step), state.step)
        return state._replace(
            step=state.step + 1,
            token=token,
            done=state.done | (token[:, None] == stops).any(axis=-1),
            tokens=lax.dynamic_update_slice(state.tokens, token[:, None], at),
            log_probs=lax.dynamic_update_slice(state.log_probs, log_prob[:, None], at)
            if options.log_probs
            else state.log_probs,
        )

    def body(state: _Loop) -> _Loop:
        stepped = [
            decoding.step(model, cache, state.token, ids.shape[1], state.step - 1)
            for model, cache in zip(models, state.caches, strict=True)
        ]
        state = state._replace(caches=tuple(cache for _, cache in stepped))
        return write(state, [logits for logits, _ in stepped])

    def going(end: int, state: _Loop) -> jax.Array:
        return (state.step < end) & ~state.done.all()

    sizes, slots = decoding.capacities(ids.shape[1], options.max_new), ids.shape[1]
    read = [decoding.prefill(model, ids, mask, sizes[0] - slots) for model in models]
    if options.samples > 1:
        read = jax.tree.map(lambda x: jnp.repeat(x, options.samples, axis=0), read)
    rows = ids.shape[0] * options.samples
    state = _Loop(
        step=jnp.int32(0),
        token=jnp.zeros(rows, jnp.int32),
        done=jnp.zeros(rows, bool),
        tokens=jnp.full((rows, options.max_new), options.pad_id, jnp.int32),
        log_probs=jnp.zeros((rows, options.max_new if options.log_probs else 0)),
        caches=tuple(cache for _, cache in read),
    )
    state = write(state, [logits for logits, _ in read])
    for size in sizes:
        state = state._replace(caches=tuple(decoding.grown(x, size) for x in state.caches))
        state = lax.while_loop(functools.partial(going, size - slots + 1), body, state)
    return _answers(state, stops, options)


def _answers(state: _Loop, stops: jax.Array, options: Generation) -> Answers:
    """The answers of a finished loop; a row's length reaches to its first stop token."""
    hits = (state.tokens[..., None] == stops).any(axis=-1)
    lengths = jnp.where(state.done, jnp.argmax(hits, axis=1) + 1, options.max_new)
    log_probs = state.log_probs if options.log_probs else None
    return Answers(state.tokens, lengths.astype(jnp.int32), state.done, log_probs)
