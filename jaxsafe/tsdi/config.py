# SPDX-License-Identifier: Apache-2.0
"""How a refusal bias is estimated and how it is taken off.

Reference: arXiv 2502.02153. No code of the authors was found and the text leaves the form of the
difference open, so this is our reconstruction; what is unsettled is a field.
"""

import dataclasses

from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds

SPACES = ("logprob", "centred_logit", "prob")
PREFIXES = ("random", "safe", "reference")


@dataclasses.dataclass(frozen=True)
class Config:
    """One estimate. Static under jit."""

    positions: int = field(16, "L, first positions of an answer that are corrected.", low=0)
    draws: int = field(1024, "K, random prompts.", low=2)
    prompt_length: int = field(16, "n, random tokens of a prompt, its template apart.", low=1)
    batch_size: int = field(32, "Prompts of one pass; a divisor of draws.", low=1)
    prefix: str = field(
        "random",
        "What stands before a position of an answer; random: tokens of the pool; safe, reference: "
        "what that model would say.",
        choices=PREFIXES,
    )
    space: str = field(
        "logprob",
        "What is averaged; logprob: log-probabilities; centred_logit: logits less their mean over "
        "the vocabulary; prob: probabilities, which do not cancel a tilt exactly.",
        choices=SPACES,
    )
    shrinkage: float = field(
        0.0, "Standard errors by which every entry of the table is drawn towards 0.", low=0.0
    )


def validate(config: Config, prefix: str = "bias.") -> None:
    """Raises `UserError` naming field, value and fix where the fields do not fit together."""
    validate_bounds(config, prefix.rstrip("."))
    if config.draws % config.batch_size:
        raise UserError(
            f"{prefix}batch_size={config.batch_size} does not divide {prefix}draws={config.draws}: "
            f"set draws to {-(-config.draws // config.batch_size) * config.batch_size}."
        )
