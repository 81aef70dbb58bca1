# SPDX-License-Identifier: Apache-2.0
"""Learns semantics from images with few annotations, and lets a simulator's policy act on images.

Presets: demo (the reacher arm, two cores, minutes), study (up to 50 annotations, at a gap level),
methods (all of them), half_cheetah (trains its policy first), paper (published networks, lengths
and literal choices, in this world).
"""

from typing import Any

import jax
import numpy as np

from experiments import source_policy
from jaxsafe.core import launch, loop
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder
from jaxsafe.image_to_semantics import controllers, report, worlds
from jaxsafe.image_to_semantics import experiment as experiments
from jaxsafe.image_to_semantics import stages as stages_lib
from jaxsafe.image_to_semantics.experiment import Experiment


def stages(experiment: Experiment) -> list[Stage]:
    """The policy's stage, where one is to be trained, and that of the translators.

    Raises:
      UserError: a file of data or of a policy is absent or unsound.
    """
    if experiment.source.policy == "file":  # refused now, and not after hours
        _from_file(experiment)
    own = stages_lib.stages(experiment)
    return [source_policy.stage(experiment), *own] if experiment.source.policy == "trained" else own


def _from_file(experiment: Experiment) -> controllers.Controller:
    return controllers.load(experiment.source.file, worlds.make(experiment.data.world))


def _results(experiment: Experiment, results: launch.Results) -> dict[str, Any]:
    """The translators' result, with the policies of all seeds."""
    mine = dict(results[stages_lib.NAME])
    if experiment.source.policy == "trained":
        mine["controller"] = results[source_policy.NAME]
    if experiment.source.policy == "file":
        copies = len(mine["horizon"])
        one = _from_file(experiment)
        mine["controller"] = jax.tree.map(lambda x: np.stack([x] * copies), one)
    return mine


def finish(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> list[dict[str, Any]]:
    """Scores all predictors; writes rows, tables, pictures, a film and the trained policy."""
    seeds = range(options.seed, options.seed + options.num_seeds)
    mine = _results(experiment, results)
    if experiment.source.policy == "trained":
        first = jax.tree.map(lambda x: x[0], mine["controller"])
        path = controllers.save(folder.path / "policy.hdf5", first)
        folder.say(f"policy of seed {options.seed}: {path}")
    with loop.progress_bar(options, "scoring in the target world") as bar:

        def tell(fraction: float) -> None:
            bar.update(fraction - bar.n)

        return report.finish(folder, seeds, experiment, mine, tell)


def render(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> None:
    """Films the first seed's agent in the target world."""
    mine = _results(experiment, results)
    path = report.film(folder.plots / "transfer.gif", experiment, mine)
    folder.say(f"film of seed {options.seed}: {path}")


BINARY = launch.Binary(
    system="image_to_semantics",
    presets=experiments.PRESETS,
    validate=experiments.validate_experiment,
    stages=stages,
    finish=finish,
    render=render,
    free=experiments.RESUMABLE,
    options=RunOptions(seed=0, num_seeds=2, log_every=500, checkpoint_every=2000, in_turn=True),
)

if __name__ == "__main__":
    launch.main(BINARY)
