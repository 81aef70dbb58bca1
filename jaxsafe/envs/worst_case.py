# SPDX-License-Identifier: Apache-2.0
"""How bad can it get? Worst case, average and CVaR of a policy over an uncertainty set.

A grid sees only its own points, so what it calls the worst case flatters. After the grid, both
functions here try random points, then points around the worst found so far, and tell the gap. All
points get the same episode starts, so differences are theirs and not the draw's.

- `worst_case` runs in the task's own engine, one pure program to `jit` and to `vmap` over policies.
- `worst_case_host` runs in MuJoCo C, policies side by side.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError, check_range
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.envs import host, rollout
from jaxsafe.envs.types import Task
from jaxsafe.envs.uncertainty import UncertaintySet

Array = Any  # NumPy's or JAX's
_LEAST_SHARE = 1e-3


@dataclasses.dataclass(frozen=True)
class Search:
    """Where to look beyond the grid, and which share of the grid CVaR averages."""

    random: int = field(100, "Points off the grid, uniform in the set.", low=0)
    rounds: int = field(3, "Rounds of local search around the worst point found.", low=0)
    proposals: int = field(16, "Points tried in a round.", low=1)
    radius: float = field(
        0.2, "Their deviation in the first round, in half ranges; it halves each round.", low=0.0
    )
    alpha: float = field(
        0.1, "CVaR is the mean of this worst share of the grid.", low=_LEAST_SHARE, high=1.0
    )


class WorstCase(NamedTuple):
    """Returns over a set of D parameters, of one policy or, with leading axes S, of many.

    Each value is the mean undiscounted return of a point's episodes; NaN where the policy gave a
    NaN action, and such a point counts as the worst.

    Attributes:
      values: `[*S, N]`, of the points of `uncertainty.grid(n)`.
      worst: `[*S]` least value on the grid.
      average: `[*S]` mean over the grid.
      cvar: `[*S]` mean of the worst `Search.alpha` of the grid.
      worst_omega: `[*S, D]` the grid point of `worst`, in physical units.
      refined: `[*S]` least value found at all.
      refined_omega: `[*S, D]` where that is.
      gap: `[*S]` `worst - refined`, how much the grid missed; at least 0.
    """

    values: Array
    worst: Array
    average: Array
    cvar: Array
    worst_omega: Array
    refined: Array
    refined_omega: Array
    gap: Array


def cvar(values: Array, alpha: float, xp: Any = jnp) -> Array:
    """Mean of the worst share `alpha` of equally likely values (Rockafellar and Uryasev, 2000).

    Where `alpha N` is no whole number, the last value counts in part.

    Args:
      values: `[..., N]`.
      alpha: in [0.001, 1]; 1 is the mean, and up to 1 / N the least value.
      xp: `numpy` or `jax.numpy`.

    Returns:
      `[...]`; NaN where any value is.

    Raises:
      UserError: `alpha` is out of range.
    """
    check_range("alpha", alpha, low=_LEAST_SHARE, high=1)
    share = alpha * values.shape[-1]
    weights = np.clip(share - np.arange(values.shape[-1]), 0, 1) / share
    ordered = xp.sort(values, axis=-1)  # NaNs come last, where they would weigh nothing
    mean = (ordered[..., : math.ceil(share)] * weights[: math.ceil(share)]).sum(-1)
    return xp.where(xp.isnan(values).any(-1), xp.nan, mean)


def summarise(
    grid: Array, values: Array, refined: Array, refined_omega: Array, alpha: float, xp: Any = jnp
) -> WorstCase:
    """Reduces values `[*S, N]` at the points `grid` `[N, D]`, beside the worst point found."""
    worst = values.min(-1)
    return WorstCase(
        values=values,
        worst=worst,
        average=values.mean(-1),
        cvar=cvar(values, alpha, xp),
        worst_omega=xp.asarray(grid)[values.argmin(-1)],
        refined=refined,
        refined_omega=refined_omega,
        gap=worst - refined,
    )


def worst_case(
    key: jax.Array,
    policy: Callable[[jax.Array], jax.Array],
    task: Task,
    uncertainty: UncertaintySet,
    grid: int = 10,
    episodes: int = 30,
    search: Search | None = None,
    length: int | None = None,
    batch: int = 256,
) -> WorstCase:
    """Scores one policy over the whole set in the task's own engine; pure and jittable.

    All physics stands in one loop over blocks of points, so it is compiled once. For many
    policies: `jax.vmap(lambda p: worst_case(key, partial(act, p), ...))(params)`.

    Args:
      key: consumed; of the starts, which all points share, and of the search.
      policy: `obs [O] -> action [A]`.
      task: the world.
      uncertainty: the set.
      grid: points per parameter, both ends included.
      episodes: E, starts a point.
      search: how to look off the grid; `Search()` by default.
      length: control steps of an episode, the task's own by default.
      batch: episodes that run side by side, to which memory is in proportion; `vmap` multiplies
        it. Some 256 are fastest on a CPU; a GPU holds many more. A round of the search tries as
        many points as its blocks hold, so `batch // episodes` above `search.proposals` adds some.

    Raises:
      UserError: a count is below 1, `search` is out of range, or the grid is too large.
    """
    search = _checked(search, grid, episodes)
    check_range("batch", batch, low=1)
    key_starts, key_random, key_rounds = jax.random.split(key, 3)
    points = uncertainty.grid(grid)
    known = jnp.concatenate([points, uncertainty.sample(key_random, (search.random,))])
    starts = jax.random.split(key_starts, episodes)

    def value(omega: jax.Array) -> jax.Array:
        model = uncertainty.apply(task.model, omega)

        def one(start: jax.Array) -> jax.Array:
            state = task.reset(model, jax.random.clone(start))
            return rollout.episode_return(task, policy, model, state, length)[0]

        return jax.vmap(one)(starts).mean()

    def block(best: tuple, x: tuple) -> tuple[tuple, jax.Array]:
        fixed, is_local, noise = x
        near = uncertainty.denormalise(uncertainty.normalise(best[1]) + noise)
        omegas = jnp.where(is_local, uncertainty.project(near), fixed)
        values = jax.vmap(value)(omegas)
        return _worse(best, values, omegas, jnp), values

    size = min(max(1, batch // episodes), max(len(known), search.proposals))
    xs = _blocks(key_rounds, known, size, search)
    first = (jnp.float32(jnp.inf), known[0])
    (refined, refined_omega), values = jax.lax.scan(block, first, xs)
    on_grid = values.reshape(-1)[: len(points)]
    return summarise(points, on_grid, refined, refined_omega, search.alpha)


def _blocks(key: jax.Array, known: jax.Array, size: int, search: Search) -> tuple:
    """What `worst_case` scans: points `[K, size, D]`, whether they are local, and noise."""
    num_known, per_round = -(-len(known) // size), -(-search.proposals // size)
    count = num_known + per_round * search.rounds
    # The last block is filled up from the beginning; local blocks make their own points.
    fixed = known[np.arange(count * size) % len(known)].reshape(count, size, -1)
    after = np.arange(count) - num_known
    radius = search.radius * 0.5 ** np.maximum(after // per_round, 0)
    noise = radius[:, None, None].astype(np.float32) * jax.random.normal(key, fixed.shape)
    return fixed, jnp.asarray(after >= 0), noise


def _worse(best: tuple, values: Array, omegas: Array, xp: Any) -> tuple:
    """The worst of the best-known `(value [], omega [D])` and `values` `[n]` at `omegas`."""
    values = xp.concatenate([xp.asarray(best[0])[None], values])
    i = values.argmin()  # a NaN is least of all, so it stays
    return values[i], xp.concatenate([xp.asarray(best[1])[None], omegas])[i]


def worst_case_host(
    policy: Callable[[np.ndarray], np.ndarray],
    task: Task,
    uncertainty: UncertaintySet,
    grid: int = 10,
    episodes: int = 30,
    seed: int = 0,
    search: Search | None = None,
    num_policies: int = 1,
    num_threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> WorstCase:
    """Scores P policies over the whole set in MuJoCo C, in 64 bits.

    Args:
      policy: `obs [P, rows, O] float32 -> actions [P, rows, A]`, as `host.score` calls it; there
        are two numbers of rows, so a jitted policy compiles twice.
      task: the world.
      uncertainty: the set.
      grid: points per parameter, both ends included.
      episodes: starts a point.
      seed: of the starts, which all points share, and of the search.
      search: how to look off the grid; `Search()` by default.
      num_policies: P.
      num_threads: the CPUs this process may use, by default; does not change the scores.
      progress: called with the fraction done.

    Returns:
      Float64 arrays with a leading axis P.

    Raises:
      UserError: as `worst_case`, or the task has no MuJoCo model.
    """
    search = _checked(search, grid, episodes)
    if task.host is None:
        raise UserError(
            f"{task.name} has no MuJoCo model: score it by worst_case, in its own engine."
        )
    rng = np.random.default_rng([seed, 1])  # the starts are drawn from `seed` alone
    low, high = np.asarray(uncertainty.low), np.asarray(uncertainty.high)
    points = np.asarray(uncertainty.grid(grid), np.float64)
    known = np.concatenate([points, rng.uniform(low, high, (search.random, len(low)))])
    work = len(known) + search.rounds * search.proposals
    done = 0

    def score(omegas: np.ndarray) -> np.ndarray:
        nonlocal done
        count = omegas.shape[-2]
        how = (episodes, seed, num_policies, num_threads, _of_part(progress, done, count, work))
        scores = host.score(task, policy, uncertainty, omegas, *how)
        done += count
        return scores.returns.mean(-1)

    values = score(known)
    worst = values.argmin(1)
    best = list(zip(values.min(1), known[worst], strict=True))
    for i in range(search.rounds):
        near = _around(rng, np.stack([omega for _, omega in best]), uncertainty, search, i)
        found = zip(best, score(near), near, strict=True)
        best = [_worse(b, v, omegas, np) for b, v, omegas in found]
    refined, refined_omega = (np.stack(x) for x in zip(*best, strict=True))
    return summarise(points, values[:, : len(points)], refined, refined_omega, search.alpha, np)


def _of_part(progress: Callable[[float], None] | None, before: int, count: int, work: int):
    """`progress` of a part of the work: `count` after `before`."""
    return progress and (lambda part: progress((before + part * count) / work))


def _around(rng, omegas: np.ndarray, uncertainty: UncertaintySet, search: Search, number: int):
    """Proposals `[P, n, D]` of one round around omegas `[P, D]`, closer in every round."""
    low, high = np.asarray(uncertainty.low), np.asarray(uncertainty.high)
    noise = rng.normal(size=(len(omegas), search.proposals, len(low)))
    scale = search.radius * 0.5**number * (high - low) / 2
    return np.clip(omegas[:, None] + scale * noise, low, high)


def _checked(search: Search | None, grid: int, episodes: int) -> Search:
    check_range("grid", grid, low=1)
    check_range("episodes", episodes, low=1)
    search = Search() if search is None else search
    validate_bounds(search, "search")
    return search
