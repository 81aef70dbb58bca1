# SPDX-License-Identifier: Apache-2.0
"""AdvantageNAS: one-shot architecture search with credit (Sato et al., AAAI 2021, 2012.06138)."""

from jaxsafe.advantage_nas.algorithm import init, most_likely, update
from jaxsafe.advantage_nas.config import (
    METHODS,
    Config,
    EstimatorConfig,
    paper_compat,
    validate,
)
from jaxsafe.advantage_nas.estimators import estimate
from jaxsafe.advantage_nas.experiment import PRESETS, Experiment
from jaxsafe.advantage_nas.space import Network, Space
from jaxsafe.advantage_nas.types import Batch, Losses, State

__all__ = [
    "METHODS",
    "PRESETS",
    "Batch",
    "Config",
    "EstimatorConfig",
    "Experiment",
    "Losses",
    "Network",
    "Space",
    "State",
    "estimate",
    "init",
    "most_likely",
    "paper_compat",
    "update",
    "validate",
]
