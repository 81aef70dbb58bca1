# SPDX-License-Identifier: Apache-2.0
"""What the binary runs: one task, searched by several methods."""

import dataclasses

from jaxsafe.advantage_nas import config as search_config
from jaxsafe.advantage_nas import tabular, toy
from jaxsafe.advantage_nas.config import METHODS, NB201, PTB, Config, EstimatorConfig
from jaxsafe.advantage_nas.image_task import ImageConfig
from jaxsafe.advantage_nas.retrain import RetrainConfig
from jaxsafe.advantage_nas.tabular import TabularConfig
from jaxsafe.advantage_nas.text_task import TextConfig
from jaxsafe.advantage_nas.toy import ToyConfig
from jaxsafe.core import checks
from jaxsafe.core.config import field, leaves
from jaxsafe.core.config import validate as validate_bounds

TASKS = ("toy", "tabular", "images", "text")
ALL_METHODS = (*METHODS, "evolution")


@dataclasses.dataclass(frozen=True)
class Scoring:
    """What is done with the cells found."""

    candidates: int = field(
        30, "Architectures among which random search takes the best by validation loss.", low=1
    )
    retrain: RetrainConfig = RetrainConfig(steps=400)
    retrain_seeds: int = field(
        2, "Trainings from scratch of each architecture found; 0: none.", low=0
    )
    equal_time: bool = field(
        False, "Also train from scratch what each method had found when the quickest one ended."
    )
    ranked: int = field(
        0,
        "Random architectures, trained from scratch, whose ranks by supernets are compared.",
        low=0,
    )
    ranked_seeds: int = field(2, "Trainings from scratch of each of these.", low=1)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A task and the methods that search it."""

    task: str = field(
        "images",
        "toy: the paper's; tabular: a table of accuracies; images, text: a supernet.",
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
    text: TextConfig = TextConfig()
    scoring: Scoring = Scoring()


_PAPER = Experiment(
    methods=("advantage", "advantage_ema", "reinforce"),
    search=NB201,
    images=ImageConfig(folder=None, channels=16, cells=5, batch_size=64, pad=4),
    scoring=Scoring(retrain_seeds=0),
)

# The zero operation is column 4.
_TEXT_SEARCH = dataclasses.replace(
    PTB, epochs=10, steps_per_epoch=20, estimator=EstimatorConfig(zero_op=4)
)
_PLAIN_SGD = RetrainConfig(steps=400, rate=20.0, momentum=0.0, nesterov=False, decay=0.0, clip=0.25)

PRESETS = {
    "demo": Experiment(),
    "toy": Experiment(task="toy", methods=METHODS),
    "tabular": Experiment(task="tabular", methods=tabular.METHODS),
    "digits": Experiment(
        methods=METHODS,
        search=Config(epochs=60, freeze_epochs=20),
        scoring=Scoring(retrain_seeds=5, ranked=50, equal_time=True),
    ),
    "text": Experiment(
        task="text",
        search=_TEXT_SEARCH,
        scoring=Scoring(retrain=_PLAIN_SGD),
    ),
    "paper": _PAPER,
    "paper_nb201": _PAPER,
    "paper_ptb": Experiment(
        task="text",
        methods=("advantage", "advantage_ema", "reinforce"),
        search=dataclasses.replace(PTB, estimator=EstimatorConfig(zero_op=4, zero_rule="literal")),
        text=TextConfig(streams=256, units=300, dropout=0.5, held_out=False),
        # 100 epochs.
        scoring=Scoring(retrain=dataclasses.replace(_PLAIN_SGD, steps=10_300), retrain_seeds=1),
    ),
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


def _check_methods_are_named_once(experiment: Experiment) -> None:
    """Each search takes its method from `methods`; another one named elsewhere would be lost."""
    places = {
        "toy.estimator.method": (experiment.toy.estimator.method, EstimatorConfig().method),
        "search.estimator.method": (experiment.search.estimator.method, EstimatorConfig().method),
        "tabular.method": (experiment.tabular.method, TabularConfig().method),
    }
    for name, (value, default) in places.items():
        if value != default:
            raise checks.UserError(f"{name}={value} has no effect: give --methods={value}.")


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
    _check_methods_are_named_once(experiment)
    if experiment.table is not None and experiment.task not in ("tabular", "images"):
        raise checks.UserError(
            f"--table is of NAS-Bench-201's cells, and task={experiment.task} has others: drop it."
        )
    if experiment.task == "toy":
        toy.validate(experiment.toy)
    elif experiment.task == "tabular":
        tabular.validate(experiment.tabular)
    else:
        search_config.validate(experiment.search)
    if experiment.scoring.equal_time and not experiment.scoring.retrain_seeds:
        raise checks.UserError(
            "scoring.equal_time=True compares what is trained from scratch, and "
            "scoring.retrain_seeds=0 trains nothing: raise it."
        )
