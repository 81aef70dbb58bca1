# SPDX-License-Identifier: Apache-2.0
"""What the binary runs: a bias estimated, taken off by how much and how long, beside other ways."""

import dataclasses

from jaxsafe.core import checks
from jaxsafe.core.config import field, leaves
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.lm.tokenizer import CHAT, check_template
from jaxsafe.tsdi.config import PREFIXES, SPACES, Config, validate

SOURCES = ("planted", "trained", "folder")
POOLS = ("vocabulary", "corpus", "file")


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How prompts are answered. Free to change when a run is scored again."""

    alpha: float = field(1.0, "How much of the bias is taken off.")
    length: int = field(16, "Positions corrected, at most those of the table.", low=0)
    alphas: tuple[float, ...] = field((0.25, 0.5, 0.75, 1.0), "The same, swept.")
    lengths: tuple[int, ...] = field((0, 1, 2, 4, 8, 16), "Positions corrected, swept.", low=0)
    raised: int = field(
        1, "Tokens of a position that `TSDI raised` lowers, those raised most; 0 leaves it out.", 0
    )
    raised_alpha: float = field(1.0, "How much of their bias it takes off.")
    raised_counts: tuple[int, ...] = field((1, 2, 4, 16, 64), "Such tokens, swept.", low=1)
    gate: bool = field(True, "Also leave prompts alone whose harm score is 1.")
    samples: int = field(4, "Answers to each prompt.", low=1)
    temperature: float = field(1.0, "Of answers; 0 takes the most probable token.", low=0.0)
    top_p: float = field(1.0, "Sample among the tokens that have this share.", 1e-6, 1.0)
    max_new: int = field(16, "Tokens of an answer at most.", low=1)


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Other ways to have fewer refusals; empty leaves one out."""

    temperatures: tuple[float, ...] = field((0.5, 2.0), "Of the safe model, plainly.", low=0.0)
    interpolations: tuple[float, ...] = field(
        (0.25, 0.5, 0.75),
        "Shares of the reference in a mean of both models' logits (the geometric merge).",
        low=0.0,
        high=1.0,
    )
    contrasts: tuple[float, ...] = field(
        (0.5,), "w of (1 + w) log pi_ref - w log pi_safe: contrastive decoding.", low=0.0
    )
    penalties: tuple[float, ...] = field(
        (2.0, 4.0), "Nats taken off a refusal's first token, wherever it stands first.", low=0.0
    )


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Tables estimated in other ways; empty leaves one out."""

    draws: tuple[int, ...] = field((32, 128), "Random prompts K.", low=2)
    prefixes: tuple[str, ...] = field(("safe",), "What stands for answers.", choices=PREFIXES)
    pools: tuple[str, ...] = field(("vocabulary",), "Where tokens come from.", choices=POOLS)
    spaces: tuple[str, ...] = field(("prob",), "What is averaged.", choices=SPACES)
    shrinkages: tuple[float, ...] = field((2.0,), "Standard errors drawn towards 0.", low=0.0)


@dataclasses.dataclass(frozen=True)
class Folders:
    """A user's own models and prompts."""

    safe: str = field("", "Hugging Face folder of the model that was made safe.")
    reference: str = field("", "The one that its safety training started from.")
    prompts: str = field(
        "", "CSV with a column prompt, and type, label (safe or unsafe), score if known; or JSON."
    )
    template: str = field(CHAT, "What a prompt becomes: chat, or a text with {input} in it.")
    max_prompts: int = field(0, "Prompts answered, spread over the file; 0: all.", low=0)


@dataclasses.dataclass(frozen=True)
class PlantedSizes:
    """The study where everything is known."""

    vocab_size: int = field(256, "Tokens; a multiple of 64.", low=64)
    hidden_size: int = field(64, "Width.", low=4)
    layers: int = field(2, "Layers.", low=1)
    scale: float = field(1.0, "Standard deviation of the planted bias, nats.", low=0.0)
    noise: float = field(1.0, "Standard deviation of what a context adds, nats.", low=0.0)
    draws: tuple[int, ...] = field((64, 256, 1024, 4096), "K, each measured.", low=2)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Biases of safe models against one reference, and what taking them off does."""

    source: str = field(
        "trained",
        "planted: known answers; trained: models that this or an earlier run trains; folder: a "
        "user's own.",
        choices=SOURCES,
    )
    models: str = field(
        "", "Folder models/ of an earlier run, with NAME/seedN in it; empty: this run's own."
    )
    safe: tuple[str, ...] = field(("over",), "Names of the models to correct.")
    reference: str = field("helpful", "Name of the one that their safety training started from.")
    pool: str = field(
        "corpus",
        "Random tokens; vocabulary: all; corpus: as in the texts trained on; file: of pool_file.",
        choices=POOLS,
    )
    pool_file: str = field("", "Text file whose tokens make a pool.")
    table: str = field(
        "",
        "A bias.safetensors of an earlier run to take off in place of this run's estimate; refused "
        "unless it was made of these models, this tokenizer and template.",
    )
    bias: Config = Config(draws=512)
    decoding: Decoding = Decoding()
    baselines: Baselines = Baselines()
    sensitivity: Sensitivity = Sensitivity()
    folders: Folders = Folders()
    planted: PlantedSizes = PlantedSizes()


# How answers are made and compared may change when a run is scored again.
RESUMABLE = tuple(
    leaf.path
    for part in ("decoding", "baselines", "sensitivity")
    for leaf in leaves(getattr(Experiment(), part), part)
)


def validate_experiment(experiment: Experiment, prefix: str = "") -> None:
    """Raises `UserError` naming field, value and fix.

    Args:
      experiment: to look at.
      prefix: of the fields' names, ending in a dot.
    """
    validate_bounds(experiment, prefix.rstrip("."))
    validate(experiment.bias, f"{prefix}bias.")
    if experiment.source == "planted":
        _check_planted(experiment, prefix)
        return
    if experiment.source == "trained":
        checks.check_once(f"{prefix}safe", experiment.safe)
    how, positions = experiment.decoding, experiment.bias.positions
    for name, given in (("length", (how.length,)), ("lengths", how.lengths)):
        if max(given, default=0) > positions:
            raise checks.UserError(
                f"{prefix}decoding.{name} holds {max(given)}, beyond {prefix}bias.positions="
                f"{positions}: raise that, or give less."
            )
    for draws in experiment.sensitivity.draws:
        if draws % experiment.bias.batch_size:
            raise checks.UserError(
                f"{prefix}sensitivity.draws holds {draws}, no multiple of {prefix}bias.batch_size="
                f"{experiment.bias.batch_size}: give multiples."
            )
    if "file" in (experiment.pool, *experiment.sensitivity.pools) and not experiment.pool_file:
        raise checks.UserError(f"{prefix}pool_file is empty: name a text file for a pool 'file'.")
    if experiment.source == "folder":
        _check_folders(experiment, prefix)


def _check_planted(experiment: Experiment, prefix: str) -> None:
    sizes = experiment.planted
    if sizes.vocab_size % 64:
        raise checks.UserError(
            f"{prefix}planted.vocab_size={sizes.vocab_size} is no multiple of 64: give one."
        )
    if sizes.hidden_size % 4:
        raise checks.UserError(
            f"{prefix}planted.hidden_size={sizes.hidden_size} is no multiple of 4: give one."
        )
    for draws in sizes.draws:
        if draws % experiment.bias.batch_size:
            raise checks.UserError(
                f"{prefix}planted.draws holds {draws}, no multiple of {prefix}bias.batch_size="
                f"{experiment.bias.batch_size}: give multiples."
            )


def _check_folders(experiment: Experiment, prefix: str) -> None:
    folders = experiment.folders
    check_template(folders.template)
    if "corpus" in (experiment.pool, *experiment.sensitivity.pools):
        raise checks.UserError(
            f"{prefix}pool='corpus' is of trained models only: use vocabulary, or file with "
            f"{prefix}pool_file."
        )
