# SPDX-License-Identifier: Apache-2.0
"""Searches architectures by AdvantageNAS and its baselines, and scores and retrains what is found.

Presets: demo (NAS-Bench-201's cell on scikit-learn's digits, two cores, minutes), digits (the same
at length, all methods), toy (the paper's teacher and student, all methods), tabular (query search
on a table of accuracies: --table), text (a small recurrent cell: --text.folder), paper or
paper_nb201 (published values: --images.folder), paper_ptb (likewise: --text.folder), paper_compat
(the authors' code to the letter).
"""

from typing import Any

from jaxsafe.advantage_nas import experiment as experiments
from jaxsafe.advantage_nas import report, stages
from jaxsafe.advantage_nas.experiment import Experiment
from jaxsafe.core import launch
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.run import Folder


def finish(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> list[dict[str, Any]]:
    """Scores what every method found; writes rows, table and pictures."""
    return report.finish(folder, options, experiment, results)


def render(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> None:
    """Draws the cell that each method's first seed found."""
    report.render(folder, options, experiment, results)


BINARY = launch.Binary(
    system="advantage_nas",
    presets=experiments.PRESETS,
    validate=experiments.validate_experiment,
    stages=stages.stages,
    finish=finish,
    render=render,
    free=experiments.RESUMABLE,
    # Rates were tuned on seeds 100 to 103.
    options=RunOptions(seed=200, num_seeds=2, log_every=10, checkpoint_every=500),
)

if __name__ == "__main__":
    launch.main(BINARY)
