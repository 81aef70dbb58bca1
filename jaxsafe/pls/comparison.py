# SPDX-License-Identifier: Apache-2.0
"""Ways to choose a target, held against the truth of every target.

`results` of `summary.json` is then one flat row per world, threshold and method, over S policies
and Q searches of each:

  world, threshold, method
  searches           S Q; of `naive` S, as it searches nothing
  evaluations        targets evaluated by a search, each by `episodes` episodes
  violations, frequency, low, high
                     searches that evaluated or would deploy an unsafe target, their share and its
                     exact 95% interval; unsafe: its true cost is above the threshold
  unsafe_evaluations mean number of such evaluations in a search
  deployed_unsafe    share of searches that would deploy one
  share, share_min   true return of what would be deployed, by that of the best safe target: median
                     and least; above 1 only where it is unsafe
  return, cost       true means of what would be deployed
  alpha              deviations in the costs' bounds at the end; none where there are no bounds
  share_per_seed, violations_per_seed
                     medians and counts, in the order of the seeds

"True" is the mean of at least `oracle_episodes` episodes, or of those `recorded` where searches
draw theirs from them; `cost_error` is the greatest standard error of a cost within `oracle_band` of
the threshold, where it decides.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import stats
from jaxsafe.core.checks import UserError
from jaxsafe.pls import operate, rollout, search, worlds
from jaxsafe.pls.calibrate import calibrate, with_alpha
from jaxsafe.pls.experiment import Experiment
from jaxsafe.pls.operate import Searches
from jaxsafe.pls.operation import METHODS
from jaxsafe.pls.policy_types import Policy
from jaxsafe.pls.truth import Oracle, true_returns
from jaxsafe.pls.types import Problem
from jaxsafe.pls.worlds import World


class Operated(NamedTuple):
    """What was done in one world for one threshold by one method."""

    threshold: float
    method: str
    searches: Searches
    alpha: float | None


class Judged(NamedTuple):
    """The truth of the searches of one `Operated`, `[S, Q]` each but `costs`."""

    costs: np.ndarray  # [S, Q, T] true costs of what was evaluated
    unsafe: np.ndarray  # number of evaluations that were unsafe
    deployed_unsafe: np.ndarray  # bool
    share: np.ndarray
    reward: np.ndarray
    cost: np.ndarray


def truth(
    experiment: Experiment, world: World, policies: Policy, z: np.ndarray, key: jax.Array
) -> Oracle:
    """What policies `[S, ...]` really do at every target `z` `[Z, 2]`; `key` is consumed."""
    targets = jnp.asarray(z, jnp.float32)
    return true_returns(policies, key, world.task, targets, experiment.policy, experiment.operation)


def operate_all(
    experiment: Experiment,
    world: World,
    policies: Policy,
    z: np.ndarray,
    recorded: np.ndarray | None,
    key: jax.Array,
) -> Iterator[Operated]:
    """Yields every method at every threshold; `key` is consumed.

    Searches draw from the episodes `recorded` `[S, Z, E, 2]`, or run their own where none are.

    Raises:
      UserError: as `seeds_of`, or alpha cannot be calibrated.
    """
    operation = experiment.operation
    alphas: dict[tuple[float, float], float] = {}
    for i, threshold in enumerate(operation.thresholds):
        key_seeds, *keys = jax.random.split(jax.random.fold_in(key, i), 1 + len(METHODS))
        seeds = seeds_of(experiment, world, policies, z, threshold, key_seeds)
        for method in operation.methods:
            own = keys[METHODS.index(method)]
            told = operate.method_config(method, experiment.search)
            common = (told, experiment.policy, operation.repeats, recorded)
            if method == "naive":
                yield Operated(threshold, method, operate.naive(z, threshold, len(seeds)), None)
            elif method == "unsafe_search":
                targets = jnp.asarray(z, jnp.float32)
                found = operate.unsafe_search(
                    policies, own, world.task, targets, threshold, *common
                )
                yield Operated(threshold, method, found, None)
            else:
                problem = problem_of(experiment, world, z, threshold, method)
                if np.isnan(problem.alpha).any():
                    # But for a shift and the cost's lengthscale the problem is the same at each.
                    same = world.prior.cost_lengthscale_at(threshold)
                    if same not in alphas:
                        alphas[same] = calibrated(experiment, problem)
                    problem = with_alpha(problem, alphas[same])
                found = operate.run_searches(policies, own, world.task, seeds, problem, *common)
                yield Operated(threshold, method, found, float(problem.alpha[-1, 1]))


def seeds_of(
    experiment: Experiment,
    world: World,
    policies: Policy,
    z: np.ndarray,
    threshold: float,
    key: jax.Array,
) -> np.ndarray:
    """Returns the seed sets `[S, Z]` once checked by episodes; `key` is consumed.

    Raises:
      UserError: of some policy no target is shown to be safe.
    """
    targets = experiment.targets
    seed = worlds.seed_set(z, targets)
    masks = operate.check_seed_set(
        policies, key, world, z, seed, threshold, experiment.policy, targets
    )
    if not masks.any(1).all():
        raise UserError(
            f"no target of the seed set is shown to be safe at threshold {threshold:g} in "
            f"{world.task.name}: lower targets.seed_high or raise targets.seed_episodes."
        )
    return masks


def problem_of(
    experiment: Experiment, world: World, z: np.ndarray, threshold: float, method: str
) -> Problem:
    """What a method's searches are told; alpha is `nan` where it is still to be calibrated."""
    told = operate.method_config(method, experiment.search)
    if method == "pls_calibrated":
        threshold = threshold - experiment.operation.reserve
    make = worlds.literal_problem if method == "literal" else partial(worlds.problem, world)
    return make(told, z, worlds.seed_set(z, experiment.targets), threshold)


def calibrated(experiment: Experiment, problem: Problem) -> float:
    """The least alpha that keeps the promise on functions drawn from `problem`'s model."""
    key, draws = jax.random.key(experiment.data.seed), experiment.operation.draws
    config = operate.method_config("pls_calibrated", experiment.search)
    return calibrate(key, problem, config, num_draws=draws).alpha


def watch(
    experiment: Experiment,
    world: World,
    policy: Policy,
    z: np.ndarray,
    threshold: float,
    key: jax.Array,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs one calibrated search of one policy `[1, ...]`; `key` is consumed.

    Returns:
      what it calls safe after each step, `[T, Z]` bool, and the places it evaluated, `[T]`.
    """
    key_seeds, key = jax.random.split(key)
    seeds = seeds_of(experiment, world, policy, z, threshold, key_seeds)
    problem = problem_of(experiment, world, z, threshold, "pls_calibrated")
    problem = with_alpha(problem, calibrated(experiment, problem))
    config = operate.method_config("pls_calibrated", experiment.search)
    one = jax.tree.map(lambda x: x[0], policy)

    @jax.jit
    def run(key: jax.Array):
        def evaluate(key: jax.Array, point: jax.Array, z: jax.Array) -> jax.Array:
            return rollout.evaluate(one, key, world.task, z, experiment.policy, config.episodes)

        told = problem.replace(seed=jnp.asarray(seeds[0]))
        trace = search.run_search(key, evaluate, told, config, lambda state: state.safe[0])[1]
        return trace.extra, trace.point[:, 0]

    return jax.device_get(run(key))


def judge(operated: Operated, oracle: Oracle) -> Judged:
    """Holds searches against the truth."""
    reward, cost = np.moveaxis(oracle.mean, -1, 0)
    best = np.where(cost <= operated.threshold, reward, -np.inf).max(1)
    points, final = operated.searches
    rows = np.arange(len(cost))[:, None]
    costs = cost[rows[..., None], points]
    return Judged(
        costs=costs,
        unsafe=(costs > operated.threshold).sum(-1),
        deployed_unsafe=cost[rows, final] > operated.threshold,
        share=reward[rows, final] / best[:, None],
        reward=reward[rows, final],
        cost=cost[rows, final],
    )


def row(
    name: str, operated: Operated, judged: Judged, oracle: Oracle, experiment: Experiment
) -> dict[str, Any]:
    """One row of `summary.json`; the module's docstring has its schema."""
    broken = (judged.unsafe > 0) | judged.deployed_unsafe
    low, high = stats.clopper_pearson(int(broken.sum()), broken.size)
    operation, cost = experiment.operation, oracle.mean[..., 1]
    error = oracle.sd[..., 1] / np.sqrt(oracle.episodes)
    near = np.abs(cost - operated.threshold) <= operation.oracle_band
    return {
        "world": name,
        "threshold": operated.threshold,
        "method": operated.method,
        "searches": broken.size,
        "evaluations": judged.costs.shape[-1],
        "violations": int(broken.sum()),
        "frequency": float(broken.mean()),
        "low": low,
        "high": high,
        "unsafe_evaluations": float(judged.unsafe.mean()),
        "deployed_unsafe": float(judged.deployed_unsafe.mean()),
        "share": float(np.median(judged.share)),
        "share_min": float(judged.share.min()),
        "return": float(judged.reward.mean()),
        "cost": float(judged.cost.mean()),
        "alpha": operated.alpha,
        "share_per_seed": np.median(judged.share, 1).tolist(),
        "violations_per_seed": broken.sum(1).tolist(),
        "oracle_episodes": operation.recorded or operation.oracle_episodes,
        "recorded": operation.recorded,
        "cost_error": float(error[near].max() if near.any() else error.max()),
    }


def rows(
    name: str, operated: Operated, judged: Judged, z: np.ndarray, seeds: range
) -> list[dict[str, Any]]:
    """Flat rows for `eval.jsonl`, one per search."""
    out = []
    for i, seed in enumerate(seeds):
        for q in range(judged.share.shape[1]):
            point = operated.searches.final[i, q]
            out.append(
                {
                    "world": name,
                    "threshold": operated.threshold,
                    "method": operated.method,
                    "seed": seed,
                    "repeat": q,
                    "target_return": float(z[point, 0]),
                    "target_cost": float(z[point, 1]),
                    "return": float(judged.reward[i, q]),
                    "cost": float(judged.cost[i, q]),
                    "unsafe_evaluations": int(judged.unsafe[i, q]),
                }
            )
    return out
