# SPDX-License-Identifier: Apache-2.0
"""Language models: a Flax decoder for the Llama family."""

from jaxsafe.lm.config import DecoderConfig, Llama3Scaling, num_params, validate
from jaxsafe.lm.decoder import Decoder, apply_fn, init

__all__ = [
    "Decoder",
    "DecoderConfig",
    "Llama3Scaling",
    "apply_fn",
    "init",
    "num_params",
    "validate",
]
