# SPDX-License-Identifier: Apache-2.0
"""Counts broken promises over thousands of searches, block by block, as a stage of a run.

Where alpha is to be calibrated, the first blocks halve an interval around it on functions drawn
from what the search is told; the rest count on other functions with the alpha found. One seed is
thus one calibration and the searches that trust it.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.pls import guarantee, simulate
from jaxsafe.pls.calibrate import allowed_failures, with_alpha
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.guarantee import Study
from jaxsafe.pls.problem import srinivas_alpha
from jaxsafe.pls.types import Problem


@dataclasses.dataclass(frozen=True)
class Counting:
    """How many searches."""

    functions: int = field(2500, "Functions of each seed, a multiple of block.", low=1)
    draws: int = field(
        1000, "Functions of a calibration, for each lengthscale factor; a multiple of block.", low=1
    )
    halvings: int = field(8, "Of the interval in which a calibrated alpha lies.", low=1)
    level: float = field(
        0.95, "One-sided confidence that a calibrated alpha keeps delta.", low=0.5, high=0.9999
    )
    block: int = field(50, "Searches side by side.", low=1)


class Tally(struct.PyTreeNode):
    """One seed's counts so far. F functions, K lengthscale factors, T steps of a search."""

    key: jax.Array
    low: jax.Array  # [] the interval of a calibrated alpha
    high: jax.Array  # []
    failed: jax.Array  # [K] int32, searches that failed in the running halving
    drawn: jax.Array  # [K] int32, functions of it that have a safe point
    outcome: simulate.Outcome  # [F, ...]
    valid: jax.Array  # [F] bool, has been run and has a safe point


class _Setting(NamedTuple):
    """What all blocks share."""

    problem: Problem
    roots: jax.Array  # [K + 1, side, side], of the draws of each factor, then of the truth
    allowed: np.ndarray  # [draws + 1] failures that a halving may have among so many functions


def validate(counting: Counting, deltas: tuple[float, ...], prefix: str = "counting.") -> None:
    """Raises `UserError` naming field, value and fix."""
    validate_bounds(counting, prefix.rstrip("."))
    for name in ("functions", "draws"):
        value = getattr(counting, name)
        if value % counting.block:
            raise UserError(
                f"{prefix}{name}={value} is no multiple of {prefix}block={counting.block}: give "
                f"{-(-value // counting.block) * counting.block}."
            )
    for delta in deltas:
        if allowed_failures(counting.draws, delta, counting.level) < 0:
            raise UserError(
                f"{prefix}draws={counting.draws} cannot show a frequency below delta={delta:g}: "
                "raise it."
            )


def num_steps(config: SearchConfig, counting: Counting) -> int:
    """Searches in all, the calibration's among them."""
    return _calibrating_blocks(config, counting) * counting.block + counting.functions


def _blocks_of_halving(config: SearchConfig, counting: Counting) -> int:
    return len(config.lengthscale_factors) * counting.draws // counting.block


def _calibrating_blocks(config: SearchConfig, counting: Counting) -> int:
    if config.alpha != "calibrated":
        return 0
    return counting.halvings * _blocks_of_halving(config, counting)


def init(key: jax.Array, study: Study, config: SearchConfig, counting: Counting) -> Tally:
    """Returns one seed's tally before its first block. `key` is consumed."""
    size, count, steps = study.side**2, counting.functions, config.num_steps
    factors = len(config.lengthscale_factors)
    rows = (count, steps)
    outcome = simulate.Outcome(
        unsafe=jnp.zeros(rows, bool),
        escaped=jnp.zeros(rows, bool),
        regret=jnp.zeros(rows),
        deployed_unsafe=jnp.zeros(rows, bool),
        coverage=jnp.zeros(rows),
        alarms=jnp.zeros(count, jnp.int32),
    )
    return Tally(
        key=key,
        low=jnp.float32(0),
        high=jnp.float32(srinivas_alpha(size, config.delta, steps + 1)),
        failed=jnp.zeros(factors, jnp.int32),
        drawn=jnp.zeros(factors, jnp.int32),
        outcome=outcome,
        valid=jnp.zeros(count, bool),
    )


def _setting(study: Study, config: SearchConfig, counting: Counting) -> _Setting:
    believed = guarantee.told(study)
    scales = [believed.lengthscale * factor for factor in config.lengthscale_factors]
    roots = [
        guarantee.root(dataclasses.replace(study, lengthscale=scale))
        for scale in (*scales, study.lengthscale)
    ]
    allowed = [
        allowed_failures(n, config.delta, counting.level) if config.alpha == "calibrated" else 0
        for n in range(counting.draws + 1)
    ]
    return _Setting(guarantee.make(study, config), jnp.stack(roots), np.array(allowed))


def chunk(
    tally: Tally,
    first: jax.Array,
    length: int,
    study: Study,
    config: SearchConfig,
    counting: Counting,
) -> tuple[Tally, dict[str, jax.Array]]:
    """Runs searches `first` to `first + length - 1`; the first of them calibrate, if so configured.

    Returns:
      the tally, and scalars: `count/functions` counted so far, `count/violations` of the promise
      among them, and `count/alpha`, of the last step where it varies.

    Raises:
      UserError: `length` is no multiple of `counting.block`.
    """
    if length % counting.block:
        raise UserError(
            f"{length} searches at once are no multiple of counting.block={counting.block}: set "
            "--log_every to one."
        )
    setting = _setting(study, config, counting)

    def block(tally: Tally, step: jax.Array) -> tuple[Tally, None]:
        return _block(tally, step, setting, study, config, counting), None

    tally, _ = lax.scan(
        block, tally, first // counting.block + jnp.arange(length // counting.block)
    )
    alpha = tally.high if config.alpha == "calibrated" else setting.problem.alpha[-1, 1]
    return tally, {
        "count/functions": tally.valid.sum(),
        "count/violations": (tally.outcome.unsafe.any(1) & tally.valid).sum(),
        "count/alpha": alpha,
    }


def _block(
    tally: Tally,
    step: jax.Array,
    setting: _Setting,
    study: Study,
    config: SearchConfig,
    counting: Counting,
) -> Tally:
    """One block of searches: of a halving, or counted."""
    calibrating = step < _calibrating_blocks(config, counting)
    per_halving = _blocks_of_halving(config, counting)
    place = jnp.where(calibrating, step % per_halving, step - _calibrating_blocks(config, counting))
    factors = len(config.lengthscale_factors)
    # Every halving has the same functions, and the count has others.
    base = jax.random.fold_in(tally.key, calibrating.astype(jnp.int32))
    middle = (tally.low + tally.high) / 2
    problem = setting.problem
    if config.alpha == "calibrated":
        problem = with_alpha(problem, jnp.where(calibrating, middle, tally.high))

    def one(number: jax.Array):
        key_world, key_noise = jax.random.split(jax.random.fold_in(base, number))
        world = lax.cond(
            calibrating,
            lambda k: guarantee.draw(
                k, guarantee.told(study), problem, setting.roots[place % factors]
            ),
            lambda k: guarantee.draw(k, study, problem, setting.roots[-1]),
            key_world,
        )
        valid = (world.truth[1] <= study.threshold).any()
        return simulate.play(key_noise, world, problem, config), valid

    start = place * counting.block
    outcome, valid = jax.vmap(one)(start + jnp.arange(counting.block))
    fails = (outcome.unsafe.any(1) & valid).sum()
    mine = calibrating & (jnp.arange(factors) == place % factors)
    tally = tally.replace(
        failed=tally.failed + jnp.where(mine, fails, 0),
        drawn=tally.drawn + jnp.where(mine, valid.sum(), 0),
    )
    last = calibrating & (place == per_halving - 1)
    return _noted(_halved(tally, last, setting), calibrating, start, outcome, valid)


def _halved(tally: Tally, last: jax.Array, setting: _Setting) -> Tally:
    """Halves the interval where `last`, by whether the middle kept the promise for each factor."""
    kept = (tally.failed <= jnp.asarray(setting.allowed)[tally.drawn]).all()
    middle = (tally.low + tally.high) / 2
    return tally.replace(
        low=jnp.where(last & ~kept, middle, tally.low),
        high=jnp.where(last & kept, middle, tally.high),
        failed=jnp.where(last, 0, tally.failed),
        drawn=jnp.where(last, 0, tally.drawn),
    )


def _noted(tally: Tally, calibrating, start, outcome: simulate.Outcome, valid) -> Tally:
    """Writes a block's rows from row `start` on, unless it calibrates."""

    def put(rows: jax.Array, new: jax.Array) -> jax.Array:
        old = lax.dynamic_slice_in_dim(rows, start, new.shape[0])
        new = jnp.where(calibrating, old, new.astype(rows.dtype))
        return lax.dynamic_update_slice_in_dim(rows, new, start, 0)

    return tally.replace(
        outcome=jax.tree.map(put, tally.outcome, outcome), valid=put(tally.valid, valid)
    )


def counted(tally: Tally) -> simulate.Outcome:
    """The outcomes of all seeds of a tally `[S, ...]`, one after the other, on the host.

    Raises:
      UserError: no function had a safe point.
    """
    valid = np.asarray(tally.valid).reshape(-1)
    if not valid.any():
        raise UserError(f"none of {valid.size} functions has a safe point: count more.")
    return jax.tree.map(
        lambda x: np.asarray(x).reshape(valid.size, *x.shape[2:])[valid], tally.outcome
    )
