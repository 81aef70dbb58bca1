# SPDX-License-Identifier: Apache-2.0
"""AdamW with warm-up and cosine decay, and gradients summed over parts of a batch.

Parameters kept in float32 are the master weights; with `DecoderConfig.dtype="bfloat16"` the
computation is in half of the bytes (`cast` does it before they are gathered from other devices).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsafe.core import config as config_lib
from jaxsafe.core.config import field


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """AdamW's constants (`language_models.md` section 3)."""

    learning_rate: float = field(2e-5, "Peak step size.", low=0.0)
    warmup_ratio: float = field(0.03, "Share of steps in which the rate rises.", low=0.0, high=1.0)
    schedule: str = field(
        "cosine", "How the rate falls to 0 afterwards.", choices=("cosine", "linear", "constant")
    )
    b1: float = field(0.9, "Decay of the gradient's mean.", low=0.0, high=1.0)
    b2: float = field(0.999, "Decay of its square's.", low=0.0, high=1.0)
    eps: float = field(1e-8, "Beside the root in AdamW.", low=0.0)
    weight_decay: float = field(0.0, "Of matrices; norms and biases have none.", low=0.0)
    clip: float = field(1.0, "Largest norm of the gradient; 0 clips nothing.", low=0.0)


def rates(options: Optimiser, steps: int) -> optax.Schedule:
    """Step size by the number of updates before, for a run of `steps`.

    It rises from 0 over ceil(warmup_ratio * steps) updates and falls to 0 at `steps`, as
    transformers' `get_cosine_schedule_with_warmup` has it.
    """
    config_lib.validate(options)
    warmup = math.ceil(options.warmup_ratio * steps)

    def rate(count: Any) -> jax.Array:
        count = jnp.asarray(count, jnp.float32)
        done = jnp.clip((count - warmup) / max(1, steps - warmup), 0.0, 1.0)
        falls = {
            "cosine": (1 + jnp.cos(jnp.pi * done)) / 2,
            "linear": 1 - done,
            "constant": jnp.ones_like(done),
        }
        rise = jnp.minimum(count / max(1, warmup), 1.0) if warmup else 1.0
        return options.learning_rate * rise * falls[options.schedule]

    return rate


def make(options: Optimiser, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW at `rates`; its moments are float32."""
    adamw = optax.adamw(
        rates(options, steps),
        options.b1,
        options.b2,
        options.eps,
        mu_dtype=jnp.float32,
        weight_decay=options.weight_decay,
        mask=_matrices,
    )
    return optax.chain(optax.clip_by_global_norm(options.clip), adamw) if options.clip else adamw


def _matrices(params: Any) -> Any:
    """True at kernels, adapters and embeddings."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: str(getattr(path[-1], "key", "")) in ("kernel", "embed", "a", "b"),
        params,
    )


def cast(params: Any, dtype: str) -> Any:
    """The tree with its floating leaves in `dtype`; gradients come back in the leaves' own."""
    kind = jnp.dtype(dtype)
    return jax.tree.map(
        lambda x: x.astype(kind) if jnp.issubdtype(x.dtype, jnp.floating) else x, params
    )


def value_and_grad(
    loss: Callable[[Any, Any], tuple[jax.Array, Any]], params: Any, batch: Any, parts: int = 1
) -> tuple[tuple[jax.Array, Any], Any]:
    """`((loss, metrics), gradient)` of a batch, computed in parts one after the other.

    Where `loss` is a mean over rows, the result is the whole batch's to rounding, in the memory of
    one part.

    Args:
      loss: `(params, part) -> (loss [], metrics)`, metrics being a tree of scalars.
      params: a tree.
      batch: a tree of `[B, ...]`; B must be a multiple of `parts`. Part i takes rows i, i + parts,
        ..., so that each device keeps rows of its own where the batch is spread over several.
      parts: how many.
    """
    function = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        return function(params, batch)
    split = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0), batch
    )
    first = jax.tree.map(lambda x: x[0], split)
    zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, params, first)
    )

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(params, part)), None

    total, _ = jax.lax.scan(add, zero, split)
    return jax.tree.map(lambda x: x / parts, total)
