# SPDX-License-Identifier: Apache-2.0
"""SACPO: align to reward, then to safety (Wachi et al., NeurIPS 2024, arXiv 2404.11049)."""

from jaxsafe.sacpo.algorithm import answer_sums, init, update
from jaxsafe.sacpo.config import Config, Stage
from jaxsafe.sacpo.experiment import PRESETS, Experiment
from jaxsafe.sacpo.tabular import solve
from jaxsafe.sacpo.types import Batch, State

__all__ = [
    "PRESETS",
    "Batch",
    "Config",
    "Experiment",
    "Stage",
    "State",
    "answer_sums",
    "init",
    "solve",
    "update",
]
