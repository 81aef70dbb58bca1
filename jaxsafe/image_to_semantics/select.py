# SPDX-License-Identifier: Apache-2.0
"""Which episodes to annotate: greedy diversity between and within episodes, and other choices.

All are pure functions of latents `z [E, T, Z]` with `mask [E, T]`, so they jit and map over seeds.
They return `order [n]` int32, the episodes in the order they are chosen. E episodes of at most T
images, Z latent dimensions; d(x, y) is the Euclidean distance of mean latents.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.core.checks import UserError

POOLS = ("unselected", "all")


def distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Euclidean distances `[..., N, M]` between `x [..., N, Z]` and `y [..., M, Z]`."""
    squares = (x**2).sum(-1)[..., :, None] + (y**2).sum(-1)[..., None, :]
    return jnp.sqrt(jnp.maximum(squares - 2 * jnp.einsum("...nz,...mz->...nm", x, y), 0.0))


def spread_within(z: jax.Array, mask: jax.Array) -> jax.Array:
    """f_intra, the sum of d over ordered pairs of an episode's images, `[E]` (algorithm 2)."""

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        images, seen = pair
        return (distances(images, images) * seen[:, None] * seen[None, :]).sum()

    return lax.map(one, (z, mask))


def nearest(z: jax.Array, mask: jax.Array, chosen: jax.Array) -> jax.Array:
    """Least distance of each image to those of episode `chosen` `[]`, `[E, T]`."""
    flat = z.reshape(-1, z.shape[-1])
    away = jnp.where(mask[chosen], distances(flat, z[chosen]), jnp.inf)
    return away.min(-1).reshape(mask.shape)


def pool_size(episodes: int, left: jax.Array, share: float, pool: str) -> jax.Array:
    """How many candidates a round has: `share` of those left, or of all as in the released code."""
    of = left if pool == "unselected" else episodes
    # A product such as 0.1 * 30 may lie just above 3 in 32 bits, and 0.7 * 10 just below 7.
    return jnp.maximum(1, jnp.floor(share * of + 1e-4)).astype(jnp.int32)


@partial(jax.jit, static_argnames=("number", "share", "pool"))
def diverse(
    key: jax.Array,
    z: jax.Array,
    mask: jax.Array,
    number: int,
    share: float = 0.1,
    pool: str = "unselected",
) -> jax.Array:
    """Greedy diversity (paper, algorithm 2).

    The first episode is uniform. Then, of the top `share` of candidates by f_inter(B, S), the sum
    over B's images of the distance to the nearest chosen image, the one with the largest f_intra
    is taken. Nothing is trained in between, so each round only adds the newest episode's distances
    to a running minimum.

    Args:
      key: consumed.
      z: mean latents `[E, T, Z]`; subsample their steps as you wish.
      mask: `[E, T]` bool.
      number: n of episodes to choose.
      share: b, the share of candidates among which f_intra decides; one at least.
      pool: "unselected" (the paper's text) or "all" (the released code): what the share is of.

    Returns:
      `[n]` int32.

    Raises:
      UserError: n is not in 1 to E, or `pool` is unknown.
    """
    _check(number, mask, pool)
    episodes = mask.shape[0]
    inside = spread_within(z, mask)
    first = jax.random.randint(key, (), 0, episodes)

    def round_(i, carry):
        order, taken, near = carry
        inter = jnp.where(mask, near, 0.0).sum(-1)
        rank = jnp.argsort(jnp.argsort(jnp.where(taken, jnp.inf, -inter)))
        candidates = (rank < pool_size(episodes, episodes - i, share, pool)) & ~taken
        best = jnp.argmax(jnp.where(candidates, inside, -jnp.inf)).astype(jnp.int32)
        near = jnp.minimum(near, nearest(z, mask, best))
        return order.at[i].set(best), taken.at[best].set(True), near

    order = jnp.zeros(number, jnp.int32).at[0].set(first)
    taken = jnp.zeros(episodes, bool).at[first].set(True)
    return lax.fori_loop(1, number, round_, (order, taken, nearest(z, mask, first)))[0]


@partial(jax.jit, static_argnames=("number",))
def k_center(key: jax.Array, z: jax.Array, mask: jax.Array, number: int) -> jax.Array:
    """Greedy k-center of episodes' mean latents: always the one farthest from those chosen.

    Arguments and errors as `diverse`'s.
    """
    _check(number, mask)
    middle = (z * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    away = distances(middle, middle)
    first = jax.random.randint(key, (), 0, len(middle))

    def round_(i, carry):
        order, near = carry
        best = jnp.argmax(near).astype(jnp.int32)
        return order.at[i].set(best), jnp.minimum(near, away[best]).at[best].set(-1.0)

    order = jnp.zeros(number, jnp.int32).at[0].set(first)
    return lax.fori_loop(1, number, round_, (order, away[first].at[first].set(-1.0)))[0]


def uncertain(scores: jax.Array, number: int) -> jax.Array:
    """The episodes of the highest scores `[E]`, such as their images' mean posterior variance."""
    return lax.top_k(scores, number)[1].astype(jnp.int32)


def uniform(key: jax.Array, episodes: int, number: int) -> jax.Array:
    """Episodes at random, each once; `key` is consumed."""
    return jax.random.permutation(key, episodes)[:number].astype(jnp.int32)


def _check(number: int, mask: jax.Array, pool: str = "all") -> None:
    if not 1 <= number <= mask.shape[0]:
        raise UserError(
            f"{number} episodes are to be annotated and there are {mask.shape[0]}: give a number "
            f"in [1, {mask.shape[0]}], or more data."
        )
    if pool not in POOLS:
        raise UserError(f"pool={pool!r} is unknown: choose one of {', '.join(POOLS)}.")
