# SPDX-License-Identifier: Apache-2.0
"""The decoder one token at a time, with a cache of keys and values.

The arithmetic is `decoder.block`'s in the form that decodes fastest: layers unrolled, so that each
layer's cache is a buffer of its own that XLA updates in place (a scan over layers copies it), keys
and values as `[B, K, S, D]`, one matrix product for queries, keys and values, and one for both
halves of the perceptron.

Letters in shapes: B batch, T prompt slots, S slots in all, H width, N query heads, K key heads,
D head width, V vocabulary.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.lm import layers
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.layers import Params


@flax.struct.dataclass
class Prepared:
    """A model ready to decode: its weights in the dtype of the computation, fused, layer by layer.

    A second copy of the weights; drop the first where memory is short.
    """

    embed: jax.Array  # [V, H]
    blocks: tuple[Params, ...]  # one for each layer
    final_norm: jax.Array  # [H]
    head: jax.Array  # [H, V]
    config: DecoderConfig = flax.struct.field(pytree_node=False)


class Cache(NamedTuple):
    """Keys and values of one model, for every layer, and which slots hold a prompt's token."""

    keys: tuple[jax.Array, ...]  # [B, K, S, D] each
    values: tuple[jax.Array, ...]  # [B, K, S, D] each
    seen: jax.Array  # [B, S] bool; true from the prompt's end on
    lengths: jax.Array  # [B] int32, tokens of the prompt


@jax.jit
def _fused(stacked: Params, index: jax.Array) -> Params:
    """One layer's weights, adapters merged, kernels that read the same input side by side."""

    def kernel(name: str) -> jax.Array:
        layer = stacked[name]
        if "a" not in layer:
            return layer["kernel"][index]
        return layer["kernel"][index] + layer["a"][index] @ layer["b"][index]

    norms = {name: x[index] for name, x in stacked.items() if name.endswith("norm")}
    fused = {
        "qkv": jnp.concatenate([kernel(name) for name in "qkv"], axis=-1),
        "o": kernel("o"),
        "gate_up": jnp.concatenate([kernel("gate"), kernel("up")], axis=-1),
        "down": kernel("down"),
    }
    if "bias" in stacked["q"]:
        fused["bias"] = jnp.concatenate([stacked[name]["bias"][index] for name in "qkv"], -1)
    return fused | norms


def prepare(params: Params, config: DecoderConfig) -> Prepared:
    """Casts and fuses the weights once, for any number of generations.

    Args:
      params: of the decoder, adapters merged in passing.
      config: of the decoder; its `dtype` is the computation's.
    """
    dtype = jnp.dtype(config.dtype)
    blocks = []
    for i in range(config.num_layers):
        fused = _fused(params["layers"], jnp.int32(i))
        blocks.append(jax.tree.map(lambda x: x.astype(dtype), fused))
    embed = params["embed"].astype(dtype)
    head = embed.T if config.tie_embeddings else params["head"]["kernel"].astype(dtype)
    return Prepared(embed, tuple(blocks), params["final_norm"], head, config)


def _heads(layer: Params, x: jax.Array, config: DecoderConfig, cos: jax.Array, sin: jax.Array):
    """Rotated queries `[..., N, D]` and keys, and values `[..., K, D]` of `x` `[..., H]`."""
    c = config
    mixed = x @ layer["qkv"]
    if "bias" in layer:
        mixed = mixed + layer["bias"]
    sizes = (c.num_heads * c.head_dim, (c.num_heads + c.num_kv_heads) * c.head_dim)
    parts = jnp.split(mixed, sizes, axis=-1)
    q, k, v = (part.reshape(*x.shape[:-1], -1, c.head_dim) for part in parts)
    if c.qk_norm:
        q = layers.rms(q, layer["q_norm"], c.rms_eps)
        k = layers.rms(k, layer["k_norm"], c.rms_eps)
    cos, sin = cos[..., None, :], sin[..., None, :]
    return layers.rotate(q, cos, sin), layers.rotate(k, cos, sin), v


def _finish(layer: Params, h: jax.Array, mixed: jax.Array, config: DecoderConfig) -> jax.Array:
    """The residual stream `[..., H]` after a layer whose attention gave `mixed` `[..., N D]`."""
    h = h + mixed @ layer["o"]
    gate, up = jnp.split(layers.rms(h, layer["mlp_norm"], config.rms_eps) @ layer["gate_up"], 2, -1)
    return h + (jax.nn.silu(gate) * up) @ layer["down"]


def _logits(model: Prepared, h: jax.Array) -> jax.Array:
    h = layers.rms(h, model.final_norm, model.config.rms_eps)
    return jnp.matmul(h, model.head, preferred_element_type=jnp.float32)


def prefill(
    model: Prepared, ids: jax.Array, mask: jax.Array, new_slots: int
) -> tuple[jax.Array, Cache]:
    """Reads prompts `[B, T]`, padded on the left; returns logits `[B, V]` of what comes next.

    Args:
      model: from `prepare`.
      ids: `[B, T]`.
      mask: `[B, T]` bool, true at tokens.
      new_slots: room in the cache for tokens to come.
    """
    c = model.config
    cos, sin = layers.rope_tables(layers.count_positions(mask), c)
    seen = {
        f: layers.visible(mask, None, c.sliding_window if f else None) for f in set(c.windows())
    }
    h = jnp.take(model.embed, ids, axis=0)
    keys: list[jax.Array] = []
    values: list[jax.Array] = []
    for layer, windowed in zip(model.blocks, c.windows(), strict=True):
        x = layers.rms(h, layer["attention_norm"], c.rms_eps)
        q, k, v = _heads(layer, x, c, cos, sin)
        mixed = layers.attend(q, k, v, seen[windowed])
        h = _finish(layer, h, mixed.reshape(*ids.shape, -1), c)
        for store, new in ((keys, k), (values, v)):
            room = ((0, 0), (0, 0), (0, new_slots), (0, 0))
            store.append(jnp.pad(new.transpose(0, 2, 1, 3), room))
    later = jnp.ones((ids.shape[0], new_slots), bool)
    cache = Cache(
        tuple(keys),
        tuple(values),
        jnp.concatenate([mask, later], axis=1),
        mask.sum(axis=1, dtype=jnp.int32),
    )
    return _logits(model, h[:, -1]), cache


def step(
    model: Prepared, cache: Cache, token: jax.Array, prompt_slots: int, index: jax.Array
) -> tuple[jax.Array, Cache]:
    """Reads one token a row and returns logits `[B, V]` of the next one.

    Args:
      model: from `prepare`.
      cache: of the tokens before.
      token: `[B]` ids.
      prompt_slots: T.
      index: `[]`, how many tokens have been read since the prompt.
    """
    c = model.config
    slot = prompt_slots + index
    cos, sin = layers.rope_tables(cache.lengths + index, c)
    slots = jnp.arange(cache.seen.shape[1])
    full = cache.seen & (slots <= slot)
    near = full if c.sliding_window is None else full & (slots > slot - c.sliding_window)
    h = jnp.take(model.embed, token, axis=0)
    keys, values = list(cache.keys), list(cache.values)
    for i, (layer, windowed) in enumerate(zip(model.blocks, c.windows(), strict=True)):
        x = layers.rms(h, layer["attention_norm"], c.rms_eps)
        q, k, v = _heads(layer, x, c, cos, sin)
        keys[i] = lax.dynamic_update_slice_in_dim(keys[i], k[:, :, None], slot, axis=2)
        values[i] = lax.dynamic_update_slice_in_dim(values[i], v[:, :, None], slot, axis=2)
        mixed = _attend_one(q, keys[i], values[i], near if windowed else full)
        h = _finish(layer, h, mixed, c)
    return _logits(model, h), cache._replace(keys=tuple(keys), values=tuple(values))


def capacities(prompt_slots: int, new: int) -> list[int]:
    """Slots of a cache from prefill to the end, each at least doubling: 256, 512, ... and the last.

    Attention reads every slot there is, filled or not, and a loop can only have one size; so a
    long generation is several loops. A size that would serve few tokens is left out.
    """
    last = prompt_slots + new - 1
    sizes = (256 * 2**i for i in range(32))
    return [n for n in sizes if prompt_slots + 32 <= n <= last - 64] + [last]


def grown(cache: Cache, slots: int) -> Cache:
    """The cache with room for `slots` in all."""
    more = slots - cache.seen.shape[1]
    if not more:
        return cache
    room = ((0, 0), (0, 0), (0, more), (0, 0))
    keys, values = (tuple(jnp.pad(x, room) for x in y) for y in (cache.keys, cache.values))
    seen = jnp.pad(cache.seen, ((0, 0), (0, more)), constant_values=True)
    return Cache(keys, values, seen, cache.lengths)


def _attend_one(q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array) -> jax.Array:
    """`[B, N D]` of queries `[B, N, D]` on a cache `[B, K, S, D]`, at slots `seen` `[B, S]`."""
    batch, _, width = q.shape
    grouped = q.reshape(batch, k.shape[1], -1, width)
    scores = jnp.einsum("bkgd,bksd->bkgs", grouped, k, preferred_element_type=jnp.float32)
    scores = jnp.where(seen[:, None, None], scores * width**-0.5, layers.FAR)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkgs,bksd->bkgd", weights, v).reshape(batch, -1)
