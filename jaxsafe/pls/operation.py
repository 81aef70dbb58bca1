# SPDX-License-Identifier: Apache-2.0
"""How trained policies are put to work."""

import dataclasses

from jaxsafe.core.config import field

METHODS = ("naive", "unsafe_search", "literal", "pls", "pls_calibrated")


@dataclasses.dataclass(frozen=True)
class Operation:
    """How policies are put to work, and how the truth is found."""

    thresholds: tuple[float, ...] = field(
        (5.0, 10.0, 20.0), "Cost returns b that no operated policy may exceed.", low=0.0
    )
    methods: tuple[str, ...] = field(METHODS, "Ways to choose a target.", choices=METHODS)
    reserve: float = field(
        0.2,
        "Cost by which calibrated searches stay below b: what the truth may be away from any draw "
        "of the model.",
        low=0.0,
    )
    repeats: int = field(4, "Searches of each policy and threshold.", low=1)
    oracle_episodes: int = field(200, "Episodes at each target, for the truth.", low=2)
    oracle_more: int = field(
        2000, "Further episodes at each target whose mean cost is near a threshold.", low=0
    )
    oracle_band: float = field(
        1.5, "How near, units of cost: where noise could tell safe from unsafe wrongly.", low=0.0
    )
    recorded: int = field(
        0,
        "Episodes recorded at each target, from which searches then draw theirs, with replacement, "
        "and whose mean is the truth; 0: searches run their own.",
        low=0,
    )
    draws: int = field(300, "Functions by which alpha is calibrated.", low=1)
    batch: int = field(5, "Targets whose episodes run side by side; a GPU holds more.", low=1)
