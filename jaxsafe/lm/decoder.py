# SPDX-License-Identifier: Apache-2.0
"""One compact Flax decoder for Llama 2/3, Mistral, Qwen2/2.5 and Qwen3.

`Decoder(config)` is a Linen module, so `init` and `apply` are pure functions. Its parameters are
plain nested dictionaries, every layer's stacked on a leading axis:

    embed [V, H]   final_norm [H]   head {kernel [H, V]}, absent where embeddings are tied
    layers  attention_norm, mlp_norm [L, H]   q_norm, k_norm [L, D]
            q, k, v, o, gate, up, down {kernel [L, I, O], bias [L, O] where there is one}

A linear layer may hold an adapter's `a` and `b` beside its kernel (`lora.attach`).
Letters in shapes: B batch, T tokens, V vocabulary, H width, L layers, I and O in and out.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsafe.lm import layers
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.layers import Params

_POLICIES: dict[str, Any] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def linear_shapes(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """`(I, O)` of each linear layer inside a block, by its name."""
    c = config
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    return {
        "q": (c.hidden_size, queries),
        "k": (c.hidden_size, keys),
        "v": (c.hidden_size, keys),
        "o": (queries, c.hidden_size),
        "gate": (c.hidden_size, c.intermediate_size),
        "up": (c.hidden_size, c.intermediate_size),
        "down": (c.intermediate_size, c.hidden_size),
    }


def norm_sizes(config: DecoderConfig) -> dict[str, int]:
    """Width of each norm inside a block, by its name."""
    sizes = {"attention_norm": config.hidden_size, "mlp_norm": config.hidden_size}
    heads = {"q_norm": config.head_dim, "k_norm": config.head_dim}
    return sizes | heads if config.qk_norm else sizes


def biased(config: DecoderConfig) -> tuple[str, ...]:
    """Names of the linear layers that have a bias."""
    return ("q", "k", "v") if config.qkv_bias else ()


def _normal(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return 0.02 * jax.random.normal(key, shape, dtype)


def _init_layers(key: jax.Array, config: DecoderConfig) -> Params:
    dtype, count = jnp.dtype(config.param_dtype), config.num_layers
    norms = {name: jnp.ones((count, n), dtype) for name, n in norm_sizes(config).items()}
    shapes = linear_shapes(config)
    keys = jax.random.split(key, len(shapes))
    linears = {}
    for i, (name, shape) in enumerate(shapes.items()):
        linears[name] = {"kernel": _normal(keys[i], (count, *shape), dtype)}
        if name in biased(config):
            linears[name]["bias"] = jnp.zeros((count, shape[1]), dtype)
    return norms | linears


def block(
    layer: Params,
    h: jax.Array,
    tables: tuple[jax.Array, jax.Array],
    seen: layers.Seen,
    config: DecoderConfig,
) -> jax.Array:
    """One layer: `h` `[B, T, H]` to the same, plus attention, plus a gated perceptron.

    Args:
      layer: its parameters, without the axis of layers.
      h: `[B, T, H]` in the dtype of the computation.
      tables: cosines and sines `[B, T, D / 2]`.
      seen: `[B, T, T]` bool, which key a query sees; or the two of `layers.visible_behind`.
      config: of the decoder.
    """
    dtype = jnp.dtype(config.dtype)

    def heads(x: jax.Array, name: str) -> jax.Array:
        return layers.linear(x, layer[name], dtype).reshape(*x.shape[:2], -1, config.head_dim)

    x = layers.rms(h, layer["attention_norm"], config.rms_eps)
    q, k, v = (heads(x, name) for name in "qkv")
    if config.qk_norm:
        q = layers.rms(q, layer["q_norm"], config.rms_eps)
        k = layers.rms(k, layer["k_norm"], config.rms_eps)
    cos, sin = (table[:, :, None] for table in tables)
    q, k = (layers.rotate(x, cos, sin) for x in (q, k))
    if isinstance(seen, tuple):
        mixed = layers.attend_behind(q, k, v, seen)
    else:
        mixed = layers.attend(q, k, v, seen)
    h = h + layers.linear(mixed.reshape(*h.shape[:2], -1), layer["o"], dtype)
    x = layers.rms(h, layer["mlp_norm"], config.rms_eps)
    gate = jax.nn.silu(layers.linear(x, layer["gate"], dtype))
    return h + layers.linear(gate * layers.linear(x, layer["up"], dtype), layer["down"], dtype)


class Decoder(nn.Module):
    """The decoder; `__call__` gives logits, `hidden` and `head` are its two parts."""

    config: DecoderConfig

    def setup(self) -> None:
        """Makes the parameters, where this is `init`."""
        if not self.is_initializing():
            return
        c, dtype = self.config, jnp.dtype(self.config.param_dtype)
        self.param("embed", _normal, (c.vocab_size, c.hidden_size), dtype)
        self.param("layers", _init_layers, c)
        self.param("final_norm", lambda key: jnp.ones(c.hidden_size, dtype))
        if not c.tie_embeddings:
            self.param(
                "head", lambda key: {"kernel": _normal(key, (c.hidden_size, c.vocab_size), dtype)}
            )

    def __call__(
        self,
        ids: jax.Array,
        mask: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        """Logits `[B, T, V]` float32 of the token after each; arguments as `hidden` takes them."""
        return self.head(self.hidden(ids, mask, segment_ids, positions))

    def hidden(
        self,
        ids: jax.Array,
        mask: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        behind: tuple[int, int] | None = None,
    ) -> jax.Array:
        """What the head reads, `[B, T, H]` after the last norm.

        Args:
          ids: `[B, T]` integers.
          mask: `[B, T]`, true at tokens, false at padding on either side; None: no padding.
          segment_ids: `[B, T]`, equal within each piece packed into a row; pieces do not see
            each other.
          positions: `[B, T]` of the rotation; None counts the tokens of each row or piece.
          behind: (P, C), where a row is a prompt of P slots and then answers of C slots each,
            which see it and themselves; `positions` are given then, going on from the prompt's.
        """
        c = self.config
        mask = jnp.ones(ids.shape, bool) if mask is None else mask.astype(bool)
        # Counted ones are below the number of slots, and so are those behind a prompt.
        below = ids.shape[1] if positions is None or behind else None
        if positions is None:
            positions = layers.count_positions(mask, segment_ids)
        tables = layers.rope_tables(positions, c, below)
        windows = {flag: c.sliding_window if flag else None for flag in set(c.windows())}
        seen: dict[bool, layers.Seen] = {
            flag: layers.visible_behind(mask, positions, *behind, window)
            if behind
            else layers.visible(mask, segment_ids, window)
            for flag, window in windows.items()
        }

        def step(h: jax.Array, xs: tuple[Params, jax.Array]) -> tuple[jax.Array, None]:
            layer, flag = xs
            chosen = next(iter(seen.values()))
            if len(seen) == 2:
                chosen = jax.tree.map(partial(jnp.where, flag), seen[True], seen[False])
            return layers.keep_rows_apart(block(layer, h, tables, chosen, c)), None

        if c.remat != "none":
            step = jax.checkpoint(step, policy=_POLICIES[c.remat], prevent_cse=not c.scan_layers)
        h = layers.look_up(self.get_variable("params", "embed"), ids, jnp.dtype(c.dtype))
        stacked: Params = self.get_variable("params", "layers")
        flags = jnp.asarray(c.windows())
        h, _ = jax.lax.scan(step, h, (stacked, flags), unroll=1 if c.scan_layers else True)
        return layers.rms(h, self.get_variable("params", "final_norm"), c.rms_eps)

    def head(self, hidden: jax.Array) -> jax.Array:
        """Logits `[..., V]` float32 of what `hidden` returned, `[..., H]`, at any choice of it."""
        tied = self.config.tie_embeddings
        held: Any = self.get_variable("params", "embed" if tied else "head")
        kernel = (held.T if tied else held["kernel"]).astype(hidden.dtype)
        return layers.product(hidden, kernel, wide=True)


def init(key: jax.Array, config: DecoderConfig) -> Params:
    """Random parameters (normal, 0.02; norms 1, biases 0). `key` is consumed."""
    return dict(Decoder(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"])


def apply_fn(config: DecoderConfig) -> Callable[[Params, jax.Array, jax.Array], jax.Array]:
    """The decoder as `apply(params, ids [B, T], mask [B, T]) -> logits [B, T, V]`."""
    model = Decoder(config)

    def apply(params: Params, ids: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.asarray(model.apply({"params": params}, ids, mask))

    return apply
