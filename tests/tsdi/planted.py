# SPDX-License-Identifier: Apache-2.0
"""Models whose difference is known: logits looked up by the last token, plus a planted bias."""

import jax
import jax.numpy as jnp

from jaxsafe import tsdi

VOCAB = 13


def apply(params, ids, mask):
    """Logits `[B, T, V]`: a row per token, plus a bias by place in the sequence."""
    del mask
    places = jnp.arange(ids.shape[1]) - params["first"]
    length = params["bias"].shape[0]
    inside = (places >= 0) & (places < length)
    bias = params["bias"][jnp.clip(places, 0, length - 1)] * inside[:, None]
    return params["rows"][ids] + bias


MODEL = tsdi.of_apply(apply)


def pair(prompt, length, seed=0, noise=0.0):
    """A reference and the same with a planted bias `[L, V]` on an answer's first positions.

    `noise` adds a deviation that depends on the last token, free of mean over tokens.
    """
    keys = jax.random.split(jax.random.key(seed), 3)
    rows = jax.random.normal(keys[0], (VOCAB, VOCAB))
    bias = jax.random.normal(keys[1], (length, VOCAB))
    # The last token of the prompt predicts the first of the answer.
    common = {"first": jnp.int32(prompt - 1)}
    other = noise * jax.random.normal(keys[2], rows.shape)
    reference = common | {"rows": rows, "bias": jnp.zeros_like(bias)}
    return tsdi.Pair(common | {"rows": rows + other, "bias": bias}, reference), bias
