# SPDX-License-Identifier: Apache-2.0
"""What the binary runs: a world and its target, a learner, and what is compared."""

import dataclasses

from jaxsafe.core import checks
from jaxsafe.core.config import field, leaves
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.envs import batch_renderer
from jaxsafe.image_to_semantics import config as config_lib
from jaxsafe.image_to_semantics import plans as plans_lib
from jaxsafe.image_to_semantics import target, worlds
from jaxsafe.image_to_semantics.config import Config
from jaxsafe.image_to_semantics.plans import Study
from jaxsafe.image_to_semantics.unpaired import Unpaired

POLICIES = ("hand", "trained", "file")


@dataclasses.dataclass(frozen=True)
class Data:
    """The two worlds, and how much is seen of them."""

    world: str = field("reacher", "Source world.", choices=worlds.WORLDS)
    level: int = field(
        0,
        "Gap of the target: 0 none, 1 looks, 2 and a little physics, 3 and much.",
        low=0,
        high=len(target.LEVELS) - 1,
    )
    renderer: str = field(
        "raycaster",
        "What draws target images: our ray caster; MuJoCo, which needs OpenGL; or MJX's batch "
        "renderer, which needs warp-lang.",
        choices=target.RENDERERS,
    )
    file: str = field("", "HDF5 file of image episodes with truth to learn from; empty: made here.")
    episodes: int = field(200, "Offline episodes that are made.", low=1)
    held_out: int = field(20, "Further episodes on which predictions are scored.", low=1)
    seed: int = field(0, "Of these data; runs of all seeds share them.", low=0)
    processes: int = field(1, "Processes that make them; the data stay the same.", low=1, high=256)
    source_episodes: int = field(200, "Source episodes that give the semantics' range.", low=1)


@dataclasses.dataclass(frozen=True)
class Source:
    """The policy on semantics, which comes out of the source world."""

    policy: str = field(
        "hand",
        "What acts: the world's policy written by hand (reacher's alone has one), one trained in "
        "the source by TD3, or one of a file.",
        choices=POLICIES,
    )
    file: str = field("", "HDF5 file of a policy, the policy.hdf5 of a run that trained one.")
    steps: int = field(20_000, "TD3's iterations: a step of each world, then updates.", low=100)
    updates: int = field(2, "Its updates in an iteration.", low=1)
    num_envs: int = field(64, "Worlds that TD3 steps side by side.", low=1)
    hidden: tuple[int, ...] = field((128, 128), "Widths of its networks.", low=1)
    gamma: float = field(0.95, "Its discount.", low=0.0, high=1.0)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How finished predictors are scored."""

    episodes: int = field(20, "Episodes of each agent in the target world.", low=1)
    seed: int = field(1_000_000, "Of their starts and looks.", low=0)
    gain: float = field(
        1.0, "Weight of the image against the simulator's prediction; paper: 1.", low=1e-3, high=1.0
    )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Predictors side by side on one encoder, and the agents they make."""

    data: Data = Data()
    source: Source = Source()
    algo: Config = Config()
    study: Study = Study()
    unpaired: Unpaired = Unpaired()
    eval: Evaluation = Evaluation()


PRESETS = {
    "demo": Experiment(),
    # The comparison of the page's section 8.3 A; five seeds are --num_seeds=5.
    "study": Experiment(
        data=Data(episodes=200, held_out=20),
        study=Study(budgets=(5, 10, 50)),
        eval=Evaluation(episodes=10),
    ),
    # Every method there is, where looks and physics differ.
    "methods": Experiment(
        data=Data(level=2),
        study=Study(methods=plans_lib.METHODS, budgets=(10,)),
        eval=Evaluation(episodes=10),
    ),
    # The publication's third world, with annotations as there and a tenth of its steps.
    "half_cheetah": Experiment(
        data=Data(world="half_cheetah"),
        source=Source(policy="trained", num_envs=16, updates=4, gamma=0.99),
        algo=Config(vae_steps=4000, head_steps=8000),
        study=Study(methods=("paired", "augmented", "active", "auto", "ceiling"), budgets=(10, 50)),
        eval=Evaluation(episodes=10),
    ),
    # Published networks, lengths and literal choices, in this world.
    "paper": Experiment(
        data=Data(episodes=200, held_out=100, level=0),
        algo=config_lib.PAPER,
        study=Study(
            methods=("paired", "copied", "augmented", "active", "unpaired"),
            budgets=(10, 50),
            pool="all",
            stride=10,
        ),
        unpaired=Unpaired(dynamics=(1024, 1024)),
        eval=Evaluation(episodes=50),
    ),
}

# Scoring may change when a run is scored again.
RESUMABLE = (*(leaf.path for leaf in leaves(Evaluation(), "eval")), "data.processes")


def validate_experiment(experiment: Experiment) -> None:
    """Raises `UserError` naming field, value and fix."""
    validate_bounds(experiment)
    config_lib.validate(experiment.algo)
    data, source = experiment.data, experiment.source
    if (source.policy == "file") != bool(source.file):
        raise checks.UserError(
            f"source.policy={source.policy} and source.file={source.file!r} do not fit: give a "
            "file with source.policy=file, and with no other."
        )
    worlds.check_level(data.world, data.level)
    if data.renderer == "mjx":
        batch_renderer.check_installed()
    if data.world not in worlds.BODIES:
        _check_game(experiment)
    episodes = max(experiment.study.budgets, default=1) if data.file else data.episodes
    plans_lib.validate(experiment.study, episodes)
    steps, side = worlds.STEPS[data.world], config_lib.SIDE
    checks.check_memory(
        f"data.episodes={data.episodes} of {steps} images",
        2 * (data.episodes + data.held_out) * steps * side * side * 3,
        "Lower data.episodes.",
    )


def _check_game(experiment: Experiment) -> None:
    """Raises `UserError` where something is asked of a game that bodies alone have."""
    data, world = experiment.data, experiment.data.world
    if experiment.source.policy != "hand":
        raise checks.UserError(
            f"source.policy={experiment.source.policy} acts with continuous actions, and {world} "
            "has discrete ones: take hand."
        )
    if data.renderer != "raycaster":
        raise checks.UserError(f"data.renderer={data.renderer} draws no {world}: leave it out.")
    if "identified" in experiment.study.methods:
        raise checks.UserError(
            f"study.methods has identified, and {world} has no damping, masses or motors to fit: "
            "leave it out."
        )
