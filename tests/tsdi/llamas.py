# SPDX-License-Identifier: Apache-2.0
"""A small Llama of random weights, and what is planted on it."""

import functools

import jax
import numpy as np

from jaxsafe import lm, tsdi
from jaxsafe.tsdi import models, planted

CONFIG = lm.DecoderConfig(
    vocab_size=64,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    intermediate_size=24,
)
BIAS = tsdi.Config(positions=3, draws=64, prompt_length=4, batch_size=16)
TEMPLATE = tsdi.pool.Template((1, 7), (9,))
SLOTS = 7  # of a prompt: three tokens of the template and four words
WORDS = np.arange(64)  # all, so that sums of ids modulo 64, which decide the noise, are uniform


@functools.cache
def drawn(noise=0.0, hot=None):
    """A planted pair; `hot` is the first token that is."""
    which = None if hot is None else hot <= WORDS
    return planted.make(jax.random.key(3), CONFIG, BIAS.positions, SLOTS, 1.0, noise, which)


def ids(config=BIAS, seed=0):
    return models.draws(jax.random.key(seed), WORDS, TEMPLATE, config)


def estimate(world, config=BIAS, seed=0):
    return models.estimate(
        ids(config, seed), config, world.model, world.pair, 64, jax.random.key(seed)
    )


@functools.cache
def ready():
    """Parameters whose next token depends on the prompt, and the same ready to decode."""
    params = drawn().pair.reference["model"]
    return params, lm.prepare(params, CONFIG)
