# SPDX-License-Identifier: Apache-2.0
"""M2TD3: max-min off-policy actor-critic (Tanabe et al., NeurIPS 2022, arXiv 2211.03413)."""

from jaxsafe.m2td3.algorithm import act, actor_step, critic_step, init, update
from jaxsafe.m2td3.config import METHODS, Config, paper_compat, validate
from jaxsafe.m2td3.experiment import PRESETS, Experiment
from jaxsafe.m2td3.types import Candidates, State, Transition, World, make_world

__all__ = [
    "METHODS",
    "PRESETS",
    "Candidates",
    "Config",
    "Experiment",
    "State",
    "Transition",
    "World",
    "act",
    "actor_step",
    "critic_step",
    "init",
    "make_world",
    "paper_compat",
    "update",
    "validate",
]
