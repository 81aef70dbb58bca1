# SPDX-License-Identifier: Apache-2.0
"""What the paper (arXiv 2301.13343) publishes, to set beside our rows.

Means and deviations of five trials, as "distance/return". A distance is the squared error of
semantics normalised by their range, summed over dimensions; of Shooting 100 times that. A return is
undiscounted, of the policy behind the predictor. Nothing here was measured by us.
"""

from collections.abc import Sequence
from typing import NamedTuple

SOURCE = "arXiv 2301.13343"


class World(NamedTuple):
    """A world of the paper, and the two returns that its normalised return lies between.

    Attributes:
      name: of the world, and of its behaviour where there are two.
      behaviour: mean return of the behaviour that made the images.
      source: mean return of the policy on true states.
      many: annotations where the paper has more than ten.
    """

    name: str
    behaviour: float
    source: float
    many: int


WORLDS = (
    World("Shooting", 16.39, 45.99, 50),
    World("KUKA", 0.048, 1.0, 100),
    World("HalfCheetah, random", -1230.01, 2735.73, 50),
    World("HalfCheetah, low performance", 822.39, 2735.73, 50),
)
# By our names.
METHODS = {
    "unpaired": "Zhang et al.",
    "paired": "CRAR",
    "augmented": "theirs, random episodes",
    "active": "theirs, chosen episodes",
}
# Annotations (0, 10 or `World.many`), method, and a cell for each of `WORLDS`.
_TABLE = """
0 unpaired 37.42±6.23/22.46±4.99 .90±.12/.12±.08 3.71±.32/-1511.97±192.51 1.03±.19/-1241.31±523.06
10 paired 11.00±1.72/35.16±4.31 .59±.07/.24±.22 1.80±.09/-1411.83±144.21 .74±.06/-1549.82±106.04
10 augmented 3.44±.89/43.99±1.29 .35±.05/.52±.19 .40±.04/596.20±121.43 .09±.02/1117.05±127.93
10 active .16±.12/44.73±1.07 .37±.03/.65±.07 .37±.05/580.21±71.95 .06±.00/1145.77±110.29
many paired 2.80±.70/42.29±2.12 .32±.02/.52±.15 .88±.05/-818.29±300.08 .37±.04/-1416.37±194.31
many augmented .06±.02/46.02±.31 .11±.01/.76±.09 .12±.01/878.79±88.52 .03±.00/1393.11±226.39
many active .02±.00/45.66±.34 .12±.01/.90±.04 .07±.01/968.49±99.53 .02±.00/1527.37±133.19
"""
# With many annotations of random episodes, errors of the deviation `size` in deviations of the
# source's semantics; a cell for each of the first three worlds, "?" where nothing is reported.
_ERRORS = """
annotations .04 paired 2.99±.93/42.91±1.71 .33±.03/.58±.11 .91±.03/-919.86±328.14
annotations .04 augmented .12±.05/45.90±.54 .12±.01/.76±.18 .12±.01/787.0±230.32
annotations .15 paired 3.50±1.21/43.51±2.04 .32±.03/.53±.15 .99±.06/-833.35±464.76
annotations .15 augmented .47±.07/44.56±.59 .14±.01/.68±.15 .15±.02/616.63±260.73
annotations .3 paired 4.90±.85/40.83±2.78 ? ?
annotations .3 augmented 1.42±.15/42.47±1.74 ? ?
transitions .01 augmented .12±.04/45.90±.51 .12±.01/.80±.11 .18±.02/426.61±221.12
transitions .04 augmented .67±.12/44.78±1.16 .14±.00/.67±.22 1.21±.13/-523.8±336.51
transitions .1 augmented 3.43±1.00/43.44±1.60 ? ?
"""


class Cell(NamedTuple):
    """One method in one world.

    Attributes:
      text: as printed, "distance / return".
      normalised: the mean return, 0 as behaviour and 1 as the policy on true states; None where
        nothing is reported.
    """

    text: str
    normalised: float | None


class Row(NamedTuple):
    """A line of the tables.

    Attributes:
      annotations: "0", "10" or "many" (`World.many`).
      errors: what has errors and of what size, or "".
      method: by our name.
      cells: by the world's name.
    """

    annotations: str
    errors: str
    method: str
    cells: dict[str, Cell]


def published() -> list[Row]:
    """Returns the lines of the paper's tables, those without errors first."""
    rows = []
    for line in _TABLE.strip().splitlines():
        annotations, method, *cells = line.split()
        rows.append(Row(annotations, "", method, _cells(cells)))
    for line in _ERRORS.strip().splitlines():
        what, size, method, *cells = line.split()
        rows.append(Row("many", f"{what}, {float(size):g}", method, _cells(cells)))
    return rows


def _cells(texts: Sequence[str]) -> dict[str, Cell]:
    found = {}
    for world, text in zip(WORLDS, texts, strict=False):  # errors: not of the last world
        if text == "?":
            found[world.name] = Cell("", None)
            continue
        mean = float(text.split("/")[1].partition("±")[0])
        normalised = (mean - world.behaviour) / (world.source - world.behaviour)
        found[world.name] = Cell(text.replace("/", " / "), normalised)
    return found
