# SPDX-License-Identifier: Apache-2.0
"""Trains offline policies and searches their targets safely (PLS), or counts the search's promise.

Presets: demo (three worlds, two cores, minutes), study (the same with 100 searches each), paper (a
decision transformer of published size and the paper's search), guarantee (10,000 drawn functions
for each row of a table), dsrl (the paper's nine tasks, for those who hold DSRL's HDF5 files and
have the environments: --dsrl.folder and --dsrl.environment).
"""

from typing import Any

import jax

from jaxsafe.core import checks, launch, loop
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.run import Folder
from jaxsafe.pls import dsrl_report, promises, report, stages
from jaxsafe.pls import experiment as experiments
from jaxsafe.pls.experiment import Experiment


def finish(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> list[dict[str, Any]]:
    """Puts policies to work, or tells what was counted; writes rows, tables and pictures."""
    seeds = range(options.seed, options.seed + options.num_seeds)
    if experiment.promises:
        return promises.finish(folder, seeds, experiments.cases(experiment), results)
    if experiment.dsrl.tasks:
        with loop.progress_bar(options, "searching in DSRL's tasks") as bar:
            tell = lambda fraction: bar.update(fraction - bar.n)  # noqa: E731
            return dsrl_report.finish(folder, seeds, experiment, results, tell)
    rows = []
    for number, name in enumerate(experiment.worlds):
        key = jax.random.fold_in(jax.random.key(options.seed), number)
        with loop.progress_bar(options, f"searching in {name}") as bar:
            tell = lambda fraction, bar=bar: bar.update(fraction - bar.n)  # noqa: E731
            rows += report.finish(folder, seeds, experiment, name, results[name], key, tell)
    return rows


def render(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> None:
    """Films how the safe set grows in a search with each world's first policy.

    Raises:
      UserError: the run has no worlds: it counts promises, or is of DSRL's tasks.
    """
    if experiment.promises:
        raise checks.UserError("--mode=render: counts have no picture but those of --mode=eval.")
    if experiment.dsrl.tasks:
        raise checks.UserError("--mode=render: DSRL's tasks have tables only: use --mode=eval.")
    for number, name in enumerate(experiment.worlds):
        key = jax.random.fold_in(jax.random.key(options.seed), number)
        report.film_search(folder, experiment, name, results[name], key)


BINARY = launch.Binary(
    system="pls",
    presets=experiments.PRESETS,
    validate=experiments.validate_experiment,
    stages=stages.stages,
    finish=finish,
    render=render,
    free=experiments.RESUMABLE,
    # Models and methods were tuned on policies of seeds 100 to 107.
    options=RunOptions(seed=200, num_seeds=2, log_every=500, checkpoint_every=2000),
)

if __name__ == "__main__":
    launch.main(BINARY)
