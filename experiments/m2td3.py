# SPDX-License-Identifier: Apache-2.0
"""Trains M2TD3 and its baselines in JAX and scores their worst case, in MuJoCo C where it can.

Presets: demo (two cores, minutes), known_answers (games solved in closed form), pendulum (that of
gymnax), half_cheetah (a smoke run), paper (published values, working defaults), paper_compat (the
authors' code to the letter).
"""

from typing import Any

from jaxsafe.core import checks, launch, loop, metrics, tables
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder
from jaxsafe.envs import game_tasks
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet
from jaxsafe.m2td3 import evaluate, known_answers, report, train
from jaxsafe.m2td3 import experiment as experiments
from jaxsafe.m2td3.experiment import Experiment


def stages(experiment: Experiment) -> list[Stage]:
    """One training stage per method, and per game where games are played."""

    def stage(name: str, method: str, task: Task, uncertainty: UncertaintySet) -> Stage:
        config = experiments.method_config(experiment, method)
        result = lambda run: evaluate.policies(run.learner, config)  # noqa: E731
        return train.stage(name, config, task, uncertainty, result)

    if experiment.games:
        worlds = {game: game_tasks.make(getattr(experiment, game)) for game in experiment.games}
        return [
            stage(known_answers.stage_name(g, m), m, *worlds[g])
            for g in worlds
            for m in experiment.methods
        ]
    world = experiments.world(experiment)
    return [stage(method, method, *world) for method in experiment.methods]


def finish(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> list[dict[str, Any]]:
    """Scores every method over the set; writes rows, table and pictures."""
    seeds = range(options.seed, options.seed + options.num_seeds)
    if experiment.games:
        return known_answers.finish(folder, seeds, experiment, results)
    task, uncertainty = experiments.world(experiment)
    how, rows = experiment.eval, []
    for engine in evaluate.engines(task, how):
        scores = {}
        for method, (actors, worlds) in results.items():
            with loop.progress_bar(options, f"scoring {method}") as bar:
                tell = lambda fraction, bar=bar: bar.update(fraction - bar.n)  # noqa: E731
                scores[method] = evaluate.score(
                    engine, actors, worlds, experiment.algo, task, uncertainty, how, tell
                )
            metrics.append(folder.evals, evaluate.rows(method, seeds, uncertainty, scores[method]))
            rows.append(evaluate.summary(method, uncertainty, scores[method], how))
        folder.say(f"\n{report.headline(experiment, engine)}")
        folder.say(tables.text_table(report.table(scores)))
        name = "worst_case.png" if rows[0]["engine"] == engine else f"worst_case_{engine}.png"
        path = report.picture(folder.plots / name, experiment, uncertainty, scores)
        folder.say(f"picture: {path}")
    return rows


def render(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> None:
    """Draws each method's first seed at the worst omega that the last scoring found.

    Raises:
      UserError: the run is of games.
    """
    if experiment.games:
        raise checks.UserError("--mode=render: games have no picture but plots/known_answers.png.")
    task, uncertainty = experiments.world(experiment)
    for method, policies in results.items():
        omega = evaluate.worst_omega(folder.evals, method, options.seed, uncertainty)
        path = report.film(folder.plots, method, experiment, task, uncertainty, policies, omega)
        folder.say(f"{report.NAMES[method]}, seed {options.seed}: {path}")


BINARY = launch.Binary(
    system="m2td3",
    presets=experiments.PRESETS,
    validate=experiments.validate_experiment,
    stages=stages,
    finish=finish,
    render=render,
    free=experiments.RESUMABLE,
    # Tuned on seeds 100 to 131, and 0 to 43 were looked at, so others are shown.
    options=RunOptions(seed=50, num_seeds=4, log_every=250, checkpoint_every=4000),
)

if __name__ == "__main__":
    launch.main(BINARY)
