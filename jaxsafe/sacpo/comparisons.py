# SPDX-License-Identifier: Apache-2.0
"""Every policy's answers against those of the supervised model, by programs or by a model.

Rows of `summary.json` get, for each judge (`reward` and `safety` of the synthetic task; `helpful`
and `harmless` of an endpoint):

  JUDGE_win_rate, _low, _high   wins of its answers over SFT's, a tie counting half, and the 95%
                                bootstrap interval over prompts; 0.5 for SFT itself
  JUDGE_unknown                 replies that said nothing, of JUDGE_asked
  JUDGE_elo                     Elo as the paper computes it, SFT at 1000, shifted and not stretched
  JUDGE_rating, _low, _high     Bradley-Terry's fit on the same scale, 95% bootstrap interval
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsafe.sacpo import judge, ranking, synthetic
from jaxsafe.sacpo.evaluate import Answer
from jaxsafe.sacpo.experiment import Evaluation, Experiment
from jaxsafe.sacpo.judge import Judge

KEY = "JUDGE_API_KEY"  # environment variable that holds the endpoint's key, if it wants one


def judges(experiment: Experiment) -> dict[str, Judge]:
    """What compares answers, by name: the task's own scores, and the endpoint if there is one."""
    found: dict[str, Judge] = {}
    if experiment.source == "synthetic":
        found |= {
            "reward": judge.by_score(synthetic.reward),
            "safety": judge.by_score(synthetic.safety),
        }
    if experiment.eval.judge:
        where = (experiment.eval.judge, experiment.eval.judge_model)
        key = os.environ.get(KEY, "")
        found |= {name: judge.endpoint(*where, name, key) for name in ("helpful", "harmless")}
    return found


def against(
    said: Mapping[str, Sequence[Answer]],
    anchor: str,
    judges: Mapping[str, Judge],
    how: Evaluation,
) -> list[dict[str, dict[str, Any]]]:
    """For each judge, by policy, the columns that the module's docstring has.

    Answers of all seeds are compared one by one with those of the anchor to the same prompts;
    without the anchor there is nothing to tell.
    """
    if anchor not in said:
        return []
    return [_by(name, one, said, anchor, how) for name, one in judges.items()]


def _by(
    name: str, one: Judge, said: Mapping[str, Sequence[Answer]], anchor: str, how: Evaluation
) -> dict[str, dict[str, Any]]:
    base = said[anchor]
    found: dict[str, dict[str, Any]] = {}
    outcomes: dict[str, np.ndarray] = {}
    for policy, answers in said.items():
        if policy == anchor:
            continue
        verdicts = judge.compare(
            one,
            [a.prompt for a in answers],
            [a.text for a in answers],
            [a.text for a in base],
            how.judge_repeats,
        )
        outcomes[policy] = verdicts.outcome
        found[policy] = {"asked": verdicts.asked, "unknown": verdicts.unparsable}
    for row in ranking.rows(outcomes, anchor):
        found[row.pop("policy")] |= row
    found[anchor] = {"win_rate": 0.5, "elo": 1000.0, "rating": 1000.0}
    return {p: {f"{name}_{k}": v for k, v in found[p].items()} for p in said}


def table(columns: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is printed of one judge."""
    shown = ("win_rate", "win_rate_low", "win_rate_high", "elo", "rating")
    return [
        {"policy": policy}
        | {
            name.replace("_", " "): round(float(value), 3)
            for name, value in row.items()
            if name.partition("_")[2] in shown
        }
        for policy, row in columns.items()
    ]
