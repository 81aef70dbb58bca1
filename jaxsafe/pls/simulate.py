# SPDX-License-Identifier: Apache-2.0
"""Searches on known functions: truths drawn from a model, and what a search did to them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe import gp
from jaxsafe.pls import search
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.types import Problem, State

_JITTER = 1e-9  # of the variance; in 64 bits enough for smooth kernels on fine grids


class World(NamedTuple):
    """A known reward and known costs, with the points a search may trust."""

    truth: jax.Array  # [O, Z]
    seed: jax.Array  # [Z] bool
    noise_sd: jax.Array  # [O, Z] of one episode's return


class Outcome(NamedTuple):
    """What one search did, per step."""

    unsafe: jax.Array  # [T] bool, whether a point of that step was unsafe
    escaped: jax.Array  # [T] bool, whether a cost was above its upper bound anywhere
    regret: jax.Array  # [T] of what would be deployed, against the best safe point of all
    deployed_unsafe: jax.Array  # [T] bool, whether that would be unsafe
    coverage: jax.Array  # [T] share of the truly safe points that are called safe
    alarms: jax.Array  # [] steps with an empty interval


def square_root(name: str, grid: Any, lengthscale: Any) -> np.ndarray:
    """Returns L `[Z, Z]` with L L^T the kernel of unit variance on the grid, in 64 bits."""
    grid, lengthscale = np.asarray(grid, np.float64), np.asarray(lengthscale, np.float64)
    # Numbers even where a program that is being traced asks for them.
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        kernel = gp.make(name, jnp.asarray(lengthscale), 1.0)
        gram = np.array(kernel(jnp.asarray(grid), jnp.asarray(grid)))
    gram[np.diag_indices(len(grid))] += _JITTER
    return np.linalg.cholesky(gram)


def random_safe_point(key: jax.Array, safe: jax.Array) -> jax.Array:
    """Returns a mask `[Z]` of one safe point, drawn uniformly; point 0 where none is safe."""
    index = jax.random.categorical(key, jnp.where(safe, 0.0, -jnp.inf))
    return jnp.arange(safe.shape[0]) == index


def play(key: jax.Array, world: World, problem: Problem, config: SearchConfig) -> Outcome:
    """Runs one search against a world's functions; `key` is consumed.

    Noise is normal; `config.episodes` episodes are run at each point.

    Args:
      key: of the episodes.
      world: what is true; its seed set replaces the problem's.
      problem: the model, with one threshold `[1, C]`.
      config: static.
    """
    problem = problem.replace(seed=world.seed)
    cost = world.truth[1:]
    safe = (cost <= problem.thresholds[0][:, None]).all(0)
    best = jnp.where(safe, world.truth[0], -jnp.inf).max()

    def evaluate(key, point, z):
        shape = (point.shape[0], config.episodes, cost.shape[0] + 1)
        noise = jax.random.normal(key, shape) * world.noise_sd[:, point].T[:, None]
        return world.truth[:, point].T[:, None] + noise

    def track(state: State) -> tuple:
        point = search.recommend(state, config)[0]
        called = state.safe[0]
        return (
            (cost > state.upper).any(),
            best - world.truth[0, point],
            ~safe[point],
            (called & safe).sum() / jnp.maximum(safe.sum(), 1),
        )

    state, trace = search.run_search(key, evaluate, problem, config, track)
    unsafe = ~safe[trace.point].all(1)
    escaped, regret, deployed_unsafe, coverage = trace.extra
    return Outcome(unsafe, escaped, regret, deployed_unsafe, coverage, alarms=state.alarms)
