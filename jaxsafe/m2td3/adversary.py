# SPDX-License-Identifier: Apache-2.0
"""The K candidate worst parameters: descent, probabilities, restarts, selection.

Reference code `M2TD3/m2td3.py` and `trainer.py` (RESTART, selection). Candidates move in z with
omega = 2 sigmoid(z) - 1, so no candidate leaves the set.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.draws import Draws
from jaxsafe.m2td3.types import Candidates, World


def _draw_z(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    y = jax.random.uniform(key, shape)
    # 1 - y is never 0 because uniform() excludes 1.
    return jnp.log(jnp.maximum(y / (1.0 - y), 1e-5))


def init(key: jax.Array, config: Config, world: World, optimizer) -> Candidates:
    """Returns K candidates drawn uniformly, with equal probabilities. `key` is consumed."""
    count = config.num_candidates
    z = _draw_z(key, (count, world.omega_low.shape[0]))
    return Candidates(
        z=z,
        opt_state=jax.vmap(optimizer.init)(z),
        # With its dtype: a weak type would make the second update compile anew.
        probs=jnp.full((count,), 1.0 / count, jnp.float32),
    )


def omegas(candidates: Candidates, world: World) -> jax.Array:
    """Normalised omega of every candidate, `[K, D]`; 0 in dimensions where the set is a point."""
    return omega_of(candidates.z, world)


def omega_of(z: jax.Array, world: World) -> jax.Array:
    """Maps free vectors z `[..., D]` into the set."""
    return (2.0 * jax.nn.sigmoid(z) - 1.0) * world.omega_varies


def descend(
    candidates: Candidates, worst: jax.Array, grad_omega: jax.Array, world: World, optimizer
) -> Candidates:
    """One Adam descent step of candidate `worst` on J; no other candidate moves.

    Args:
      candidates: K candidates.
      worst: `[]` index k*.
      grad_omega: `[D]` dJ/domega at that candidate, normalised units.
      world: the set.
      optimizer: the optax transformation that `init` was given.
    """
    z = candidates.z[worst]
    opt_state = jax.tree.map(lambda x: x[worst], candidates.opt_state)
    _, pull_back = jax.vjp(lambda z: omega_of(z, world), z)
    updates, opt_state = optimizer.update(pull_back(grad_omega)[0], opt_state, z)
    put = lambda rows, row: rows.at[worst].set(row)  # noqa: E731
    return candidates.replace(
        z=put(candidates.z, optax.apply_updates(z, updates)),
        opt_state=jax.tree.map(put, candidates.opt_state, opt_state),
    )


def reinforce(probs: jax.Array, worst: jax.Array, horizon: jax.Array | float) -> jax.Array:
    """p `[K]` <- (1 - c) p + c onehot(k*), c = 1/horizon; on the simplex for horizon >= 1."""
    coefficient = 1.0 / horizon
    return (1.0 - coefficient) * probs + coefficient * jax.nn.one_hot(worst, probs.shape[0])


def _restart(candidates: Candidates, marks: jax.Array, fresh: Candidates) -> Candidates:
    """Re-initialises the marked rows; p_k <- (sum of the others) / (K - 1), one after the other."""
    count = marks.shape[0]

    def one(probs: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
        others = jnp.sum(probs) - probs[k]
        return jnp.where(marks[k], probs.at[k].set(others / max(count - 1, 1)), probs), None

    probs, _ = lax.scan(one, candidates.probs, jnp.arange(count))
    return Candidates(
        z=_rows(marks, fresh.z, candidates.z),
        opt_state=_rows(marks, fresh.opt_state, candidates.opt_state),
        probs=probs,
    )


def _rows(marks: jax.Array, marked: Any, others: Any) -> Any:
    """Row k `[...]` of every leaf `[K, ...]` from `marked` where `marks` `[K]`, else `others`."""

    def pick(yes: jax.Array, no: jax.Array) -> jax.Array:
        return jnp.where(marks.reshape(marks.shape + (1,) * (yes.ndim - 1)), yes, no)

    return jax.tree.map(pick, marked, others)


def close_to_later(omega: jax.Array, distance: float) -> jax.Array:
    """Marks `[K]` candidate i where some j > i has L1(omega_i, omega_j) <= distance."""
    l1 = jnp.sum(jnp.abs(omega[:, None] - omega[None]), axis=-1)
    return jnp.any(jnp.triu(l1 <= distance, k=1), axis=1)


def restart(
    key: jax.Array, candidates: Candidates, config: Config, world: World, optimizer
) -> tuple[Candidates, jax.Array]:
    """Restarts candidates that crowd each other, then those of low probability; renormalises p.

    The distance is in normalised units, or in physical ones where `normalise_distance` is off,
    as in the reference code. `key` is consumed.

    Returns:
      the candidates, and the number of restarts `[]`.
    """
    key_near, key_rare = jax.random.split(key)
    omega = omegas(candidates, world)
    if not config.normalise_distance:
        omega = world.physical(omega)
    near = close_to_later(omega, config.restart_distance)
    candidates = _restart(candidates, near, init(key_near, config, world, optimizer))
    rare = candidates.probs < config.min_probability
    candidates = _restart(candidates, rare, init(key_rare, config, world, optimizer))
    candidates = candidates.replace(probs=candidates.probs / jnp.sum(candidates.probs))
    return candidates, jnp.sum(near) + jnp.sum(rare)


def training_omegas(
    draws: Draws, candidates: Candidates, noise: jax.Array, config: Config, world: World
) -> jax.Array:
    """Parameters of N training worlds, `[N, D]`: k ~ p, clip(omega_k + N(0, noise)).

    In m2td3_plus a fraction `uniform_omegas` of them ignores the candidates and is uniform.
    """
    pick = jnp.argmax(draws.omega_pick + jnp.log(candidates.probs), axis=-1)  # Gumbel-max
    centre = omegas(candidates, world)[pick]
    chosen = jnp.clip(centre + noise * draws.omega_noise, -1.0, 1.0)
    if not config.plus:
        return chosen * world.omega_varies
    mix = draws.omega_mix[:, None] < config.uniform_omegas
    return jnp.where(mix, draws.omega_uniform, chosen) * world.omega_varies


def least(
    values: jax.Array, omegas: jax.Array, count: int, distance: float | jax.Array
) -> jax.Array:
    """Indices `[count]` of the least of `values` `[N]`, apart from each other, the least first.

    Each next one is the least of those further than `distance` (L1) from all that were taken;
    where none is left, the least of the others. Of equals the first is taken.
    """

    def take(
        carry: tuple[jax.Array, jax.Array], _
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        taken, near = carry
        # Taken ones last of all, near ones after the rest.
        index = jnp.lexsort((values, near.astype(jnp.int32) + taken))[0]
        close = jnp.sum(jnp.abs(omegas - omegas[index]), axis=-1) <= distance
        return (taken.at[index].set(2), near | close), index

    start = (jnp.zeros(values.shape, jnp.int32), jnp.zeros(values.shape, bool))
    return lax.scan(take, start, length=count)[1]


def moved(candidates: Candidates, pool: jax.Array, chosen: jax.Array, optimizer) -> Candidates:
    """Candidates at `pool[chosen]`, of equal probability; those chosen again keep their Adam state.

    Args:
      candidates: K of them, which are the first K of the pool.
      pool: omegas `[N, D]`, normalised.
      chosen: indices `[K]`.
      optimizer: the optax transformation that `init` was given.
    """
    count = candidates.probs.shape[0]
    kept, old = chosen < count, jnp.minimum(chosen, count - 1)
    y = jnp.clip((pool[chosen] + 1.0) / 2.0, 1e-4, 1.0 - 1e-4)
    z = _rows(kept, candidates.z[old], jnp.log(y / (1.0 - y)))
    own = jax.tree.map(lambda x: x[old], candidates.opt_state)
    return Candidates(
        z=z,
        opt_state=_rows(kept, own, jax.vmap(optimizer.init)(z)),
        probs=jnp.full_like(candidates.probs, 1.0 / count),
    )
