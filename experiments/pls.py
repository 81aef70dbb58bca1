# SPDX-License-Identifier: Apache-2.0
"""Safe search over the targets of offline policies (PLS), and the count of its promise.

Presets: guarantee (10,000 drawn functions a row).
"""

from typing import Any

from jaxsafe.core import checks, launch
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder
from jaxsafe.pls import counting, promises
from jaxsafe.pls import experiment as experiments
from jaxsafe.pls.experiment import Experiment
from jaxsafe.pls.promises import Case


def stages(experiment: Experiment) -> list[Stage]:
    """One counting stage per row of the promise's table."""

    def stage(name: str, case: Case) -> Stage:
        how = (promises.study_of(case, experiment.side), case.config, experiment.counting)
        return Stage(
            name=name,
            init=lambda key: counting.init(key, *how),
            chunk=lambda tally, first, n: counting.chunk(tally, first, n, *how),
            num_steps=counting.num_steps(case.config, experiment.counting),
            parameters=lambda tally: (),
            result=lambda tally: tally,
            unit="searches",
            units_per_step=experiment.counting.block,
        )

    return [stage(name, case) for name, case in experiments.cases(experiment).items()]


def finish(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> list[dict[str, Any]]:
    """Tells what was counted; writes rows, table and pictures."""
    folder.evals.unlink(missing_ok=True)
    seeds = range(options.seed, options.seed + options.num_seeds)
    return promises.finish(folder, seeds, experiments.cases(experiment), results)


def render(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> None:
    """There is nothing to draw but what scoring draws."""
    raise checks.UserError("--mode=render: counts have no picture but those of --mode=eval.")


BINARY = launch.Binary(
    system="pls",
    presets=experiments.PRESETS,
    validate=experiments.validate_experiment,
    stages=stages,
    finish=finish,
    render=render,
    options=RunOptions(
        preset="guarantee", seed=200, num_seeds=4, log_every=10, checkpoint_every=50
    ),
)

if __name__ == "__main__":
    launch.main(BINARY)
