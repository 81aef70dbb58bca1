# SPDX-License-Identifier: Apache-2.0
"""Learns semantics from images with few annotations, and lets a simulator's policy act on images.

Presets: demo (the reacher arm, two cores, minutes), study (all methods, 200 episodes, up to 50
annotations), paper (published networks, lengths and literal choices, in this world).
"""

from typing import Any

from jaxsafe.core import launch, loop
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.run import Folder
from jaxsafe.image_to_semantics import experiment as experiments
from jaxsafe.image_to_semantics import report, stages
from jaxsafe.image_to_semantics.experiment import Experiment


def finish(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> list[dict[str, Any]]:
    """Scores all predictors; writes rows, tables, pictures and a film."""
    seeds = range(options.seed, options.seed + options.num_seeds)
    with loop.progress_bar(options, "scoring in the target world") as bar:
        tell = lambda fraction: bar.update(fraction - bar.n)  # noqa: E731
        return report.finish(folder, seeds, experiment, dict(results[stages.NAME]), tell)


def render(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> None:
    """Films the first seed's agent in the target world."""
    path = report.film(folder.plots / "transfer.gif", experiment, dict(results[stages.NAME]))
    folder.say(f"film of seed {options.seed}: {path}")


BINARY = launch.Binary(
    system="image_to_semantics",
    presets=experiments.PRESETS,
    validate=experiments.validate_experiment,
    stages=stages.stages,
    finish=finish,
    render=render,
    free=experiments.RESUMABLE,
    options=RunOptions(seed=0, num_seeds=2, log_every=500, checkpoint_every=2000),
)

if __name__ == "__main__":
    launch.main(BINARY)
