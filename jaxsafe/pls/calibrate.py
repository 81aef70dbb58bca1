# SPDX-License-Identifier: Apache-2.0
"""The least alpha that keeps the promise, found on functions drawn from the model itself.

Srinivas' alpha pays for every grid point and step as if they were independent. Here a constant
alpha is chosen instead so that, over whole searches on drawn functions, the promise fails at most
delta of the time, by the upper end of an exact binomial interval. What is promised then holds for
functions like the draws; report it on draws made from other keys (`guarantee`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax import lax
from jax.sharding import PartitionSpec

from jaxsafe.core import parallel
from jaxsafe.core.checks import UserError, check_choice, check_range
from jaxsafe.core.stats import clopper_pearson
from jaxsafe.pls import simulate
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.problem import srinivas_alpha
from jaxsafe.pls.types import Problem

CRITERIA = ("evaluations", "bounds")
_MOST_BLOCKS = 100


class Calibration(NamedTuple):
    """The alpha found, for `SearchConfig.alpha_value`, and what it rests on."""

    alpha: float
    failures: int  # of the lengthscale that fails most
    num_draws: int
    upper: float  # upper confidence limit of the frequency, at most delta


def with_alpha(problem: Problem, alpha: jax.Array | float) -> Problem:
    """Returns the problem with one alpha for all steps and outputs."""
    return problem.replace(alpha=jnp.full_like(problem.alpha, alpha))


def calibrate(
    key: jax.Array,
    problem: Problem,
    config: SearchConfig,
    *,
    num_draws: int = 1000,
    criterion: str = "evaluations",
    random_seed: bool = False,
    level: float = 0.95,
    num_halvings: int = 8,
    batch_size: int | None = None,
) -> Calibration:
    """Returns the least constant alpha whose searches keep the promise; `key` is consumed.

    Args:
      key: of the functions and the noise; the same for every alpha tried.
      problem: the model, with one threshold; its alpha is not used.
      config: the search, with its delta; static.
      num_draws: functions for each lengthscale factor.
      criterion: what fails; `evaluations`: an unsafe point was evaluated; `bounds`: a cost was
        above its upper bound anywhere on the grid at any step, which is stricter.
      random_seed: each function's seed set is one of its safe points, at random; otherwise the
        problem's, and only functions that are safe there are drawn.
      level: one-sided confidence of the frequency's upper limit.
      num_halvings: of the interval that alpha lies in.
      batch_size: searches side by side on each of this process's devices; by default one on a CPU,
        whose caches hold no more, and 50 elsewhere.

    Raises:
      UserError: too few draws for delta, none is safe on the seed set, or Srinivas' alpha itself
        fails on them.
    """
    check_choice("criterion", criterion, CRITERIA)
    check_range("num_draws", num_draws, low=1)
    allowed = allowed_failures(num_draws, config.delta, level)
    if allowed < 0:
        needed = draws_needed(config.delta, level)
        raise UserError(
            f"num_draws={num_draws} cannot show a frequency below delta={config.delta:g}: give at "
            f"least {needed}."
        )
    if batch_size is None:
        batch_size = 1 if jax.default_backend() == "cpu" else 50
    check_range("batch_size", batch_size, low=1)
    groups, words = _groups(key, problem, config, num_draws, random_seed)
    failures = _counter(groups, words, problem, config, criterion, allowed, batch_size)
    size = problem.grid.shape[0]
    most = float(srinivas_alpha(size, config.delta, config.num_steps + 1))
    alpha, count = _least(failures, most, allowed, num_halvings)
    if count > allowed:
        raise UserError(
            f"{count} of {num_draws} searches fail even at alpha={alpha:.3g}: raise num_draws or "
            "delta, or give an alpha_value."
        )
    return Calibration(alpha, count, num_draws, _upper(count, num_draws, level))


def _least(
    failures: Callable[[float], int], high: float, allowed: int, num_halvings: int
) -> tuple[float, int]:
    """Returns the least alpha found with no more failures than allowed, else `high`; its count."""
    low, count = 0.0, None
    for _ in range(num_halvings):
        middle = (low + high) / 2
        fails = failures(middle)
        if fails <= allowed:
            high, count = middle, fails
        else:
            low = middle
    return high, failures(high) if count is None else count


def _groups(
    key: jax.Array, problem: Problem, config: SearchConfig, num_draws: int, random_seed: bool
) -> tuple[list[simulate.World], jax.Array]:
    """Returns functions for each lengthscale factor, and keys `[N]` of their noise, as words.

    `key` is consumed.
    """
    key_truth, key_noise = jax.random.split(key)
    groups = [
        _draw(k, problem, config, factor, num_draws, random_seed)
        for k, factor in zip(
            jax.random.split(key_truth, len(config.lengthscale_factors)),
            config.lengthscale_factors,
            strict=True,
        )
    ]
    return groups, jax.random.key_data(jax.random.split(key_noise, num_draws))


def _counter(
    groups: list[simulate.World],
    words: jax.Array,
    problem: Problem,
    config: SearchConfig,
    criterion: str,
    allowed: int,
    batch_size: int,
) -> Callable[[float], int]:
    """Returns the failures of an alpha, of the lengthscale that fails most.

    Above `allowed` they are not all counted: such an alpha is too small in any case.
    """

    def one(item: tuple[simulate.World, jax.Array], problem: Problem) -> jax.Array:
        key = jax.random.wrap_key_data(item[1])
        outcome = simulate.play(key, item[0], problem, config)
        return (outcome.unsafe if criterion == "evaluations" else outcome.escaped).any()

    mesh = parallel.own_mesh(words.shape[0])
    axis = parallel.SEED_AXIS

    def part(items: tuple[simulate.World, jax.Array], problem: Problem) -> jax.Array:
        """Failures `[]` of all devices' searches, each device's block by block."""
        size = items[1].shape[0]
        several = jax.vmap(one, in_axes=(0, None))

        def block(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            first, failures = carry
            places = first + jnp.arange(batch_size)
            if batch_size == 1:  # a batch of one is slower than no batch
                failed = one(jax.tree.map(lambda x: x[first], items), problem)
            else:
                failed = several(jax.tree.map(lambda x: x[places], items), problem)
            new = (failed & (places < size)).sum(dtype=jnp.int32)
            return first + batch_size, failures + lax.psum(new, axis)

        def going(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
            return (carry[0] < size) & (carry[1] <= allowed)

        return lax.while_loop(going, block, (jnp.int32(0), jnp.int32(0)))[1]

    specs = PartitionSpec(axis), PartitionSpec()
    program = jax.jit(
        jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=specs[1], check_vma=False)
    )

    def failures(alpha: float) -> int:
        told = with_alpha(problem, alpha)
        return max(int(program((worlds, words), told)) for worlds in groups)

    return failures


def allowed_failures(num: int, delta: float, level: float) -> int:
    """Returns the most failures in `num` whose one-sided upper limit is at most delta; -1: none."""
    counts = np.arange(num)
    # The limit is the beta quantile, so the count's is where the beta distribution is at `level`.
    kept = scipy.stats.beta.cdf(delta, counts + 1, num - counts) >= level
    return int(kept.sum()) - 1


def draws_needed(delta: float, level: float) -> int:
    """Returns the least number of draws that, with no failure, show a frequency below delta."""
    return int(np.ceil(np.log(1 - level) / np.log1p(-delta)))


def _upper(count: int, num: int, level: float) -> float:
    return clopper_pearson(count, num, level=2 * level - 1)[1]


def _draw(
    key: jax.Array,
    problem: Problem,
    config: SearchConfig,
    factor: float,
    num: int,
    random_seed: bool,
) -> simulate.World:
    """Returns `num` worlds of the model with one lengthscale factor, all safe on their seeds."""
    grid, scales = np.asarray(problem.grid), np.asarray(problem.lengthscale) * factor
    sds = np.sqrt(np.asarray(problem.prior_var))
    roots = jnp.asarray(
        np.stack(
            [
                sd * simulate.square_root(config.kernel, grid, scale)
                for sd, scale in zip(sds, scales, strict=True)
            ]
        ),
        problem.grid.dtype,
    )
    noise_sd = jnp.broadcast_to(jnp.sqrt(problem.episode_var)[:, None], problem.prior_mean.shape)

    @jax.jit
    def block(key, roots, problem):
        key_normal, key_seed = jax.random.split(key)
        normal = jax.random.normal(key_normal, (num, *problem.prior_mean.shape))
        truth = problem.prior_mean + jnp.einsum("ozx,nox->noz", roots, normal)
        safe = (truth[:, 1:] <= problem.thresholds[0][:, None]).all(1)
        if random_seed:
            pick = jax.vmap(simulate.random_safe_point)
            return truth, pick(jax.random.split(key_seed, num), safe), safe.any(1)
        seed = jnp.broadcast_to(problem.seed, safe.shape)
        return truth, seed, (safe | ~seed).all(1)

    kept: list[tuple[np.ndarray, np.ndarray]] = []
    found = 0
    for i in range(_MOST_BLOCKS):
        truth, seed, good = map(np.asarray, block(jax.random.fold_in(key, i), roots, problem))
        kept.append((truth[good], seed[good]))
        found += int(good.sum())
        if found >= num:
            break
    else:
        raise UserError(
            f"only {found} of {_MOST_BLOCKS * num} functions are safe on all of the seed set: make "
            "the seed set smaller or cost_mean lower there."
        )
    truths, seeds = (np.concatenate(x)[:num] for x in zip(*kept, strict=True))
    return simulate.World(
        jnp.asarray(truths),
        jnp.asarray(seeds),
        jnp.broadcast_to(noise_sd, (num, *noise_sd.shape)),
    )
