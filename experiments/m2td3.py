# SPDX-License-Identifier: Apache-2.0
"""Trains M2TD3 and its baselines in MJX and scores their worst case in MuJoCo C.

Presets: demo (two cores, minutes), paper (published values, working defaults), paper_compat (the
authors' code to the letter).
"""

from typing import Any

from jaxsafe.core import launch, loop, metrics, tables
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder
from jaxsafe.envs import uncertainty as sets
from jaxsafe.m2td3 import config as configs
from jaxsafe.m2td3 import evaluate, report, train
from jaxsafe.m2td3.config import Experiment


def stages(experiment: Experiment) -> list[Stage]:
    """One training stage per method."""
    task, uncertainty = sets.scenario(experiment.scenario, experiment.version)

    def stage(method: str) -> Stage:
        config = configs.method_config(experiment, method)
        return Stage(
            name=method,
            init=lambda key: train.init(key, config, task, uncertainty),
            chunk=lambda run, first, n: train.chunk(run, first, n, config, task, uncertainty),
            num_steps=config.total_steps,
            parameters=lambda run: (run.learner.actor, run.learner.critic),
            result=lambda run: evaluate.policies(run.learner, config),
            units_per_step=config.num_envs,
        )

    return [stage(method) for method in experiment.methods]


def finish(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> list[dict[str, Any]]:
    """Scores every method over the grid in MuJoCo C; writes rows and the heat map."""
    task, uncertainty = sets.scenario(experiment.scenario, experiment.version)
    how, rows, scores = experiment.eval, [], {}
    omegas = uncertainty.grid(how.grid)
    folder.evals.unlink(missing_ok=True)
    for method, (actors, worlds) in results.items():
        with loop.progress_bar(options, f"scoring {method}") as bar:
            scores[method] = evaluate.score_host(
                actors,
                worlds,
                experiment.algo,
                task,
                uncertainty,
                omegas,
                how,
                progress=lambda fraction, bar=bar: bar.update(fraction - bar.n),
            )
        seeds = range(options.seed, options.seed + options.num_seeds)
        metrics.append(folder.evals, evaluate.rows(method, seeds, uncertainty, scores[method]))
        rows.append(evaluate.summary(method, uncertainty, scores[method]))
    folder.say(
        f"\n{experiment.scenario}: return in MuJoCo C over {how.grid} points per parameter, both "
        f"ends included, {how.episodes} episodes a point"
    )
    folder.say(tables.text_table(report.table(scores)))
    path = report.picture(folder.plots / "worst_case.png", experiment, uncertainty, scores)
    folder.say(f"picture: {path}")
    return rows


def render(
    folder: Folder, options: RunOptions, experiment: Experiment, results: launch.Results
) -> None:
    """Draws each method's first seed at its worst omega, as found by the last scoring."""
    task, uncertainty = sets.scenario(experiment.scenario, experiment.version)
    for method, policies in results.items():
        scores = evaluate.Scores.load(folder.evals, method, options.seed, uncertainty)
        path = report.film(
            folder.plots, method, experiment, task, uncertainty, policies, scores.worst_omega[0]
        )
        folder.say(f"{report.NAMES[method]}, seed {options.seed}: {path}")


BINARY = launch.Binary(
    system="m2td3",
    presets=configs.PRESETS,
    validate=configs.validate_experiment,
    stages=stages,
    finish=finish,
    render=render,
    free=configs.RESUMABLE,
    # Tuned on seeds 100 to 131, and 0 to 43 were looked at, so others are shown.
    options=RunOptions(seed=50, num_seeds=4, log_every=250, checkpoint_every=4000),
)

if __name__ == "__main__":
    launch.main(BINARY)
