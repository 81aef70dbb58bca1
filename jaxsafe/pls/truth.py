# SPDX-License-Identifier: Apache-2.0
"""What trained policies really do at every target, found by many episodes or by recorded ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.core import parallel
from jaxsafe.envs.types import Task
from jaxsafe.pls import rollout
from jaxsafe.pls.operation import Operation
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Policy


class Oracle(NamedTuple):
    """What policies really do at every target; S seeds, Z targets, reward before cost."""

    mean: np.ndarray  # [S, Z, 2] expected returns, as the mean of E episodes
    sd: np.ndarray  # [S, Z, 2] of one episode's return
    episodes: np.ndarray  # [S, Z] E
    returns: np.ndarray | None = None  # [S, Z, E, 2] where they are recorded


def true_returns(
    policies: Policy,
    key: jax.Array,
    task: Task,
    z: jax.Array,
    config: PolicyConfig,
    operation: Operation,
) -> Oracle:
    """Runs episodes at each target `z` `[Z, 2]` with policies `[S, ...]`; `key` is consumed.

    Where a mean is near a threshold more are run: a search that stays below b would otherwise be
    called unsafe by the truth's own noise. Recorded episodes are a truth of their own, without it.
    """
    if operation.recorded:
        return _record(policies, key, task, z, config, operation)
    keys = jax.random.split(key)

    def run(places: np.ndarray, key: jax.Array, episodes: int) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances `[S, M, 2]` of targets `[S, M]`."""

        def one(given: tuple[Policy, jax.Array], key: jax.Array) -> tuple[jax.Array, jax.Array]:
            policy, mine = given

            def at(place: jax.Array) -> tuple[jax.Array, jax.Array]:
                own = jax.random.fold_in(key, place)
                both = jnp.stack(rollout.returns(policy, own, task, z[place], config, episodes))
                return both.mean(1), both.var(1, ddof=1)

            return lax.map(at, mine, batch_size=_side_by_side(operation, episodes))

        return over_seeds(one, (policies, jnp.asarray(places)), key)

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


def _record(
    policies: Policy,
    key: jax.Array,
    task: Task,
    z: jax.Array,
    config: PolicyConfig,
    operation: Operation,
) -> Oracle:
    """The truth of a world whose episodes at a target are those that are recorded here.

    Every target has the same starts, so that this truth is as smooth as what it stands for.
    """
    count = operation.recorded

    def one(policy: Policy, key: jax.Array) -> jax.Array:
        def at(target: jax.Array) -> jax.Array:
            same = jax.random.clone(key)
            return jnp.stack(rollout.returns(policy, same, task, target, config, count), axis=-1)

        return lax.map(at, z, batch_size=_side_by_side(operation, count))

    returns = over_seeds(one, policies, key)
    mean, sd = returns.mean(2, dtype=np.float64), returns.std(2, ddof=1, dtype=np.float64)
    return Oracle(mean, sd, np.full(mean.shape[:2], count), returns)


def _side_by_side(operation: Operation, episodes: int) -> int:
    """Targets at once, where each has so many episodes: as many episodes as `batch` asks for."""
    return max(operation.batch * operation.oracle_episodes // episodes, 1)


def _merged(
    first: Oracle, places: np.ndarray, mean: np.ndarray, var: np.ndarray, operation: Operation
) -> Oracle:
    """Takes further episodes' means and variances `[S, M, 2]` at places `[S, M]` in."""
    merged = Oracle(*(np.array(x) for x in first[:3]))
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


def over_seeds(function: Callable, tree: Any, *shared: Any) -> Any:
    """Calls `(part, *shared)` for the parts of a tree `[S, ...]`, by process 0 alone."""
    mesh = parallel.own_mesh(jax.tree.leaves(tree)[0].shape[0])
    program = jax.jit(parallel.map_seeds(function, mesh, num_shared=len(shared)))
    return jax.device_get(program(tree, *shared))
