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
    """
    targets = completion[:, 1:].astype(bool)
    if not isinstance(model, DecoderConfig):
        if segment_ids is not None:
            raise ValueError("segment_ids need a DecoderConfig for a model")
        logits = model(params, ids, mask)[:, :-1].astype(jnp.float32)
        scores = _scores(logits, ids[:, 1:])
        return jnp.pad(jnp.where(targets, scores, 0.0), ((0, 0), (1, 0)))
    size = ids.shape[1] - 1 if max_completion is None else min(max_completion, ids.shape[1] - 1)
    network, variables = Decoder(model), {"params": params}
    hidden = jnp.asarray(network.apply(variables, ids, mask, segment_ids, method="hidden"))
    # Slots of completion tokens in order, those of no completion behind them.
    slots = jnp.argsort(~targets, axis=1, stable=True)[:, :size]
    wanted = jnp.take_along_axis(targets, slots, axis=1)
    hidden = jnp.take_along_axis(hidden, slots[..., None], axis=1)
    following = jnp.take_along_axis(ids[:, 1:], slots, axis=1)

    def head(rows: jax.Array) -> jax.Array:
        return jnp.asarray(network.apply(variables, rows, method="head"))

    found = _chunked(head, hidden, following, model.vocab_size, chunk)
    found = jnp.where(wanted, found, 0.0)
    too_many = targets.sum(axis=1, keepdims=True) > size
    found = jnp.where(too_many, jnp.nan, found)
    batch = jnp.arange(ids.shape[0])[:, None]
    return jnp.zeros(ids.shape, jnp.float32).at[batch, slots + 1].set(found)


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
