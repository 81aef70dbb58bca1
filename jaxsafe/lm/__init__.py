# SPDX-License-Identifier: Apache-2.0
"""Language models: a Flax decoder for the Llama family."""

from jaxsafe.lm.config import DecoderConfig, Llama3Scaling, num_params, validate
from jaxsafe.lm.decoder import Decoder, apply_fn, init
from jaxsafe.lm.decoding import Prepared, prepare
from jaxsafe.lm.generate import Answers, Generation, generate

__all__ = [
    "Answers",
    "Decoder",
    "DecoderConfig",
    "Generation",
    "Llama3Scaling",
    "Prepared",
    "apply_fn",
    "generate",
    "init",
    "num_params",
    "prepare",
    "validate",
]
