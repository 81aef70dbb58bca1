# SPDX-License-Identifier: Apache-2.0
"""Policies put to work on DSRL's tasks, in the user's environments; every episode is logged.

Each search has a folder of its own below `checkpoints/searches` of the run: the session's log and
state (`pls.session`), and `done.json` once its target is chosen and scored. A run that is killed
goes on from there, and no episode is run twice but those of the step, or the check of the seeds,
that was cut short. What a folder was made from (the weights, the search, what it was told) is in
its name.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import config as config_lib
from jaxsafe.core import run
from jaxsafe.core.checks import UserError
from jaxsafe.data import dsrl
from jaxsafe.pls import comparison, dsrl_study, operate, outside, seed_check, session, session_log
from jaxsafe.pls.calibrate import with_alpha
from jaxsafe.pls.experiment import Experiment
from jaxsafe.pls.outside import Outside
from jaxsafe.pls.policy_types import Policy
from jaxsafe.pls.types import Problem

_DONE = "done.json"


class Done(NamedTuple):
    """What one policy did on one task for one threshold; reward before cost, raw units."""

    target: np.ndarray  # [2] (R, G) chosen
    final: np.ndarray  # [F, 2] returns of its episodes
    evaluated: np.ndarray  # [T, 2] episodes' means at each target evaluated before; T = 0 for naive
    alpha: float | None  # deviations in the costs' bounds at the end


class Runner:
    """Runs the methods of one task; environments and alpha are made when first needed."""

    def __init__(self, root: pathlib.Path, experiment: Experiment, task: str, policies: Policy):
        self.root, self.experiment, self.task = root, experiment, task
        self.policies = policies  # [S, ...]
        self.search_config = operate.method_config("pls_calibrated", experiment.search)
        self._outside: Outside | None = None
        self._alpha: float | None = None

    def run(
        self,
        method: str,
        threshold: float,
        index: int,
        seed: int,
        tell: Callable[[float], None] = lambda fraction: None,
    ) -> Done | None:
        """Runs a method with policy number `index`, of this seed, or reads what it has done.

        None where a search has no seed that is shown to be safe.
        """
        policy = jax.device_put(jax.tree.map(lambda x: x[index], self.policies))
        config = dsrl_study.policy_config(self.task, self.experiment.policy, self.experiment.dsrl)
        name = f"{self.task}_b{threshold:g}_{method}_{seed}_{self._made_from(policy, method)}"
        folder = self.root / name
        if (folder / _DONE).exists():
            return _read(folder / _DONE)
        # Starts differ between tasks, thresholds, methods and policies.
        place = dsrl.PLS_TASKS.index(self.task), dsrl_study.METHODS.index(method)

        def run_at(threshold: float, z: np.ndarray, count: int, *step: int) -> np.ndarray:
            entropy = (seed, *place, round(1000 * threshold), *step)
            words = np.random.SeedSequence(entropy).generate_state(count)
            seeds = [int(word >> 1) for word in words]  # Gymnasium's are below 2^31 in places
            return outside.returns(policy, config, self._open(), z, seeds)

        evaluate = functools.partial(run_at, threshold)
        alpha, evaluated = None, np.zeros((0, 2))
        if method == "naive":
            target = np.array([dsrl.reference(self.task).reward_max, threshold])
        else:
            problem = self._problem(threshold)
            # What seeds cost depends on no threshold and, like the naive rule, on no search.
            seeds = self.root / f"{self.task}_seeds_{seed}_{self._made_from(policy, 'seeds')}"
            mask = self._safe_seeds(seeds, problem, functools.partial(run_at, 0.0))
            if not mask.any():
                return None
            problem = problem.replace(seed=jnp.asarray(mask))
            target, evaluated, alpha = self._search(folder, problem, seed, evaluate, tell)
        final = evaluate(target, self.experiment.dsrl.final_episodes, 0)
        done = Done(target, final, evaluated, alpha)
        folder.mkdir(parents=True, exist_ok=True)
        run.write_json(folder / _DONE, {k: _plain(v) for k, v in done._asdict().items()})
        return done

    def close(self) -> None:
        """Closes the environments."""
        if self._outside is not None:
            outside.close_all(self._outside)

    def _safe_seeds(self, folder: pathlib.Path, problem: Problem, evaluate) -> np.ndarray:
        """The mask `[Z]` of the seeds that episodes of their own show to be safe."""
        targets = self.experiment.targets
        path = folder / "seeds.csv"
        if path.exists():
            costs = session_log.read_seeds(path, problem)
        else:
            z = np.asarray(problem.grid, np.float64)[np.asarray(problem.seed)]
            found = [evaluate(one, targets.seed_episodes, q) for q, one in enumerate(z)]
            costs = np.stack(found)[..., 1:]
            folder.mkdir(parents=True, exist_ok=True)
            session_log.write_seeds(path, problem, costs)
        # At most 1 a step in all of DSRL's tasks.
        high = dsrl.reference(self.task).episode_length
        if costs.max() > high:
            raise UserError(
                f"an episode of {self.task} cost {costs.max():g} in {high} steps: give an "
                "environment whose costs are at most 1 a step, as DSRL's, or divide them."
            )
        return seed_check.safe_seeds(problem, costs, 0.0, high, targets.seed_delta)

    def _search(self, folder: pathlib.Path, problem: Problem, seed: int, evaluate, tell):
        """Searches, or goes on; the target chosen, the means of what was evaluated, and alpha."""
        config = self.search_config
        state = session.resume(folder, jax.random.key(seed), problem, config)
        while not session.finished(state, config):
            tell(int(state.step) / config.num_steps)
            query, state = session.ask(state, config)
            found = [
                evaluate(z, config.episodes, 1 + int(state.step), q)
                for q, z in enumerate(np.asarray(query.z, np.float64))
            ]
            state, _ = session.record(folder, state, query.point, np.stack(found), config)
        chosen = int(session.recommend(state, config)[0])
        target = np.asarray(state.problem.grid, np.float64)[chosen]
        return target, session.evaluated(folder), float(problem.alpha[-1, 1])

    def _problem(self, threshold: float) -> Problem:
        problem = dsrl_study.problem(self.task, self.experiment.dsrl, self.search_config, threshold)
        if np.isnan(problem.alpha).any():
            # But for a shift the problem is the same at every threshold.
            self._alpha = self._alpha or comparison.calibrated(self.experiment, problem)
            problem = with_alpha(problem, self._alpha)
        return problem

    def _open(self) -> Outside:
        if self._outside is None:
            study = self.experiment.dsrl
            opened = dsrl_study.open_task(self.task, self.policies.sizes, study, study.num_envs)
            assert opened is not None  # `runnable` has made one
            self._outside = opened
        return self._outside

    def _made_from(self, policy: Policy, method: str) -> str:
        """A hash of everything that decides what a method does, but for task and threshold."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(policy):
            digest.update(np.asarray(leaf).tobytes())
        study = self.experiment.dsrl
        # What names no number of one search. The greatest threshold sizes the grid.
        own = dataclasses.replace(
            study, tasks=(), folder=None, methods=(), thresholds=(max(study.thresholds),)
        )
        told = [config_lib.config_hash(own)]
        if method == "pls":
            experiment = self.experiment
            told.append(config_lib.config_hash(experiment.search))
            told.append(f"{experiment.operation.draws} {experiment.data.seed}")
            told.append(f"{experiment.targets.seed_delta}")
        if method in ("pls", "seeds"):
            told.append(f"{self.experiment.targets.seed_episodes}")
        digest.update(" ".join(told).encode())
        return digest.hexdigest()[:12]


def _plain(value: np.ndarray | float | None) -> list | float | None:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _read(path: pathlib.Path) -> Done:
    told = json.loads(path.read_text(encoding="utf-8"))
    arrays = {name: np.array(told[name], np.float64) for name in ("target", "final")}
    return Done(
        evaluated=np.array(told["evaluated"], np.float64).reshape(-1, 2),
        alpha=told["alpha"],
        **arrays,
    )


def run_all(
    root: pathlib.Path,
    experiment: Experiment,
    results: dict[str, Policy],
    seeds: Sequence[int],
    tell: Callable[[float], None],
) -> dict[tuple[str, float, str], list[Done | None]]:
    """Runs every method at every threshold with every policy of `results`, by task.

    Returns:
      what was done, one entry per seed, by task, threshold and method; None where no seed was shown
      to be safe.
    """
    study = experiment.dsrl
    cells = len(results) * len(study.thresholds) * len(study.methods) * len(seeds)
    done: dict[tuple[str, float, str], list[Done | None]] = {}
    finished = 0
    for task, policies in results.items():
        runner = Runner(root, experiment, task, policies)
        for threshold in study.thresholds:
            for method in study.methods:
                own = done.setdefault((task, threshold, method), [])
                for index, seed in enumerate(seeds):
                    part = lambda x, before=finished: tell((before + x) / cells)  # noqa: E731
                    own.append(runner.run(method, threshold, index, seed, part))
                    finished += 1
                    tell(finished / cells)
        runner.close()
    return done
