# SPDX-License-Identifier: Apache-2.0
"""PLS: safe search over the targets of an offline policy (Wachi et al., arXiv 2505.21852)."""

from jaxsafe.pls import algorithm, rollout, windows
from jaxsafe.pls.calibrate import Calibration, calibrate
from jaxsafe.pls.config import METHODS, SearchConfig, paper_compat, validate
from jaxsafe.pls.policy_config import CDT, PolicyConfig, osrl_compat
from jaxsafe.pls.policy_types import Batch, Policy, PolicyState, Sizes, Windows
from jaxsafe.pls.problem import alpha_table, for_thresholds, make_problem, srinivas_alpha
from jaxsafe.pls.search import advance, ask, init, recommend, run_search, serve, tell
from jaxsafe.pls.types import Evaluation, Problem, Query, State, Trace

__all__ = [
    "CDT",
    "METHODS",
    "Batch",
    "Calibration",
    "Evaluation",
    "Policy",
    "PolicyConfig",
    "PolicyState",
    "Problem",
    "Query",
    "SearchConfig",
    "Sizes",
    "State",
    "Trace",
    "Windows",
    "advance",
    "algorithm",
    "alpha_table",
    "ask",
    "calibrate",
    "for_thresholds",
    "init",
    "make_problem",
    "osrl_compat",
    "paper_compat",
    "recommend",
    "rollout",
    "run_search",
    "serve",
    "srinivas_alpha",
    "tell",
    "validate",
    "windows",
]
