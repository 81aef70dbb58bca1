# SPDX-License-Identifier: Apache-2.0
"""Which policies a run trains, in what order, and each one's stage."""

import dataclasses

from jaxsafe.sacpo.config import Stage
from jaxsafe.sacpo.experiment import POLICIES, STAGES, Experiment

# The policy that each starts from, and the data it then learns from.
PARENTS = {
    "helpful": ("sft", "helpful"),
    "safe": ("sft", "safe"),
    "mixed": ("sft", "mixed"),
    "helpful_safe": ("helpful", "safe"),
    "safe_helpful": ("safe", "helpful"),
}


def order(experiment: Experiment) -> list[tuple[str, str, str, float]]:
    """What is trained, in order: (member, its parent or "", data, temperature)."""
    wanted = list(experiment.policies)
    if experiment.stage in ("sft", "helpful"):
        wanted = [p for p in wanted if p in STAGES[: STAGES.index(experiment.stage) + 1]]
    for policy in ("safe_helpful", "helpful_safe", *POLICIES):
        if policy in wanted and policy in PARENTS:
            wanted.append(PARENTS[policy][0])
    # A folder's model may be what supervised tuning gave already.
    given = bool(experiment.model.folder or experiment.model.spread == "parameters")
    tuned = "sft" in experiment.policies or not given
    members: list[tuple[str, str, str, float]] = []
    for policy in POLICIES:
        if policy not in wanted:
            continue
        if policy not in PARENTS:
            if tuned:
                members.append((policy, "", "sft", experiment.sft.temperature))
            continue
        parent, data = PARENTS[policy]
        parent = "" if parent == "sft" and not tuned else parent
        if data == "safe":
            for ratio in experiment.ratios:
                members.append((f"{policy}@{ratio:g}", parent, data, ratio))
        elif parent == "safe":
            for ratio in experiment.ratios:
                temperature = experiment.helpful.temperature
                members.append((f"{policy}@{ratio:g}", f"safe@{ratio:g}", data, temperature))
        else:
            members.append((policy, parent, data, experiment.helpful.temperature))
    return members


def stage_of(experiment: Experiment, data: str, temperature: float) -> Stage:
    """The stage that learns from `data` at that temperature."""
    stage = {"sft": experiment.sft, "safe": experiment.safe}.get(data, experiment.helpful)
    return dataclasses.replace(stage, temperature=temperature)
