# SPDX-License-Identifier: Apache-2.0
"""What the binary trains or counts, stage by stage."""

from jaxsafe.core.program import Stage
from jaxsafe.pls import algorithm, counting, dsrl_study, promises, worlds
from jaxsafe.pls import experiment as experiments
from jaxsafe.pls.experiment import Experiment
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Windows
from jaxsafe.pls.promises import Case


def stages(experiment: Experiment) -> list[Stage]:
    """One training stage per world or per task of DSRL's, or one per row of the promise's table.

    Raises:
      UserError: a file of data or an environment is absent or unsound.
    """
    if experiment.promises:
        rows = experiments.cases(experiment).items()
        return [_counted(name, case, experiment) for name, case in rows]
    policy, study = experiment.policy, experiment.dsrl
    if study.tasks:
        data = dsrl_study.runnable(study, policy)
        return [
            _training(name, windows, dsrl_study.policy_config(name, policy, study))
            for name, windows in data.items()
        ]
    return [
        _training(name, worlds.make(name, experiment.data, policy).windows, policy)
        for name in experiment.worlds
    ]


def _training(name: str, windows: Windows, config: PolicyConfig) -> Stage:
    return Stage(
        name=name,
        init=lambda key: algorithm.init(key, config, windows.sizes),
        chunk=lambda state, first, n: algorithm.chunk(state, windows, first, n, config),
        num_steps=config.steps,
        parameters=lambda state: state.params,
        result=algorithm.policy,
        unit="windows",
        units_per_step=config.batch_size,
    )


def _counted(name: str, case: Case, experiment: Experiment) -> Stage:
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
