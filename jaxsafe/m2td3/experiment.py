# SPDX-License-Identifier: Apache-2.0
"""What the binary runs: methods on one scenario, or on games with known answers, then scored."""

import dataclasses

from jaxsafe.core import checks
from jaxsafe.core.config import field, leaves
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.envs import games, uncertainty
from jaxsafe.envs.games import QuadraticGame, ScalarRegulator
from jaxsafe.envs.worst_case import Search
from jaxsafe.m2td3.config import (
    DEMO,
    GAMES,
    METHODS,
    PAPER,
    SMOKE,
    SWING_UP,
    Config,
    paper_compat,
    validate,
)

# What scoring holds at least, so that a hopeless grid is refused before hours of training.
_POINT_BYTES, _EPISODE_BYTES = 8192, 256
_SEARCH = Search(random=16, rounds=2, proposals=4)  # a quarter of the cost of a 10 x 10 grid

SCENARIOS = (*uncertainty.SCENARIOS, *uncertainty.GYMNAX_SCENARIOS)
SCORERS = ("mujoco_c", "jax")
RENDERERS = ("lines", "mujoco", "html")
GAME_NAMES = ("quadratic", "regulator")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How finished policies are scored, over a grid of the whole set and off it, and drawn."""

    grid: int = field(10, "Points per parameter, both ends included.", low=1)
    episodes: int = field(3, "Episodes a point, the same starts at every point.", low=1)
    seed: int = field(1_000_000, "Seed of those starts, and of the search.", low=0)
    engines: tuple[str, ...] = field(
        ("mujoco_c",),
        "What scores: mujoco_c, where the task has it, and jax, the engine that trains.",
        choices=SCORERS,
    )
    search: Search = _SEARCH
    batch: int = field(256, "Episodes side by side in engine jax; a GPU holds many more.", low=1)
    renderer: str = field(
        "lines",
        "Films: lines, by Matplotlib; mujoco, which needs OpenGL; html, brax's viewer.",
        choices=RENDERERS,
    )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Methods on one scenario. They share `algo`."""

    scenario: str = field("InvertedPendulum-2", "Task and uncertainty set.", choices=SCENARIOS)
    version: str = field("v5", "Gymnasium's version of the task.", choices=("v4", "v5"))
    flavour: str = field(
        "paper", "How the set is read where codes differ.", choices=uncertainty.FLAVOURS
    )
    engine: str = field(
        "mjx", "What trains; analytic: InvertedPendulum alone.", choices=uncertainty.ENGINES
    )
    games: tuple[str, ...] = field(
        (), "Games with known answers to solve, in place of the scenario.", choices=GAME_NAMES
    )
    methods: tuple[str, ...] = field(
        ("m2td3_plus", "dr_td3", "td3"), "What to train, in order.", choices=METHODS
    )
    algo: Config = Config()
    eval: Evaluation = Evaluation()
    quadratic: QuadraticGame = QuadraticGame()
    regulator: ScalarRegulator = ScalarRegulator()


def method_config(experiment: Experiment, method: str) -> Config:
    """The learner's config for one of the methods."""
    return dataclasses.replace(experiment.algo, method=method)


def world(experiment: Experiment):
    """The scenario's `(task, uncertainty set)`."""
    return uncertainty.scenario(
        experiment.scenario, experiment.version, experiment.flavour, experiment.engine
    )


# Length and scoring may change when a run goes on or is scored again.
RESUMABLE = ("algo.total_steps", *(leaf.path for leaf in leaves(Evaluation(), "eval")))

# The methods that the publication compares.
PUBLISHED = tuple(method for method in METHODS if method != "m2td3_plus")

PRESETS = {
    "demo": Experiment(algo=DEMO),
    "known_answers": Experiment(games=GAME_NAMES, methods=METHODS, algo=GAMES),
    "pendulum": Experiment(scenario="Pendulum-3", algo=SWING_UP),
    "half_cheetah": Experiment(scenario="HalfCheetah-1", methods=("m2td3_plus", "td3"), algo=SMOKE),
    "paper": Experiment(version="v4", methods=PUBLISHED, algo=PAPER, eval=Evaluation(episodes=30)),
    "paper_compat": Experiment(
        version="v4", methods=PUBLISHED, algo=paper_compat(PAPER), eval=Evaluation(episodes=30)
    ),
}


def validate_experiment(experiment: Experiment) -> None:
    """Raises `UserError` naming field, value and fix."""
    validate_bounds(experiment)
    checks.check_once("methods", experiment.methods)
    validate(experiment.algo)
    if experiment.games:
        checks.check_once("games", experiment.games)
        for name in experiment.games:
            games.closed_form(getattr(experiment, name))
        return
    _, ranges = uncertainty.scenario_ranges(
        experiment.scenario, experiment.flavour, experiment.version, experiment.engine
    )
    how, points = experiment.eval, experiment.eval.grid ** len(ranges)
    checks.check_memory(
        f"eval.grid={how.grid}, {points:,} points with {how.episodes} episodes each,",
        (points + how.search.random) * (_POINT_BYTES + how.episodes * _EPISODE_BYTES),
        "Lower eval.grid or eval.episodes.",
    )
    checks.check_once("eval.engines", how.engines)
