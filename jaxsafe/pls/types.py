# SPDX-License-Identifier: Apache-2.0
"""What the search's functions pass to each other.

Letters in shapes: Z grid points of D coordinates, C constraints, O = 1 + C outputs (the reward,
then the costs), K lengthscales, B thresholds served by one search, Q points of a step, W episodes
of a point, T steps.
"""

from typing import Any, NamedTuple

import jax
from flax import struct

from jaxsafe.gp.grid import Posterior


class Problem(struct.PyTreeNode):
    """The numbers of a search; any of them may be mapped by `vmap`. Built by `make_problem`."""

    grid: jax.Array  # [Z, D] targets, in their own units
    seed: jax.Array  # [Z] bool, known to be safe
    thresholds: jax.Array  # [B, C] b
    floor: jax.Array  # [C] no cost is lower
    prior_mean: jax.Array  # [O, Z]
    prior_var: jax.Array  # [O]
    lengthscale: jax.Array  # [O, D]
    factors: jax.Array  # [K] of the lengthscale
    episode_var: jax.Array  # [O] noise of one episode's return
    alpha: jax.Array  # [T + 1, O] deviations in the bounds before each step, and at the end


class State(struct.PyTreeNode):
    """Everything a search carries; every number in it is finite."""

    problem: Problem
    posterior: Posterior  # leaves [O, K, ...], one count
    lower: jax.Array  # [C, Z] bounds of the costs, intersected if so configured
    upper: jax.Array  # [C, Z]
    safe: jax.Array  # [B, Z] bool
    explored: jax.Array  # [B] bool, expansion has ended
    alarms: jax.Array  # [] int32, steps after which an interval was empty
    step: jax.Array  # [] int32, steps told
    last: jax.Array  # [B] int32, last point evaluated for each threshold
    key: jax.Array


class Query(NamedTuple):
    """What to evaluate next."""

    point: jax.Array  # [Q] int32, places in the grid
    z: jax.Array  # [Q, D] the targets there
    threshold: jax.Array  # [] int32, for which of the B thresholds
    expanding: jax.Array  # [] bool, whether in stage 1


class Evaluation(NamedTuple):
    """Undiscounted returns of the episodes run at Q points, for an update."""

    point: jax.Array  # [Q] int32, places in the grid
    returns: jax.Array  # [Q, W, O] reward, then costs


class Trace(NamedTuple):
    """One row per step of `run_search`."""

    point: jax.Array  # [T, Q]
    threshold: jax.Array  # [T]
    expanding: jax.Array  # [T] bool
    mean: jax.Array  # [T, Q, O] episodes' mean returns
    metrics: dict[str, jax.Array]  # [T] each
    extra: Any  # what `track` gave, [T, ...]
