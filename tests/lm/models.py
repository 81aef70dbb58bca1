# SPDX-License-Identifier: Apache-2.0
"""Small decoders of every family, drawn so that norms and biases matter."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe import lm

_BASE = lm.DecoderConfig(
    vocab_size=37,
    hidden_size=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    intermediate_size=24,
    max_positions=64,
)
FAMILIES = {
    "llama": dataclasses.replace(_BASE, num_kv_heads=4),
    "llama3": dataclasses.replace(
        _BASE,
        rope_theta=500.0,
        rope_scaling=lm.Llama3Scaling(factor=8.0, low=1.0, high=4.0, original=32),
        tie_embeddings=True,
    ),
    "mistral": dataclasses.replace(_BASE, family="mistral", sliding_window=4, head_dim=6),
    "qwen2": dataclasses.replace(
        _BASE,
        family="qwen2",
        qkv_bias=True,
        sliding_window=5,
        window_layers=(False, False, True),
    ),
    "qwen3": dataclasses.replace(
        _BASE, family="qwen3", qk_norm=True, head_dim=8, tie_embeddings=True
    ),
}


@functools.partial(jax.jit, static_argnums=0)
def _drawn(config, seed):
    tree = lm.init(jax.random.key(seed), config)
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    drawn = [
        (8 if leaf.ndim > 2 else 1) * leaf + 0.3 * jax.random.normal(keys[i], leaf.shape)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, drawn)


def params(config, seed=0):
    """Parameters with norms away from 1, biases away from 0, and all of them larger than usual."""
    return _drawn(config, seed)


def tokens(config, shape, seed=0):
    """Random ids."""
    return jnp.asarray(np.random.default_rng(seed).integers(0, config.vocab_size, shape, np.int32))
