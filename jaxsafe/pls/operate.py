# SPDX-License-Identifier: Apache-2.0
"""A trained policy put to work: every target's true value, and ways to choose one.

`naive` asks for the greatest return at the threshold. `unsafe_search` evaluates random targets and
takes the best that looked safe. `literal` is the paper's text with its own numbers, `pls` the
paper's search repaired, and `pls_calibrated` ours: the least alpha that keeps the promise on
functions drawn from the model, bounds for several lengthscales, noise from the episodes' own
spread, and a threshold lowered by `reserve`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.core import parallel
from jaxsafe.core.config import field
from jaxsafe.envs.types import Task
from jaxsafe.pls import rollout, search
from jaxsafe.pls.config import SearchConfig, paper_compat
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Policy
from jaxsafe.pls.seed_check import check_seeds
from jaxsafe.pls.types import Problem
from jaxsafe.pls.worlds import Targets, World

_SIDE_BY_SIDE = 20  # searches
METHODS = ("naive", "unsafe_search", "literal", "pls", "pls_calibrated")


@dataclasses.dataclass(frozen=True)
class Operation:
    """How policies are put to work, and how the truth is found."""

    thresholds: tuple[float, ...] = field(
        (5.0, 10.0, 20.0), "Cost returns b that no operated policy may exceed.", low=0.0
    )
    methods: tuple[str, ...] = field(METHODS, "Ways to choose a target.", choices=METHODS)
    reserve: float = field(
        0.25,
        "Cost by which calibrated searches stay below b: the truth is no draw of the model, but is "
        "taken to be within this of one.",
        low=0.0,
    )
    repeats: int = field(4, "Searches of each policy and threshold.", low=1)
    oracle_episodes: int = field(200, "Episodes at each target, for the truth.", low=2)
    oracle_more: int = field(
        2000, "Further episodes at each target whose mean cost is near a threshold.", low=0
    )
    oracle_band: float = field(
        1.5, "How near, units of cost: where noise could tell safe from unsafe wrongly.", low=0.0
    )
    draws: int = field(300, "Functions by which alpha is calibrated.", low=1)
    batch: int = field(10, "Targets whose episodes run side by side; a GPU holds more.", low=1)


class Oracle(NamedTuple):
    """What policies really do at every target; S seeds, Z targets, reward before cost."""

    mean: np.ndarray  # [S, Z, 2] expected returns, as the mean of E episodes
    sd: np.ndarray  # [S, Z, 2] of one episode's return
    episodes: np.ndarray  # [S, Z] E


class Searches(NamedTuple):
    """What Q repeats of a method evaluated, and what they would deploy."""

    points: np.ndarray  # [S, Q, T] places in the grid
    final: np.ndarray  # [S, Q]


def oracle(
    policies: Policy,
    key: jax.Array,
    task: Task,
    z: jax.Array,
    config: PolicyConfig,
    operation: Operation,
) -> Oracle:
    """Runs episodes at each target `z` `[Z, 2]` with policies `[S, ...]`; `key` is consumed.

    Where a mean is near a threshold more are run: a search that stays below b would otherwise be
    called unsafe by the truth's own noise.
    """
    keys = jax.random.split(key)

    def run(places: np.ndarray, key: jax.Array, episodes: int) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances `[S, M, 2]` of targets `[S, M]`."""

        def one(given: tuple[Policy, jax.Array], key: jax.Array) -> tuple[jax.Array, jax.Array]:
            policy, mine = given

            def at(place: jax.Array) -> tuple[jax.Array, jax.Array]:
                own = jax.random.fold_in(key, place)
                both = jnp.stack(rollout.returns(policy, own, task, z[place], config, episodes))
                return both.mean(1), both.var(1, ddof=1)

            side_by_side = operation.batch * operation.oracle_episodes // episodes
            return lax.map(at, mine, batch_size=max(side_by_side, 1))

        return _over_seeds(one, (policies, jnp.asarray(places)), key)

    seeds = jax.tree.leaves(policies)[0].shape[0]
    everywhere = np.broadcast_to(np.arange(len(z)), (seeds, len(z)))
    mean, var = run(everywhere, keys[0], operation.oracle_episodes)
    first = Oracle(mean, np.sqrt(var), np.full(mean.shape[:2], operation.oracle_episodes))
    near = np.abs(mean[:, :, 1, None] - operation.thresholds).min(-1) <= operation.oracle_band
    if not (operation.oracle_more and near.any()):
        return first
    # The nearest first, so that as many of every policy are run; what is over is counted too.
    places = np.argsort(~near, axis=1, kind="stable")[:, : near.sum(1).max()]
    return _merged(first, places, *run(places, keys[1], max(operation.oracle_more, 2)), operation)


def _merged(
    first: Oracle, places: np.ndarray, mean: np.ndarray, var: np.ndarray, operation: Operation
) -> Oracle:
    """Takes further episodes' means and variances `[S, M, 2]` at places `[S, M]` in."""
    merged = Oracle(*(np.array(x) for x in first))
    few, more = operation.oracle_episodes, max(operation.oracle_more, 2)
    rows = np.arange(len(places))[:, None]
    old_mean, old_var = first.mean[rows, places], first.sd[rows, places] ** 2
    both = (few * old_mean + more * mean) / (few + more)
    squares = (few - 1) * old_var + (more - 1) * var
    squares += few * (old_mean - both) ** 2 + more * (mean - both) ** 2
    merged.mean[rows, places] = both
    merged.sd[rows, places] = np.sqrt(squares / (few + more - 1))
    merged.episodes[rows, places] = few + more
    return merged


def _over_seeds(function: Callable, tree: Any, *shared: Any) -> Any:
    """Calls `(part, *shared)` for the parts of a tree `[S, ...]`, by process 0 alone."""
    mesh = parallel.own_mesh(jax.tree.leaves(tree)[0].shape[0])
    program = jax.jit(parallel.map_seeds(function, mesh, num_shared=len(shared)))
    return jax.device_get(program(tree, *shared))


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

    costs = _over_seeds(one, policies, key)
    masks = np.zeros((len(costs), len(z)), bool)
    for mask, cost in zip(masks, costs, strict=True):
        high = world.task.max_episode_steps
        found = check_seeds(cost, threshold, 0.0, high, targets.seed_delta, "bernstein")
        mask[places] = found.safe
    return masks


def method_config(method: str, config: SearchConfig) -> SearchConfig:
    """The search that a method runs; `pls_calibrated` still wants its `alpha_value`."""
    if method == "literal":
        return paper_compat(dataclasses.replace(config, alpha="srinivas", expander="none"))
    if method == "pls":
        return dataclasses.replace(
            config,
            alpha="srinivas",
            alpha_value=None,
            noise="fixed",
            lengthscale_factors=(1.0,),
        )
    return config


def run_searches(
    policies: Policy,
    key: jax.Array,
    task: Task,
    seeds: np.ndarray,
    problem: Problem,
    search_config: SearchConfig,
    config: PolicyConfig,
    repeats: int,
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
    """

    def one(given: tuple[Policy, jax.Array], key: jax.Array, problem: Problem):
        policy, seed = given

        def evaluate(key: jax.Array, point: jax.Array, z: jax.Array) -> jax.Array:
            return rollout.evaluate(policy, key, task, z, config, search_config.episodes)

        def repeat(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            told = problem.replace(seed=seed)
            state, trace = search.run_search(key, evaluate, told, search_config)
            return trace.point.reshape(-1), search.recommend(state, search_config)[0]

        # All at once would carry more than caches hold.
        return lax.map(repeat, jax.random.split(key, repeats), batch_size=_SIDE_BY_SIDE)

    return Searches(*_over_seeds(one, (policies, jnp.asarray(seeds)), key, problem))


def unsafe_search(
    policies: Policy,
    key: jax.Array,
    task: Task,
    z: jax.Array,
    threshold: float,
    search_config: SearchConfig,
    config: PolicyConfig,
    repeats: int,
) -> Searches:
    """Evaluates as many random targets as a search would, and takes the best that looked safe.

    Where none did it takes the one of least cost. `key` is consumed.
    """

    def one(policy: Policy, key: jax.Array):
        def repeat(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            key_points, key = jax.random.split(key)
            count = min(search_config.capacity, z.shape[0])
            points = jax.random.choice(key_points, z.shape[0], (count,), replace=False)
            returns = rollout.evaluate(policy, key, task, z[points], config, search_config.episodes)
            reward, cost = returns.mean(1).T
            looked_safe = cost <= threshold
            score = jnp.where(looked_safe.any(), jnp.where(looked_safe, reward, -jnp.inf), -cost)
            return points, points[jnp.argmax(score)]

        return jax.vmap(repeat)(jax.random.split(key, repeats))

    return Searches(*_over_seeds(one, policies, key))


def naive(z: np.ndarray, threshold: float, num_seeds: int) -> Searches:
    """Asks for the greatest return at G = b: the target nearest to that, and no evaluation."""
    far = np.abs(z - [z[:, 0].max(), threshold]) / z.max(0)
    point = int(far.sum(1).argmin())
    return Searches(np.full((num_seeds, 1, 1), point), np.full((num_seeds, 1), point))
