# SPDX-License-Identifier: Apache-2.0
"""Few-shot image-to-semantics translation (Sato et al., arXiv 2301.13343).

A policy that reads a simulator's state acts on images of another world: few annotations, turned
into many labels by replaying logged actions in the simulator, train a map from images to semantics.
"""

from jaxsafe.image_to_semantics.algorithm import init, update
from jaxsafe.image_to_semantics.augment import Labels, Simulator, auto_horizon, roll_out
from jaxsafe.image_to_semantics.config import PAPER, Config, validate
from jaxsafe.image_to_semantics.identify import Annotated, Fit, fit
from jaxsafe.image_to_semantics.networks import make_range
from jaxsafe.image_to_semantics.select import diverse
from jaxsafe.image_to_semantics.types import Batch, Latents, Pairs, Range, State

__all__ = [
    "PAPER",
    "Annotated",
    "Batch",
    "Config",
    "Fit",
    "Labels",
    "Latents",
    "Pairs",
    "Range",
    "Simulator",
    "State",
    "auto_horizon",
    "diverse",
    "fit",
    "init",
    "make_range",
    "roll_out",
    "update",
    "validate",
]
