# SPDX-License-Identifier: Apache-2.0
"""Estimates a safe model's context-free refusal bias (TSDI) and shows what taking it off buys.

Presets: demo (trains a small model that refuses too much, two cores, minutes; or starts from an
earlier run: --correct.models=runs/sacpo-demo/models), study (five ways to train for safety; give
--num_seeds=5), planted (known answers), folder (your own two models and prompts:
--correct.folders.safe, --correct.folders.reference, --correct.folders.prompts), paper (the same in
probability space, which reviewers of the paper describe).
"""

import functools
from typing import Any

from experiments import over_refusal, tsdi_presets
from experiments.tsdi_presets import Run
from jaxsafe.core import checks, launch
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder
from jaxsafe.tsdi import experiment as experiments
from jaxsafe.tsdi import planted_study, report, sources, stages
from jaxsafe.tsdi.sources import Source


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
    presets=tsdi_presets.PRESETS,
    validate=tsdi_presets.validate,
    stages=make_stages,
    finish=finish,
    render=render,
    free=(*(f"correct.{path}" for path in experiments.RESUMABLE), "variants.prompts"),
    options=RunOptions(num_seeds=2, log_every=50, checkpoint_every=500),
)

if __name__ == "__main__":
    launch.main(BINARY)
