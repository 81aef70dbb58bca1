# SPDX-License-Identifier: Apache-2.0
"""What a decoder of the Llama family is made of: one frozen dataclass for all of its members."""

import dataclasses

import jax

from jaxsafe.core import checks

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
REMAT = ("none", "full", "dots")
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Rotary frequencies stretched for long contexts (`rope_type: llama3`).

    Attributes:
      factor: how much slower the slow frequencies turn.
      low: wavelengths above `original / low` are slowed in full.
      high: wavelengths below `original / high` stay as they are.
      original: positions that the unscaled model was trained on.
    """

    factor: float = 8.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder's sizes and switches; hashable, so that it can be static under `jit`.

    Attributes:
      vocab_size: V, tokens.
      hidden_size: H, width of the residual stream.
      num_layers: L.
      num_heads: N, query heads.
      num_kv_heads: K, key and value heads, a divisor of N.
      head_dim: D, even; Qwen3's is not H / N.
      intermediate_size: F, width of the gated perceptron.
      family: whose name and config file `hf.save` writes.
      rms_eps: epsilon of the norms.
      rope_theta: base of the rotary angles.
      rope_scaling: how they are stretched, if at all.
      sliding_window: W, a query sees the W newest keys; None sees all.
      window_layers: which layers have the window, `L` flags; None, all of them.
      qkv_bias: biases on queries, keys and values.
      qk_norm: norms on each query and key head, before the rotation.
      tie_embeddings: the head is the transposed embedding.
      max_positions: T the model was made for; told to others, not enforced.
      dtype: of the computation; norms, softmax and logits are float32 whatever it is.
      param_dtype: of the parameters that `init` makes.
      remat: what the backward pass computes anew: nothing, whole layers (`full`), or all but the
        matrix products (`dots`).
      scan_layers: one trace for all layers; otherwise they are unrolled. Same parameters.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    family: str = "llama"
    rms_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: Llama3Scaling | None = None
    sliding_window: int | None = None
    window_layers: tuple[bool, ...] | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    tie_embeddings: bool = False
    max_positions: int = 4096
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    scan_layers: bool = True

    def windows(self) -> tuple[bool, ...]:
        """Which of the L layers have the sliding window."""
        if self.sliding_window is None:
            return (False,) * self.num_layers
        return self.window_layers or (True,) * self.num_layers


jax.tree_util.register_static(DecoderConfig)


def validate(config: DecoderConfig) -> None:
    """Raises `UserError` naming the field, its value and what would do."""
    sizes = ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim")
    for name in (*sizes, "intermediate_size", "max_positions"):
        checks.check_range(name, getattr(config, name), 1)
    checks.check_range("rms_eps", config.rms_eps, 0)
    checks.check_range("rope_theta", config.rope_theta, 1)
    checks.check_choice("family", config.family, FAMILIES)
    checks.check_choice("remat", config.remat, REMAT)
    for name in ("dtype", "param_dtype"):
        checks.check_choice(name, getattr(config, name), DTYPES)
    if config.num_heads % config.num_kv_heads:
        raise checks.UserError(
            f"num_kv_heads={config.num_kv_heads} does not divide num_heads={config.num_heads}: "
            "give a divisor."
        )
    if config.head_dim % 2:
        raise checks.UserError(f"head_dim={config.head_dim} is odd: rotation takes pairs.")
    if config.sliding_window is not None:
        checks.check_range("sliding_window", config.sliding_window, 1)
    if config.window_layers is not None and len(config.window_layers) != config.num_layers:
        raise checks.UserError(
            f"window_layers has {len(config.window_layers)} flags: give num_layers="
            f"{config.num_layers} of them."
        )


def num_params(config: DecoderConfig) -> int:
    """Number of parameters of the decoder."""
    c = config
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    layer = 2 * c.hidden_size * (queries + keys) + 3 * c.hidden_size * c.intermediate_size
    layer += 2 * c.hidden_size + c.qkv_bias * (queries + 2 * keys) + c.qk_norm * 2 * c.head_dim
    embeddings = (1 if c.tie_embeddings else 2) * c.vocab_size * c.hidden_size
    return embeddings + c.num_layers * layer + c.hidden_size
