# SPDX-License-Identifier: Apache-2.0
"""What the PLS paper (arXiv 2505.21852) and OSRL publish of DSRL's tasks, to set beside our rows.

The tables' numbers are the paper's, from its tables 1, 7 and 8: normalised reward / normalised cost
by DSRL's formulas, means (and deviations where they could be read) of five runs. The columns of
other methods at b = 40 are taken to have the order of tasks of those at b = 20. `?` could not be
read. None of these numbers was measured here.
"""

from typing import NamedTuple

SOURCE = "arXiv 2505.21852, tables 1, 7 and 8"
METHODS = ("BCQ-Lag", "BEAR-Lag", "CPQ", "COptiDICE", "CDT", "CCAC", "PLS")

_TABLES = {
    20.0: """
AntRun .79/5.52 .07/.12 .01/.00 .63/.79 .72±.05/.90±.12 .02/.00 .78±.06/.77±.10
AntCircle .59/2.28 .58/3.37 .00/.00 .16/2.98 .47/2.23 .62/1.24 .41±.01/.77±.05
CarCircle .65/2.17 .76/2.74 .70/.01 .48/1.85 .73/.98 .72/.87 .72±.01/.88±.09
DroneRun .65/3.91 -.03/.00 .19/.00 .69/3.48 .57/.34 .82/7.62 .59/.50±.44
DroneCircle .69/1.92 .82/3.58 -.26/.14 .22/.68 .60/1.12 .37/.74 .59/.90±.08
AntVelocity 1.00/3.22 -1.01/.00 -1.01/.00 1.00/6.60 .97/.36 .68/.60 .98/.82±.19
Walker2dVelocity .78/.44 .89/7.60 -.02/.00 .13/1.75 .80/.01 .81/6.37 .79/.00
HalfCheetahVelocity 1.03/27.0 .98/12.35 .22/.28 .63/.00 .96/.03 .84/1.36 .99/.15±.19
HopperVelocity .85/? .36/? .20/? .14/? .68/? .17/? .83±.01/.42±.10
""",
    40.0: """
AntRun .76/2.34 .02/.05 .02/.00 .63/.56 .72/1.10 .02/.00 .70/.54
AntCircle .78/2.54 .63/2.15 .00/.00 .17/2.50 .53/.79 .62/1.13 .55/.82
CarCircle .79/1.58 .84/1.75 .73/.86 .49/1.44 .80/.99 .77/.86 .80/.93
DroneRun .68/2.34 .87/3.04 .19/2.41 .69/1.64 .60/.89 .57/1.73 .62/.91
DroneCircle .92/2.31 .78/1.69 -.27/.20 .28/.29 .69/1.00 .16/.71 .68/.96
AntVelocity 1.01/2.25 -1.01/.00 -1.01/.00 1.00/3.35 .97/.81 .60/.68 .99/.49
Walker2dVelocity .78/.30 .91/4.05 -.01/.00 .13/.90 .79/.00 .84/3.49 .83/.00
HalfCheetahVelocity 1.04/14.1 .98/6.34 .01/.10 .63/.00 .97/.05 .85/1.22 1.00/.01
HopperVelocity .85/5.30 ?/? .23/2.75 ?/? .67/.56 ?/? .84/.20
""",
}
# Unsafe evaluations of PLS in about 20 (table 8, which says neither b nor whether it counts
# episodes or evaluations).
VIOLATIONS = {
    "AntRun": "3±2",
    "AntCircle": "2±1",
    "CarCircle": "4±2",
    "DroneRun": "5±3",
    "DroneCircle": "3±2",
    "AntVelocity": "2±1",
    "Walker2dVelocity": "1±1",
    "HalfCheetahVelocity": "1±1",
    "HopperVelocity": "2±2",
}


class Setting(NamedTuple):
    """What was chosen for one task.

    Attributes:
      seed_returns: target returns of the seed set, least and greatest (paper, tables 5 and 6).
      degree: of the augmentation's polynomial (OSRL `examples/configs/cdt_configs.py`).
      max_reward: greatest relabelled return.
      decrease: how much less an episode may return than it is relabelled to.
    """

    seed_returns: tuple[float, float]
    degree: int
    max_reward: float
    decrease: float


SETTINGS = {
    "AntRun": Setting((700, 750), 3, 1000, 150),
    "AntCircle": Setting((250, 300), 2, 500, 100),
    "CarCircle": Setting((400, 475), 4, 600, 100),
    "DroneRun": Setting((400, 450), 1, 700, 100),
    "DroneCircle": Setting((700, 720), 1, 1000, 100),
    "AntVelocity": Setting((2000, 2300), 1, 3000, 500),
    "Walker2dVelocity": Setting((2000, 2400), 1, 3600, 800),
    # Printed as 200 to 2300, perhaps a misprint; of both readings this trusts less.
    "HalfCheetahVelocity": Setting((2000, 2300), 1, 3000, 500),
    "HopperVelocity": Setting((1200, 1500), 1, 2000, 300),
}
SEED_COST = 5.0  # greatest target cost return of the seed set, in all tasks


class Cell(NamedTuple):
    """One method on one task at one threshold; None where it is not legible or not told."""

    text: str
    reward: float | None
    cost: float | None
    reward_sd: float | None
    cost_sd: float | None


def published(threshold: float) -> dict[str, dict[str, Cell]]:
    """Returns the paper's cells by task and method; empty for a threshold it does not have."""
    lines = (line.split() for line in _TABLES.get(threshold, "").strip().splitlines())
    return {task: dict(zip(METHODS, map(_cell, cells), strict=True)) for task, *cells in lines}


def _cell(text: str) -> Cell:
    values = []
    for part in text.split("/"):
        mean, _, sd = part.partition("±")
        values.append([None if x in ("", "?") else float(x) for x in (mean, sd)])
    (reward, reward_sd), (cost, cost_sd) = values
    return Cell(text.replace("/", " / "), reward, cost, reward_sd, cost_sd)
