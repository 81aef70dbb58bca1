# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of completions, without logits where nothing is read of them.

The hidden states that predict completion tokens are gathered first and only they pass the head,
in chunks that the backward pass computes anew; `[B, T, V]` is never made. Masks are explicit: a
completion's end-of-sequence token counts, whatever its id (`language_models.md` 2.4).

Letters in shapes: B batch, T tokens, C completion tokens, V vocabulary, H width.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsafe.lm import layers
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.decoder import Decoder

# `(params, ids [B, T], mask [B, T]) -> logits [B, T, V]`: any model, of any library.
Apply = Callable[[Any, jax.Array, jax.Array], jax.Array]
_CHUNK_LOGITS = 2**25  # of one chunk: 128 MiB in float32


def sums(
    model: DecoderConfig | Apply,
    params: Any,
    ids: jax.Array,
    mask: jax.Array,
    completion: jax.Array,
    *,
    max_completion: int | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """log p(completion | prompt) `[B]` float32, summed over completion tokens.

    Arguments as `per_token` takes them; a row of more than `max_completion` gives NaN.
    """
    return per_token(
        model, params, ids, mask, completion, max_completion=max_completion, chunk=chunk
    ).sum(axis=1)


def per_token(
    model: DecoderConfig | Apply,
    params: Any,
    ids: jax.Array,
    mask: jax.Array,
    completion: jax.Array,
    *,
    max_completion: int | None = None,
    chunk: int | None = None,
    segment_ids: jax.Array | None = None,
) -> jax.Array:
    """log p(token | tokens before it) `[B, T]` float32 at completion tokens, 0 elsewhere.

    Args:
      model: a decoder's config; or `apply(params, ids, mask) -> logits`, whose logits are then
        all computed.
      params: of the model, adapters attached if there are any.
      ids: `[B, T]`.
      mask: `[B, T]`, true at tokens; padding on either side.
      completion: `[B, T]`, true at the tokens to score. A row's first slot cannot be one, as
        nothing is before it.
      max_completion: C, the most completion tokens that a row has; None: T - 1. Hidden states of
        no more than these pass the head. A row with more of them gives NaN.
      chunk: completion tokens of each row that pass the head at a time; None: as many as make
        2^25 logits on a device. Rows stay whole, and so on their devices.
      segment_ids: `[B, T]` of pieces packed into rows, for a decoder. A piece's first token
        cannot be scored.

    Raises:
      ValueError: `segment_ids` beside an `apply`, which knows none.
    """
    targets = completion[:, 1:].astype(bool)
    if not isinstance(model, DecoderConfig):
        if segment_ids is not None:
            raise ValueError("segment_ids need a DecoderConfig for a model")
        logits = model(params, ids, mask)[:, :-1].astype(jnp.float32)
        scores = _scores(logits, ids[:, 1:])
        return jnp.pad(jnp.where(targets, scores, 0.0), ((0, 0), (1, 0)))
    size = ids.shape[1] - 1 if max_completion is None else min(max_completion, ids.shape[1] - 1)
    hidden = jnp.asarray(
        Decoder(model).apply({"params": params}, ids, mask, segment_ids, method="hidden")
    )
    # Slots of completion tokens in order, those of no completion behind them.
    slots = jnp.argsort(~targets, axis=1, stable=True)[:, :size]
    wanted = jnp.take_along_axis(targets, slots, axis=1)
    hidden = jnp.take_along_axis(hidden, slots[..., None], axis=1)
    following = jnp.take_along_axis(ids[:, 1:], slots, axis=1)
    found = _chunked(_head(model, params), hidden, following, model.vocab_size, chunk)
    found = jnp.where(wanted, found, 0.0)
    too_many = targets.sum(axis=1, keepdims=True) > size
    found = jnp.where(too_many, jnp.nan, found)
    batch = jnp.arange(ids.shape[0])[:, None]
    return jnp.zeros(ids.shape, jnp.float32).at[batch, slots + 1].set(found)


def of_answers(
    config: DecoderConfig,
    params: Any,
    ids: jax.Array,
    mask: jax.Array,
    completion: jax.Array,
    *,
    max_prompt: int,
    max_completion: int | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """log p(answer | prompt) `[B, K]` float32 of K answers to one prompt, which runs once.

    A row becomes the prompt and after it all answers, which see the prompt and themselves.

    Args:
      config: of the decoder.
      params: of the model.
      ids: `[B, K, T]`, padded on the right; a row's prompts are the same K times.
      mask: `[B, K, T]`, true at tokens.
      completion: `[B, K, T]`, true at the answer's tokens, which end the row.
      max_prompt: P, slots for the prompt; a row with a longer one gives NaN.
      max_completion: C, slots for each answer; a row with a longer one gives NaN.
      chunk: as `per_token` takes it.
    """
    rows, answers, slots = ids.shape
    size = slots - 1 if max_completion is None else min(max_completion, slots - 1)
    start = jnp.argmax(completion[:, 0], axis=-1)[:, None, None]  # tokens of the prompt
    at = start + jnp.arange(size)
    inside = jnp.broadcast_to(jnp.minimum(at, slots - 1), (rows, answers, size))
    wanted = jnp.take_along_axis(completion.astype(bool), inside, axis=2) & (at < slots)
    following = jnp.take_along_axis(ids, inside, axis=2)
    known = (jnp.arange(max_prompt) < start[:, 0]) & mask[:, 0, :max_prompt].astype(bool)
    inputs = _packed(ids[:, 0, :max_prompt], following, known, wanted, inside)
    packed, known, places = inputs
    found = Decoder(config).apply(
        *({"params": params}, packed, known, None, places),
        behind=(max_prompt, size),
        method="hidden",
    )
    hidden = jnp.asarray(found)
    # What predicts an answer's first token is the prompt's last.
    last = jnp.take_along_axis(hidden, jnp.clip(start - 1, 0, max_prompt - 1), axis=1)
    own = hidden[:, max_prompt:].reshape(rows * answers, size, -1)[:, :-1]
    ahead = jnp.concatenate([jnp.repeat(last, answers, axis=0), own], axis=1)
    found = _chunked(
        _head(config, params),
        ahead,
        following.reshape(rows * answers, size),
        config.vocab_size,
        chunk,
    )
    found = jnp.where(wanted, found.reshape(rows, answers, size), 0.0).sum(axis=-1)
    too_long = (completion.sum(-1) > size) | (start[:, 0] > max_prompt)
    return jnp.where(too_long, jnp.nan, found)


def _packed(
    prompt: jax.Array, answers: jax.Array, known: jax.Array, wanted: jax.Array, at: jax.Array
) -> tuple[jax.Array, ...]:
    """One row for a prompt `[B, P]` and its answers `[B, K, C]`, whose places `at` `[B, K, C]` are.

    Returns:
      the decoder's ids, mask and positions, `[B, P + K C]`.
    """
    rows = len(prompt)

    def joined(first: jax.Array, rest: jax.Array) -> jax.Array:
        return jnp.concatenate([first, rest.reshape(rows, -1)], axis=1)

    slots = jnp.broadcast_to(jnp.arange(prompt.shape[1]), prompt.shape)
    return joined(prompt, answers), joined(known, wanted), joined(slots, at)


def _head(config: DecoderConfig, params: Any) -> Callable[[jax.Array], jax.Array]:
    network = Decoder(config)
    return lambda rows: jnp.asarray(network.apply({"params": params}, rows, method="head"))


def _scores(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """log softmax of logits `[..., V]` at tokens `[...]`, in float32."""
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _chunked(
    head: Callable[[jax.Array], jax.Array],
    hidden: jax.Array,
    tokens: jax.Array,
    vocab_size: int,
    chunk: int | None,
) -> jax.Array:
    """Scores `[B, C]` of tokens `[B, C]` by the head on `[B, C, H]`, some columns at a time."""
    rows, columns = tokens.shape
    if chunk is None:
        chunk = max(1, _CHUNK_LOGITS * layers.num_row_shards() // (rows * vocab_size))
    if chunk >= columns:
        return _scores(head(hidden), tokens)
    count = -(-columns // chunk)
    spare = ((0, 0), (0, count * chunk - columns))
    parts = jnp.pad(hidden, (*spare, (0, 0))).reshape(rows, count, chunk, -1)
    wanted = jnp.pad(tokens, spare).reshape(rows, count, chunk)

    @jax.checkpoint
    def one(xs: tuple[jax.Array, jax.Array]) -> jax.Array:
        return _scores(head(xs[0]), xs[1])

    found = jax.lax.map(one, (jnp.moveaxis(parts, 1, 0), jnp.moveaxis(wanted, 1, 0)))
    return jnp.moveaxis(found, 0, 1).reshape(rows, -1)[:, :columns]
