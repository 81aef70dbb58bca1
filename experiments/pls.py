# SPDX-License-Identifier: Apache-2.0
"""Trains offline policies and searches their targets safely (PLS), or counts the search's promise.

Presets: demo (three worlds, two cores, minutes), study (the same with 100 searches each), paper (a
decision transformer of published size and the paper's search), guarantee (10,000 drawn functions
for each row of a table).
"""

from typing import Any

import jax

from jaxsafe.core import checks, launch, loop
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder
from jaxsafe.pls import algorithm, counting, promises, report, worlds
from jaxsafe.pls import experiment as experiments
from jaxsafe.pls.experiment import Experiment
from jaxsafe.pls.promises import Case


def stages(experiment: Experiment) -> list[Stage]:
    """One training stage per world, or one counting stage per row of the promise's table."""

    def training(name: str) -> Stage:
        world = worlds.make(name, experiment.data, experiment.policy)
        return Stage(
            name=name,
            init=lambda key: algorithm.init(key, experiment.policy, world.windows.sizes),
            chunk=lambda state, first, n: algorithm.chunk(
                state, world.windows, first, n, experiment.policy
            ),
            num_steps=experiment.policy.steps,
            parameters=lambda state: state.params,
            result=algorithm.policy,
            unit="windows",
            units_per_step=experiment.policy.batch_size,
        )

    def counted(name: str, case: Case) -> Stage:
        how = (promises.study_of(case, experiment.side), case.config, experiment.counting)
        return Stage(
            name=name,
            init=lambda key: counting.init(key, *how),
            chunk=lambda tally, first, n: counting.chunk(tally, first, n, *how),
            num_steps=counting.num_steps(case.config, experiment.counting),
            parameters=lambda tally: (),
            result=lambda tally: tally,
            unit="searches",
        )

    if experiment.promises:
        return [counted(name, case) for name, case in experiments.cases(experiment).items()]
    return [training(name) for name in experiment.worlds]


def finish(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> list[dict[str, Any]]:
    """Puts policies to work, or tells what was counted; writes rows, tables and pictures."""
    folder.evals.unlink(missing_ok=True)
    seeds = range(options.seed, options.seed + options.num_seeds)
    if experiment.promises:
        return promises.finish(folder, seeds, experiments.cases(experiment), results)
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
    """Films how the safe set grows in a search with each world's first policy."""
    if experiment.promises:
        raise checks.UserError("--mode=render: counts have no picture but those of --mode=eval.")
    for number, name in enumerate(experiment.worlds):
        key = jax.random.fold_in(jax.random.key(options.seed), number)
        report.film_search(folder, experiment, name, results[name], key)


BINARY = launch.Binary(
    system="pls",
    presets=experiments.PRESETS,
    validate=experiments.validate_experiment,
    stages=stages,
    finish=finish,
    render=render,
    free=experiments.RESUMABLE,
    # Models and methods were tuned on policies of seeds 100 to 103.
    options=RunOptions(seed=200, num_seeds=2, log_every=500, checkpoint_every=2000),
)

if __name__ == "__main__":
    launch.main(BINARY)
