# SPDX-License-Identifier: Apache-2.0
"""A trained policy put to work: ways to choose a target.

`naive` asks for the greatest return at the threshold. `unsafe_search` evaluates random targets and
takes the best that looked safe. `literal` is the paper's text with its own numbers and kernel,
`pls` the paper's search repaired, with the same kernel as ours, and `pls_calibrated` ours: the
least alpha that keeps the promise on functions drawn from the model, noise from the episodes' own
spread, and, where asked for, bounds for several lengthscales and a `reserve` below the threshold.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.envs.types import Task
from jaxsafe.pls import rollout, search
from jaxsafe.pls.config import SearchConfig, paper_compat
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Policy
from jaxsafe.pls.seed_check import check_seeds
from jaxsafe.pls.truth import over_seeds
from jaxsafe.pls.types import Problem
from jaxsafe.pls.worlds import Targets, World

_SIDE_BY_SIDE = 20  # searches


class Searches(NamedTuple):
    """What Q repeats of a method evaluated, and what they would deploy."""

    points: np.ndarray  # [S, Q, T] places in the grid
    final: np.ndarray  # [S, Q]


def check_seed_set(
    policies: Policy,
    key: jax.Array,
    world: World,
    z: np.ndarray,
    seed: np.ndarray,
    threshold: float,
    config: PolicyConfig,
    targets: Targets,
) -> np.ndarray:
    """Returns the masks `[S, Z]` of the points of `seed` `[Z]` that are shown to be safe.

    By Bernstein's bound on episodes of their own, before any search; costs lie in [0, T].
    """
    places = np.flatnonzero(seed)

    def one(policy: Policy, key: jax.Array) -> jax.Array:
        grid = jnp.asarray(z, jnp.float32)

        def at(place: jax.Array) -> jax.Array:
            own, episodes = jax.random.fold_in(key, place), targets.seed_episodes
            return rollout.returns(policy, own, world.task, grid[place], config, episodes)[1]

        return lax.map(at, jnp.asarray(places))

    costs = over_seeds(one, policies, key)
    masks = np.zeros((len(costs), len(z)), bool)
    for mask, cost in zip(masks, costs, strict=True):
        high = world.task.max_episode_steps
        found = check_seeds(cost, threshold, 0.0, high, targets.seed_delta, "bernstein")
        mask[places] = found.safe
    return masks


def method_config(method: str, config: SearchConfig) -> SearchConfig:
    """The search that a method runs; `pls_calibrated` still wants its `alpha_value`."""
    if method == "literal":
        told = dataclasses.replace(config, alpha="srinivas", expander="none", kernel="rbf")
        return paper_compat(told)
    if method == "pls":
        return dataclasses.replace(
            config,
            alpha="srinivas",
            alpha_value=None,
            noise="fixed",
            lengthscale_factors=(1.0,),
        )
    return config


def _evaluator(
    policy: Policy, recorded: jax.Array | None, task: Task, config: PolicyConfig, episodes: int
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Returns `(key, places [Q], targets [Q, 2]) -> returns [Q, W, 2]`, W episodes each.

    They are run, or drawn from those `recorded` `[Z, E, 2]`.
    """
    if recorded is None:
        return lambda key, point, z: rollout.evaluate(policy, key, task, z, config, episodes)

    def draw(key: jax.Array, point: jax.Array, z: jax.Array) -> jax.Array:
        which = jax.random.randint(key, (len(z), episodes), 0, recorded.shape[1])
        return recorded[point[:, None], which]

    return draw


def run_searches(
    policies: Policy,
    key: jax.Array,
    task: Task,
    seeds: np.ndarray,
    problem: Problem,
    search_config: SearchConfig,
    config: PolicyConfig,
    repeats: int,
    recorded: np.ndarray | None = None,
) -> Searches:
    """Runs `repeats` searches of each policy, side by side; `key` is consumed.

    Args:
      policies: `[S, ...]`.
      key: of all episodes.
      task: the world.
      seeds: `[S, Z]` seed sets, in place of the problem's.
      problem: what every search is told.
      search_config: static.
      config: static, the policies'.
      repeats: Q.
      recorded: `[S, Z, E, 2]` episodes to draw from, in place of running them.
    """

    def one(given: tuple[Policy, jax.Array, jax.Array | None], key: jax.Array, problem: Problem):
        policy, seed, bank = given
        evaluate = _evaluator(policy, bank, task, config, search_config.episodes)

        def repeat(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            told = problem.replace(seed=seed)
            state, trace = search.run_search(key, evaluate, told, search_config)
            return trace.point.reshape(-1), search.recommend(state, search_config)[0]

        # All at once would carry more than caches hold.
        return lax.map(repeat, jax.random.split(key, repeats), batch_size=_SIDE_BY_SIDE)

    return Searches(*over_seeds(one, (policies, jnp.asarray(seeds), recorded), key, problem))


def unsafe_search(
    policies: Policy,
    key: jax.Array,
    task: Task,
    z: jax.Array,
    threshold: float,
    search_config: SearchConfig,
    config: PolicyConfig,
    repeats: int,
    recorded: np.ndarray | None = None,
) -> Searches:
    """Evaluates as many random targets as a search would, and takes the best that looked safe.

    Where none did it takes the one of least cost. `key` is consumed; the rest is `run_searches`'.
    """

    def one(given: tuple[Policy, jax.Array | None], key: jax.Array):
        evaluate = _evaluator(*given, task, config, search_config.episodes)

        def repeat(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            key_points, key = jax.random.split(key)
            count = min(search_config.capacity, z.shape[0])
            points = jax.random.choice(key_points, z.shape[0], (count,), replace=False)
            reward, cost = evaluate(key, points, z[points]).mean(1).T
            looked_safe = cost <= threshold
            score = jnp.where(looked_safe.any(), jnp.where(looked_safe, reward, -jnp.inf), -cost)
            return points, points[jnp.argmax(score)]

        return jax.vmap(repeat)(jax.random.split(key, repeats))

    return Searches(*over_seeds(one, (policies, recorded), key))


def naive(z: np.ndarray, threshold: float, num_seeds: int) -> Searches:
    """Asks for the greatest return at G = b: the target nearest to that, and no evaluation."""
    far = np.abs(z - [z[:, 0].max(), threshold]) / z.max(0)
    point = int(far.sum(1).argmin())
    return Searches(np.full((num_seeds, 1, 1), point), np.full((num_seeds, 1), point))
