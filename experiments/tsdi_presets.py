# SPDX-License-Identifier: Apache-2.0
"""What TSDI's binary may be told: its presets, and what it refuses."""

import dataclasses

from jaxsafe.core import checks
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.sacpo import experiment as sacpo_experiment
from jaxsafe.sacpo.config import Stage as Training
from jaxsafe.sacpo.experiment import Experiment as Alignment
from jaxsafe.sacpo.variants import NAMES, Variants
from jaxsafe.tsdi import experiment as experiments
from jaxsafe.tsdi.config import Config
from jaxsafe.tsdi.experiment import Decoding, Experiment

_SACPO = sacpo_experiment.PRESETS


@dataclasses.dataclass(frozen=True)
class Run:
    """What is corrected, and how the models are trained where that is part of the run."""

    correct: Experiment
    align: Alignment
    variants: Variants = Variants()


def _gently(align: Alignment) -> Alignment:
    """SACPO's preset with smaller steps and a larger beta.

    At its own values the helpful policy breaks: its answers hold stray bytes, and it never refuses.
    """

    def slow(stage: Training, epochs: float) -> Training:
        optimiser = dataclasses.replace(stage.optimiser, learning_rate=3e-4)
        return dataclasses.replace(stage, temperature=1.0, epochs=epochs, optimiser=optimiser)

    first, second = slow(align.helpful, 1), slow(align.safe, 2)
    return dataclasses.replace(align, helpful=first, safe=second, ratios=(1.0,))


_FOLDER = Experiment(source="folder", pool="vocabulary")
# alpha and L as chosen on seed 100 and `--variants.prompts=tuning` (see the README).
_BIAS = Config(draws=512, prompt_length=4)
_DECODING = Decoding(alpha=0.5, length=1, raised=1, raised_alpha=0.75)
_DEMO = _gently(_SACPO["demo"])
PRESETS = {
    "demo": Run(Experiment(bias=_BIAS, decoding=_DECODING), _DEMO),
    # The demo's decoder, so that five seeds of five variants take minutes; more prompts.
    "study": Run(
        Experiment(safe=NAMES, bias=_BIAS, decoding=_DECODING),
        dataclasses.replace(_DEMO, task=dataclasses.replace(_DEMO.task, held_out=200)),
    ),
    "planted": Run(Experiment(source="planted", bias=Config(positions=4)), _SACPO["demo"]),
    "folder": Run(_FOLDER, _SACPO["demo"]),
    "paper": Run(
        dataclasses.replace(_FOLDER, bias=Config(draws=1024, space="prob")), _SACPO["demo"]
    ),
}


def validate(run: Run) -> None:
    """Raises `UserError` naming field, value and fix."""
    validate_bounds(run)
    experiments.validate_experiment(run.correct, "correct.")
    sacpo_experiment.validate_experiment(run.align)
    if run.correct.source != "trained":
        return
    if run.align.source != "synthetic":
        raise checks.UserError(
            f"align.source={run.align.source!r} has no scores of its own: train by "
            "experiments.sacpo and give --preset=folder its models."
        )
    for name in run.correct.safe:
        if name not in NAMES and not run.correct.models:
            raise checks.UserError(
                f"correct.safe holds {name!r}, which is not trained here: choose of "
                f"{', '.join(NAMES)}, or give correct.models."
            )
