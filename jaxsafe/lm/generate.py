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
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.core.checks import UserError
from jaxsafe.lm import choosing, decoding
from jaxsafe.lm.choosing import Dynamic, Generation, Processor
from jaxsafe.lm.decoding import Prepared

BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Answers(NamedTuple):
    """R = prompts times samples rows."""

    tokens: jax.Array  # [R, max_new] int32, padded at the end
    lengths: jax.Array  # [R] int32, the stop token counted
    stopped: jax.Array  # [R] bool, by a stop token rather than for want of room
    log_probs: jax.Array | None  # [R, max_new] float32, 0 at padding; None unless asked for


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
    choosing.check_options(options)
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
    dynamic = Dynamic(
        jnp.float32(options.temperature), jnp.float32(options.top_p), jnp.float32(powers), extra
    )
    key = jax.random.key(0) if key is None else key
    return _run(models, ids, mask, key, dynamic, options=static, processor=processor)


class _Loop(NamedTuple):
    step: jax.Array  # [] tokens chosen so far
    token: jax.Array  # [R] the last one
    done: jax.Array  # [R] bool
    tokens: jax.Array  # [R, M]
    log_probs: jax.Array  # [R, M]
    caches: tuple[decoding.Cache, ...]


def _begun(rows: int, caches: tuple[decoding.Cache, ...], options: Generation) -> _Loop:
    """A loop that has chosen nothing yet."""
    return _Loop(
        step=jnp.int32(0),
        token=jnp.zeros(rows, jnp.int32),
        done=jnp.zeros(rows, bool),
        tokens=jnp.full((rows, options.max_new), options.pad_id, jnp.int32),
        log_probs=jnp.zeros((rows, options.max_new if options.log_probs else 0)),
        caches=caches,
    )


def _written(
    state: _Loop, token: jax.Array, log_prob: jax.Array, stops: jax.Array, options: Generation
) -> _Loop:
    """The loop after one more token `[R]`, which rows that are done do not get."""
    token = jnp.where(state.done, options.pad_id, token)
    log_prob = jnp.where(state.done, 0.0, log_prob)
    at = (jnp.zeros_like(state.step), state.step)
    log_probs = state.log_probs
    if options.log_probs:
        log_probs = lax.dynamic_update_slice(log_probs, log_prob[:, None], at)
    return state._replace(
        step=state.step + 1,
        token=token,
        done=state.done | (token[:, None] == stops).any(axis=-1),
        tokens=lax.dynamic_update_slice(state.tokens, token[:, None], at),
        log_probs=log_probs,
    )


@functools.partial(jax.jit, static_argnames=("options", "processor"))
def _run(
    models: tuple[Prepared, ...],
    ids: jax.Array,
    mask: jax.Array,
    key: jax.Array,
    dynamic: Dynamic,
    *,
    options: Generation,
    processor: Processor | None,
) -> Answers:
    """The whole generation of one bucket, as one program."""
    stops = jnp.asarray(options.stop_ids, jnp.int32)
    sizes, slots = decoding.capacities(ids.shape[1], options.max_new), ids.shape[1]

    def write(state: _Loop, each: Sequence[jax.Array]) -> _Loop:
        logits = choosing.next_logits(each, state.step, dynamic, options, processor)
        chosen = choosing.choose(logits, jax.random.fold_in(key, state.step), options, dynamic)
        return _written(state, *chosen, stops, options)

    def body(state: _Loop) -> _Loop:
        stepped = [
            decoding.step(model, cache, state.token, slots, state.step - 1)
            for model, cache in zip(models, state.caches, strict=True)
        ]
        state = state._replace(caches=tuple(cache for _, cache in stepped))
        return write(state, [logits for logits, _ in stepped])

    def going(end: int, state: _Loop) -> jax.Array:
        return (state.step < end) & ~state.done.all()

    read = [decoding.prefill(model, ids, mask, sizes[0] - slots) for model in models]
    if options.samples > 1:
        read = jax.tree.map(lambda x: jnp.repeat(x, options.samples, axis=0), read)
    state = _begun(ids.shape[0] * options.samples, tuple(cache for _, cache in read), options)
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
