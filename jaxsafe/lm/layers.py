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


def linear(x: jax.Array, layer: Params, dtype: jnp.dtype) -> jax.Array:
    """`x W + b` `[..., O]` of `x` `[..., I]`, plus `(x A) B` where an adapter is attached."""
    y = x @ layer["kernel"].astype(dtype)
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


def rope_tables(positions: jax.Array, config: DecoderConfig) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines `[..., D / 2]` float32 of the angles at positions `[...]`."""
    turns = frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    angles = positions[..., None].astype(jnp.float32) * turns
    return jnp.cos(angles), jnp.sin(angles)


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
    grouped = q.reshape(batch, length, k.shape[2], -1, width)
    scores = jnp.einsum("btkgd,bskd->bkgts", grouped, k, preferred_element_type=jnp.float32)
    scores = jnp.where(seen[:, None, None], scores * width**-0.5, FAR)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkgts,bskd->btkgd", weights, v).reshape(batch, length, heads, width)


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
    mask: jax.Array, segment_ids: jax.Array | None = None, window: int | None = None
) -> jax.Array:
    """Which key a query sees, `[B, T, T]` bool: tokens of its piece, up to itself, in the window.

    Args:
      mask: `[B, T]` bool, true at tokens.
      segment_ids: `[B, T]`, as in `count_positions`.
      window: how many of the newest keys, the query's own among them; None for all.
    """
    slots = jnp.arange(mask.shape[1])
    age = slots[:, None] - slots
    near = age >= 0 if window is None else (age >= 0) & (age < window)
    seen = near & mask[:, None, :]
    if segment_ids is not None:
        seen &= segment_ids[:, :, None] == segment_ids[:, None, :]
    return seen


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
