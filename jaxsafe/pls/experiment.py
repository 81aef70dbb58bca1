# SPDX-License-Identifier: Apache-2.0
"""What the binary runs: searches whose broken promises are counted."""

import dataclasses

from jaxsafe.core import checks
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.pls import counting, promises
from jaxsafe.pls.config import SearchConfig, validate
from jaxsafe.pls.counting import Counting
from jaxsafe.pls.promises import Case


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Searches on drawn functions."""

    promises: tuple[str, ...] = field(
        (), "Kinds of rows of the promise's table to count.", choices=promises.KINDS
    )
    deltas: tuple[float, ...] = field(
        (0.01, 0.05, 0.1, 0.2),
        "Promised probabilities of the matched rows; the others have search.delta.",
        low=1e-4,
        high=0.9,
    )
    side: int = field(50, "Grid points along each axis.", low=2)
    search: SearchConfig = SearchConfig()
    counting: Counting = Counting()


PRESETS = {
    "guarantee": Experiment(
        promises=promises.KINDS, search=SearchConfig(expander="none", intersect=True)
    ),
}


def cases(experiment: Experiment) -> dict[str, Case]:
    """The rows of the promise's table, by name."""
    return promises.cases(experiment.search, experiment.deltas, experiment.promises)


def validate_experiment(experiment: Experiment) -> None:
    """Raises `UserError` naming field, value and fix."""
    validate_bounds(experiment)
    validate(experiment.search)
    if experiment.promises:
        checks.check_once("promises", experiment.promises)
        checks.check_once("deltas", experiment.deltas)
        counting.validate(experiment.counting, (*experiment.deltas, experiment.search.delta))
