# SPDX-License-Identifier: Apache-2.0
"""Estimates a safe model's context-free refusal bias (TSDI) and shows what taking it off buys.

Presets: demo (trains a small model that refuses too much, two cores, minutes; or starts from an
earlier run: --correct.models=runs/sacpo-demo/models), study (five ways to train for safety; give
--num_seeds=5), planted (known answers), folder (your own two models and prompts:
--correct.folders.safe, --correct.folders.reference, --correct.folders.prompts), paper (the same in
probability space, which reviewers of the paper describe).
"""

import dataclasses
import functools
from typing import Any

from experiments import over_refusal
from jaxsafe.core import checks, launch
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder
from jaxsafe.sacpo import experiment as sacpo_experiment
from jaxsafe.sacpo.config import Stage as Training
from jaxsafe.sacpo.experiment import Experiment as Alignment
from jaxsafe.sacpo.variants import NAMES, Variants
from jaxsafe.tsdi import experiment as experiments
from jaxsafe.tsdi import planted_study, report, sources, stages
from jaxsafe.tsdi.config import Config
from jaxsafe.tsdi.experiment import Decoding, Experiment
from jaxsafe.tsdi.sources import Source

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


@functools.lru_cache(maxsize=1)
def open_source(run: Run) -> Source:
    """Whatever is corrected, with its prompts."""
    if run.correct.source == "folder":
        return sources.of_folders(run.correct)
    return over_refusal.source(run.align, run.correct.models, run.variants.prompts)


def make_stages(run: Run) -> list[Stage]:
    """Alignment where models are to be trained, and one estimate per safe model."""
    how = run.correct
    if how.source == "planted":
        return []
    first: list[Stage] = []
    if how.source == "trained":
        first = over_refusal.stages(run.align, run.variants, how.safe, how.models)
    return first + stages.stages(how, open_source(run))


def finish(
    folder: Folder, options: RunOptions, run: Run, results: launch.Results
) -> list[dict[str, Any]]:
    """Answers, scores and compares, or measures what was planted; rows, tables and pictures."""
    if run.correct.source == "planted":
        return planted_study.finish(folder, options, run.correct)
    return report.finish(folder, options, run.correct, open_source(run), results)


def render(folder: Folder, options: RunOptions, run: Run, results: launch.Results) -> None:
    """There is nothing to film.

    Raises:
      UserError: always.
    """
    raise checks.UserError("--mode=render: there is no film of text; --mode=eval draws pictures.")


BINARY = launch.Binary(
    system="tsdi",
    presets=PRESETS,
    validate=validate,
    stages=make_stages,
    finish=finish,
    render=render,
    free=(*(f"correct.{path}" for path in experiments.RESUMABLE), "variants.prompts"),
    options=RunOptions(num_seeds=2, log_every=50, checkpoint_every=500),
)

if __name__ == "__main__":
    launch.main(BINARY)
