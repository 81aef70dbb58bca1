# SPDX-License-Identifier: Apache-2.0
"""Aligns language models to reward and then to safety (SACPO), merges them, and scores them.

Presets: demo (a small decoder and a synthetic task, minutes on two cores), study (a larger one;
give --num_seeds=5), known_answers (tables solved in closed form), real (preference files:
--files.helpful, --files.safe), paper (the recipe for a 7B folder: --model.folder; with --dry_run
its step is compiled for the devices there are).
"""

import functools
from typing import Any

from jaxsafe.core import checks, launch
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder
from jaxsafe.sacpo import experiment as experiments
from jaxsafe.sacpo import report, sources, stages, study
from jaxsafe.sacpo.experiment import Experiment

open_source = functools.lru_cache(maxsize=1)(sources.open_source)


def make_stages(experiment: Experiment) -> list[Stage]:
    """One training stage per policy; none where tables are solved."""
    if experiment.source == "tables":
        return []
    source = open_source(experiment)
    return stages.stages(experiment, source, sources.model_config(experiment, source))


def finish(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> list[dict[str, Any]]:
    """Merges, answers and scores; or solves tables. Writes rows, tables and pictures."""
    if experiment.source == "tables":
        return study.finish(folder, options, experiment.tables)
    source = open_source(experiment)
    config = sources.model_config(experiment, source)
    return report.finish(folder, options, experiment, list(results), source, config)


def render(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> None:
    """There is nothing to film.

    Raises:
      UserError: always.
    """
    raise checks.UserError("--mode=render: there is no film of text; --mode=eval draws pictures.")


BINARY = launch.Binary(
    system="sacpo",
    presets=experiments.PRESETS,
    validate=experiments.validate_experiment,
    stages=make_stages,
    finish=finish,
    render=render,
    free=experiments.RESUMABLE,
    options=RunOptions(num_seeds=2, log_every=50, checkpoint_every=500),
)

if __name__ == "__main__":
    launch.main(BINARY)
