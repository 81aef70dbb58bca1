# SPDX-License-Identifier: Apache-2.0
"""What a run compares: methods of labelling, by numbers of annotations."""

import dataclasses
from typing import NamedTuple

from jaxsafe.core.checks import UserError, check_once
from jaxsafe.core.config import field
from jaxsafe.image_to_semantics import select

# Which order of episodes each method annotates in; "steps" are single images from anywhere.
ORDERS = {
    "paired": "steps",
    "paired_starts": "uniform",
    "augmented": "uniform",
    "active": "diverse",
    "k_center": "k_center",
    "uncertain": "uncertain",
    "short": "uniform",
    "auto": "uniform",
    "anchored": "uniform",
    "identified": "uniform",
    "copied": "uniform",
    "ceiling": "uniform",
}
ONCE = ("ceiling", "unpaired")  # whose annotations no budget counts
METHODS = (*ORDERS, "unpaired")


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared. Static."""

    methods: tuple[str, ...] = field(
        ("paired", "paired_starts", "augmented", "active", "ceiling"),
        "paired: annotations of any images, without augmentation; paired_starts: of first images; "
        "augmented: these replayed by the simulator to the end; active: those that the greedy "
        "diversity picks; k_center, uncertain: other picks; short: replayed for few steps; auto: "
        "until predictor and replay part; anchored: going on from the predictor there; "
        "identified: replayed by a simulator whose damping, masses and motors are fitted to second "
        "annotations of some episodes, taken out of the budget; copied: "
        "true labels of whole episodes, as the released code copies; ceiling: all true labels; "
        "unpaired: no annotation, but a dynamics cycle and an adversary (Zhang et al.).",
        choices=METHODS,
    )
    budgets: tuple[int, ...] = field((10, 50), "Annotations, each a study of its own.", low=1)
    pool: str = field(
        "unselected",
        "What the candidates are a share of; all: released code.",
        choices=select.POOLS,
    )
    share: float = field(0.1, "Share of episodes that are a round's candidates.", low=0.0, high=1.0)
    stride: int = field(
        1, "Steps between the images that selection sees; released code: 10.", low=1
    )
    horizon: int = field(10, "K of the method short, and what auto trusts in any case.", low=0)
    tolerance: float = field(
        0.05, "Squared error that auto allows a label, in variances of semantics.", low=0.0
    )
    later_share: float = field(
        0.2, "Share of annotations that identified gives to second ones.", low=0.0, high=0.5
    )
    later: int = field(50, "Steps from an episode's first to its second annotation.", low=1)
    annotation_error: float = field(
        0.0, "Noise of annotations, in standard deviations of semantics.", low=0.0
    )


def second_annotations(study: Study, budget: int) -> int:
    """How many of `budget` annotations the method identified gives to episodes' later images."""
    return max(1, round(study.later_share * budget))


class Plan(NamedTuple):
    """A predictor's method and its number of annotations."""

    method: str
    budget: int


def plans(study: Study) -> list[Plan]:
    """The predictors in order; at the end and once each the ceiling, and what has no label."""
    several = [m for m in study.methods if m not in ONCE]
    made = [Plan(m, b) for b in study.budgets for m in several]
    return made + [Plan(m, 0) for m in ONCE if m in study.methods]


def taught(study: Study) -> list[Plan]:
    """Those of `plans` that learn from labels: all but unpaired, which is the last there."""
    return [plan for plan in plans(study) if plan.method != "unpaired"]


def validate(study: Study, episodes: int) -> None:
    """Raises `UserError` where the study and the number of episodes do not fit together."""
    check_once("study.methods", study.methods)
    check_once("study.budgets", study.budgets)
    if set(study.methods) <= set(ONCE):
        raise UserError(
            f"study.methods={','.join(study.methods)!r} has no method with few annotations: name "
            "one more."
        )
    if "identified" in study.methods and min(study.budgets) < 2:
        raise UserError(
            "study.budgets=1 leaves no first image to the method identified: give at least 2."
        )
    if max(study.budgets) > episodes:
        raise UserError(
            f"study.budgets={max(study.budgets)} annotates more episodes than the {episodes} there "
            "are: lower it, or raise data.episodes."
        )
