# SPDX-License-Identifier: Apache-2.0
"""What is published of the paper's scenarios, to set beside our rows.

The numbers are those that IWOCS (arXiv 2410.06212) prints in its tables 8 and 9, and it says that
they are the M2TD3 paper's own: the worst and the average return over the grid, means of ten seeds,
of the worst with its standard error. It prints them without units; the powers of ten here are
inferred from their sizes. The averages of RARL there repeat its worst returns, a slip, and are left
out. One-parameter and small scenarios: no number is known to us. Nothing here was measured by us.
"""

from typing import NamedTuple

SOURCE = "arXiv 2410.06212, tables 8 and 9"
METHODS = ("m2td3", "soft_m2td3", "dr_td3", "rarl", "m3ddpg")

# Scenario, the units of its worst and of its average returns, and by method, in the order of
# `METHODS`: worst, standard error (- where none is printed), average.
_TABLE = """
Ant-2 1e3 1e3 4.13 .11 5.44 3.92 .14 5.56 1.64 .13 6.32 -1.77 .09 - -.25 .13 1.86
Ant-3 1e3 1e3 .10 .10 2.66 .07 .20 2.98 -.32 .03 3.62 -2.38 .07 - -1.38 .22 -.33
HalfCheetah-2 1e3 1e3 2.61 .16 4.35 2.82 .16 4.52 2.12 .13 5.79 -.70 .05 - -.58 .06 .77
HalfCheetah-3 1e3 1e3 .93 .21 3.79 1.53 .23 4.02 1.09 .06 5.54 -.81 .07 - -.66 .08 .58
Hopper-2 1e2 1e3 5.33 .28 2.51 5.79 .29 2.26 4.68 .15 1.89 3.34 .89 - 2.58 .29 1.15
Hopper-3 1e2 1e3 2.84 .25 .85 1.98 .22 .79 2.10 .35 1.50 1.64 .46 - .73 .11 .49
HumanoidStandup-2 1e4 1e5 6.50 .70 .97 7.94 .90 1.07 7.31 .78 1.06 5.78 .73 - 6.37 .72 .92
HumanoidStandup-3 1e4 1e5 6.20 .64 1.09 5.99 .37 1.04 5.41 .34 1.04 5.54 .76 - 6.01 .38 1.01
InvertedPendulum-2 1e2 1e2 3.56 1.32 6.13 1.36 .30 6.26 .57 .02 9.18 .02 - - .02 - 1.76
Walker2d-2 1e3 1e3 3.14 .39 4.72 2.64 .43 4.37 2.31 .50 4.54 .06 .04 - .39 .11 1.63
Walker2d-3 1e3 1e3 1.94 .40 4.27 2.00 .35 4.21 1.32 .34 4.48 .00 .02 - .28 .09 1.65
"""


class Cell(NamedTuple):
    """Undiscounted returns of one method on one scenario; None where nothing is printed."""

    worst: float
    error: float | None
    average: float | None


def published() -> dict[str, dict[str, Cell]]:
    """Returns the cells by scenario and method."""
    found = {}
    for line in _TABLE.strip().splitlines():
        scenario, worst_unit, average_unit, *numbers = line.split()
        units = (float(worst_unit), float(worst_unit), float(average_unit))
        cells = []
        for i in range(0, len(numbers), 3):
            pairs = zip(numbers[i : i + 3], units, strict=True)
            worst, *rest = (None if x == "-" else round(float(x) * u) for x, u in pairs)
            assert worst is not None
            cells.append(Cell(worst, *rest))
        found[scenario] = dict(zip(METHODS, cells, strict=True))
    return found
