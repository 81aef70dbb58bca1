# SPDX-License-Identifier: Apache-2.0
"""What the binary runs: one task, searched by several methods."""

import dataclasses

from jaxsafe.advantage_nas import config as search_config
from jaxsafe.advantage_nas import tabular, toy
from jaxsafe.advantage_nas.config import METHODS, NB201, Config, EstimatorConfig
from jaxsafe.advantage_nas.image_task import ImageConfig
from jaxsafe.advantage_nas.tabular import TabularConfig
from jaxsafe.advantage_nas.toy import ToyConfig
from jaxsafe.core import checks
from jaxsafe.core.config import field, leaves
from jaxsafe.core.config import validate as validate_bounds

TASKS = ("toy", "tabular", "images")
ALL_METHODS = (*METHODS, "evolution")


@dataclasses.dataclass(frozen=True)
class Scoring:
    """What is done with the cells found."""

    candidates: int = field(
        30, "Architectures among which random search takes the best by validation loss.", low=1
    )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A task and the methods that search it."""

    task: str = field(
        "images",
        "toy: the paper's; tabular: a table of accuracies; images: a supernet.",
        choices=TASKS,
    )
    methods: tuple[str, ...] = field(
        ("advantage", "counterfactual", "reinforce", "gdas", "random"),
        "Searched with, in order; each takes the place of the estimator's method.",
        choices=ALL_METHODS,
    )
    table: str | None = field(
        None, "Table of cells' accuracies, .csv or .json (tabular; images: for transfer)."
    )
    toy: ToyConfig = ToyConfig()
    tabular: TabularConfig = TabularConfig()
    search: Config = Config()
    images: ImageConfig = ImageConfig()
    scoring: Scoring = Scoring()


_PAPER = Experiment(
    methods=("advantage", "advantage_ema", "reinforce"),
    search=NB201,
    images=ImageConfig(channels=16, cells=5, batch_size=64, pad=4),
)

PRESETS = {
    "demo": Experiment(),
    "toy": Experiment(task="toy", methods=METHODS),
    "tabular": Experiment(task="tabular", methods=tabular.METHODS),
    "paper": _PAPER,
    "paper_nb201": _PAPER,
    "paper_compat": dataclasses.replace(
        _PAPER,
        search=search_config.paper_compat(NB201),
        images=dataclasses.replace(_PAPER.images, reference=True),
    ),
}

# Scoring may change when a run is scored again.
RESUMABLE = ("table", *(leaf.path for leaf in leaves(Scoring(), "scoring")))


def estimator(base: EstimatorConfig, method: str) -> EstimatorConfig:
    """`base` for another method; the zero rule is the paper's method's alone."""
    rule = base.zero_rule if method == "advantage" else "gate"
    return dataclasses.replace(base, method=method, zero_rule=rule)


def toy_config(experiment: Experiment, method: str) -> ToyConfig:
    """The toy, for one method."""
    config = experiment.toy
    return dataclasses.replace(config, estimator=estimator(config.estimator, method))


def search(experiment: Experiment, method: str) -> Config:
    """The search, for one method."""
    config = experiment.search
    return dataclasses.replace(config, estimator=estimator(config.estimator, method))


def validate_experiment(experiment: Experiment) -> None:
    """Raises `UserError` naming field, value and fix."""
    validate_bounds(experiment)
    checks.check_once("methods", experiment.methods)
    known = tabular.METHODS if experiment.task == "tabular" else METHODS
    for method in experiment.methods:
        if method not in known:
            raise checks.UserError(
                f"methods holds {method!r}, which cannot run on task={experiment.task!r}: choose "
                f"from {', '.join(known)}."
            )
    if experiment.task == "toy":
        toy.validate(experiment.toy)
    elif experiment.task == "tabular":
        tabular.validate(experiment.tabular)
    else:
        search_config.validate(experiment.search)
