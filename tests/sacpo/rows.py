# SPDX-License-Identifier: Apache-2.0
"""A decoder of a few thousand weights, and rows of random tokens for it."""

import jax
import numpy as np

from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.optimiser import Optimiser
from jaxsafe.sacpo import batches
from jaxsafe.sacpo.config import Config, Stage

MODEL = DecoderConfig(
    vocab_size=11,
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    intermediate_size=12,
)
FAST = Optimiser(learning_rate=1e-2, schedule="constant", warmup_ratio=0.0)


def config(loss, **changes):
    stage = Stage(
        loss=loss, **{"batch_size": 4, "reference": "online", "optimiser": FAST} | changes
    )
    return Config(MODEL, stage, steps=100)


def some(number, sequences=1, seed=0, labels=False, width=9):
    """Prompts of 2 to 4 tokens with answers of 1 to 5, `[number, sequences, width]`."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(number):
        prompt = rng.integers(3, 11, rng.integers(2, 5)).tolist()
        answers = [rng.integers(3, 11, rng.integers(1, 6)).tolist() for _ in range(sequences)]
        rows.append([(prompt, answer) for answer in answers])
    data = batches.arrays(rows, width)
    return data._replace(desirable=rng.random(number) < 0.4) if labels else data


def device(data):
    return jax.tree.map(jax.numpy.asarray, data)
