# SPDX-License-Identifier: Apache-2.0
"""The decoder's arithmetic as pure functions, shared by training and decoding.

Letters in shapes: B batch, T queries, S keys, H width, N query heads, K key heads, D head width.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.lm.config import DecoderConfig, Llama3Scaling

Params = dict[str, Any]
FAR = -1e30  # a score of no weight; finite, as whole rows may be masked
BATCH_AXES = ("data", "fsdp")  # of a mesh (`sharding.make_mesh`), over which rows are spread


def rms(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """w x / sqrt(mean(x^2) + eps) over the last axis, in float32; `x`'s dtype comes back."""
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (wide * scale.astype(jnp.float32)).astype(x.dtype)


def product(x: jax.Array, kernel: jax.Array, wide: bool = False) -> jax.Array:
    """`x W` `[..., O]` of `x` `[..., I]`; `wide` asks for float32.

    As one matrix of rows: XLA for CPUs computes the weights' gradient twice as fast so. On a mesh
    the rows' axes stay apart, as they are spread apart.
    """
    dtype = jnp.float32 if wide else None
    rows = x if _on_mesh() else x.reshape(-1, x.shape[-1])
    y = jnp.matmul(rows, kernel, preferred_element_type=dtype)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def linear(x: jax.Array, layer: Params, dtype: jnp.dtype) -> jax.Array:
    """`x W + b` `[..., O]` of `x` `[..., I]`, plus `(x A) B` where an adapter is attached."""
    y = product(x, layer["kernel"].astype(dtype))
    if "bias" in layer:
        y = y + layer["bias"].astype(dtype)
    if "a" in layer:
        y = y + (x @ layer["a"].astype(dtype)) @ layer["b"].astype(dtype)
    return y


def frequencies(head_dim: int, theta: float, scaling: Llama3Scaling | None = None) -> np.ndarray:
    """Radians per position `[D / 2]` of each pair, theta^(-2j / D), scaled where asked for.

    Source: transformers 5.23 `modeling_rope_utils.py`, `_compute_llama3_parameters`.
    """
    base = float(theta) ** (-np.arange(0, head_dim, 2) / head_dim)
    if scaling is None:
        return base.astype(np.float32)
    wavelength = 2 * np.pi / base
    share = (scaling.original / wavelength - scaling.low) / (scaling.high - scaling.low)
    between = (1 - share) * base / scaling.factor + share * base
    slowed = np.where(share < 0, base / scaling.factor, between)
    return np.where(share > 1, base, slowed).astype(np.float32)


def rope_tables(
    positions: jax.Array, config: DecoderConfig, below: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines `[..., D / 2]` float32 of the angles at positions `[...]`.

    Args:
      positions: integers, from 0.
      config: of the decoder.
      below: what all of them are less than, if that is known: they are then looked up, where XLA
        for CPUs would compute them anew for every head of every layer.
    """
    turns = frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    if below is not None:
        known = np.arange(below, dtype=np.float32)[:, None] * turns
        cos, sin = (jnp.take(table, positions, 0, mode="clip") for table in _waves(known))
        return cos, sin
    angles = positions[..., None].astype(jnp.float32) * turns
    return jnp.cos(angles), jnp.sin(angles)


def _waves(angles: np.ndarray) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(np.cos(angles)), jnp.asarray(np.sin(angles))


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Turns the pairs (x_j, x_{j + D/2}) of `x` `[..., D]`; tables broadcast, `[..., D / 2]`.

    Halves, not neighbours: Hugging Face's layout of the weights.
    """
    one, two = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], -1).astype(x.dtype)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(D)) v, `[B, T, N, D]`; the softmax in float32.

    Args:
      q: `[B, T, N, D]`.
      k: `[B, S, K, D]`, each head of it shared by N / K query heads.
      v: `[B, S, K, D]`.
      seen: `[B, T, S]` bool. A query that sees nothing gets a finite mean of the values.
    """
    batch, length, heads, width = q.shape
    # Heads ahead of tokens: in products over the last two axes CPUs are a third faster.
    grouped = jnp.moveaxis(q.reshape(batch, length, k.shape[2], -1, width), 1, 3)
    mixed = _mix(grouped, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), seen)
    return jnp.moveaxis(mixed, 3, 1).reshape(batch, length, heads, width)


# Which key a query sees: `[B, T, S]`, or as `visible_behind` has it.
Seen = jax.Array | tuple[jax.Array, jax.Array]


def attend_behind(
    q: jax.Array, k: jax.Array, v: jax.Array, seen: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """`attend` on rows of a prompt and A answers behind it, `[B, P + A C, N, D]`.

    Answers do not see one another, so that no scores between them are computed.

    Args:
      q: `[B, P + A C, N, D]`.
      k: `[B, P + A C, K, D]`.
      v: `[B, P + A C, K, D]`.
      seen: of `visible_behind`.
    """
    rows, prompt = seen[0].shape[:2]
    beginning = attend(q[:, :prompt], k[:, :prompt], v[:, :prompt], seen[0])
    own = q[:, prompt:].reshape(seen[1].shape[0], -1, *q.shape[2:])
    keys, values = (_behind(x, prompt, own.shape[1]) for x in (k, v))
    answers = attend(own, keys, values, seen[1])
    return jnp.concatenate([beginning, answers.reshape(rows, -1, *q.shape[2:])], axis=1)


def _behind(x: jax.Array, prompt: int, size: int) -> jax.Array:
    """`[B A, P + C, ...]`: each answer of `x` `[B, P + A C, ...]` behind the prompt, C `size`."""
    own = x[:, prompt:].reshape(-1, size, *x.shape[2:])
    return jnp.concatenate([jnp.repeat(x[:, :prompt], len(own) // len(x), axis=0), own], axis=1)


@jax.custom_vjp
def _mix(q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array) -> jax.Array:
    """Attention `[B, K, G, T, D]` of q in that shape, k and v `[B, K, S, D]`, seen `[B, T, S]`."""
    return _mix_forward(q, k, v, seen)[0]


def _mix_forward(
    q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    scores = jnp.einsum("bkgtd,bksd->bkgts", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(seen[:, None, None], scores * q.shape[-1] ** -0.5, FAR)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    mixed = jnp.einsum("bkgts,bksd->bkgtd", weights, v)
    return mixed, (q, k, v, seen, weights, mixed)


def _mix_backward(saved: tuple[jax.Array, ...], change: jax.Array) -> tuple[Any, ...]:
    """The softmax's inner product is <output, its gradient>: `[T, D]` to sum, not `[T, S]`."""
    q, k, v, seen, weights, mixed = saved
    wide = jnp.float32
    by_weight = jnp.einsum("bkgtd,bksd->bkgts", change, v, preferred_element_type=wide)
    inner = jnp.sum(mixed.astype(wide) * change.astype(wide), axis=-1, keepdims=True)
    by_score = weights.astype(wide) * (by_weight - inner) * q.shape[-1] ** -0.5
    # A query that sees nothing has weights, but scores that do not depend on q and k.
    by_score = jnp.where(seen[:, None, None], by_score, 0.0).astype(q.dtype)
    return (
        jnp.einsum("bkgts,bksd->bkgtd", by_score, k),
        jnp.einsum("bkgts,bkgtd->bksd", by_score, q),
        jnp.einsum("bkgts,bkgtd->bksd", weights, change),
        None,
    )


_mix.defvjp(_mix_forward, _mix_backward)


def count_positions(mask: jax.Array, segment_ids: jax.Array | None = None) -> jax.Array:
    """Positions `[B, T]` int32: tokens so far, less one; padding counts nothing.

    Args:
      mask: `[B, T]` bool, true at tokens.
      segment_ids: `[B, T]`, equal within each of the pieces packed into a row; the count begins
        anew where they change.
    """
    counts = jnp.cumsum(mask, axis=1, dtype=jnp.int32)
    if segment_ids is not None:
        first = jnp.ones_like(segment_ids[:, :1], bool)
        begins = jnp.concatenate([first, segment_ids[:, 1:] != segment_ids[:, :-1]], axis=1)
        before = jnp.where(begins, counts - mask, 0)
        counts = counts - jax.lax.cummax(before, axis=1)
    return jnp.maximum(counts - 1, 0)


def visible(
    mask: jax.Array,
    segment_ids: jax.Array | None = None,
    window: int | None = None,
    positions: jax.Array | None = None,
) -> jax.Array:
    """Which key a query sees, `[B, T, T]` bool: tokens of its piece, up to itself, in the window.

    Args:
      mask: `[B, T]` bool, true at tokens.
      segment_ids: `[B, T]`, as in `count_positions`.
      window: how many of the newest keys, the query's own among them; None for all.
      positions: `[B, T]`, which tell who is before whom; None: slots do.
    """
    slots = jnp.arange(mask.shape[1]) if positions is None else positions
    age = slots[..., :, None] - slots[..., None, :]
    near = age >= 0 if window is None else (age >= 0) & (age < window)
    seen = near & mask[:, None, :]
    if segment_ids is not None:
        seen &= segment_ids[:, :, None] == segment_ids[:, None, :]
    return seen


def visible_behind(
    mask: jax.Array, positions: jax.Array, prompt: int, size: int, window: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """`visible` on rows of a prompt of P slots and A answers of C slots, each going on from it.

    Args:
      mask: `[B, P + A C]` bool, true at tokens.
      positions: `[B, P + A C]`, an answer's going on from the prompt's tokens.
      prompt: P.
      size: C.
      window: as `visible` takes it.

    Returns:
      what the prompt's queries see of it, `[B, P, P]`, and an answer's of the prompt and of
      itself, `[B A, C, P + C]`.
    """
    both = visible(_behind(mask, prompt, size), None, window, _behind(positions, prompt, size))
    return visible(mask[:, :prompt], None, window), both[:, prompt:]


def _on_mesh() -> bool:
    """Whether the mesh in use (`jax.set_mesh`) is one of ours."""
    return set(BATCH_AXES) <= set(jax.sharding.get_abstract_mesh().axis_names)


def num_row_shards() -> int:
    """Over how many devices of the mesh in use rows are spread; 1 without a mesh of ours."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes[axis] for axis in BATCH_AXES) if _on_mesh() else 1


def keep_rows_apart(x: jax.Array) -> jax.Array:
    """Asks that rows of `[B, ...]` stay spread over the mesh in use, if it is one of ours.

    Left to itself, XLA may spread activations as it finds the weights.
    """
    if not _on_mesh():
        return x
    return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec(BATCH_AXES))


def look_up(embed: jax.Array, ids: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Embeddings `[B, T, H]` of ids `[B, T]`, rows spread as in `keep_rows_apart`."""
    if _on_mesh():
        # Whole rows of the table first: from parts of rows XLA would make the full [B, T, H].
        rows = jax.sharding.PartitionSpec("tensor", None)
        embed = jax.lax.with_sharding_constraint(embed.astype(dtype), rows)
    return keep_rows_apart(jnp.take(embed, ids, axis=0).astype(dtype))
