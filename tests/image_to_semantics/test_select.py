# SPDX-License-Identifier: Apache-2.0
"""Active selection: a toy solved by hand, a brute-force loop, and what must not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.image_to_semantics import select

# One-dimensional latents of four episodes of two images (known answer 8).
TOY = jnp.array([[0.0, 0.0], [1.2, 1.2], [5.0, 5.0], [3.9, 6.0]])[..., None]
WHOLE = jnp.ones((4, 2), bool)


def key_that_starts(with_episode, episodes):
    return next(
        number
        for number in range(200)
        if int(jax.random.randint(jax.random.key(number), (), 0, episodes)) == with_episode
    )


def from_first(number, share, pool="unselected", z=TOY, mask=WHOLE, first=0):
    key = jax.random.key(key_that_starts(first, len(z)))
    return np.asarray(select.diverse(key, z, mask, number, share, pool)).tolist()


def test_the_toy_by_hand():
    near = select.nearest(TOY, WHOLE, jnp.int32(0))
    np.testing.assert_allclose(near.sum(1), [0, 2.4, 10, 9.9], rtol=1e-6)
    np.testing.assert_allclose(select.spread_within(TOY, WHOLE), [0, 0, 0, 4.2], rtol=1e-5)
    assert from_first(4, 0.1) == [0, 2, 1, 3]
    # Two candidates in the first round: the released code's pool is of all four episodes.
    assert from_first(2, 0.5, "all") == [0, 3]
    # Half of the three that are left is one.
    assert from_first(2, 0.5) == [0, 2]
    assert from_first(2, 0.7) == [0, 3]


def brute_force(z, lengths, first, number, share, pool):
    """Algorithm 2 as a plain loop in float64 over ragged lists."""
    frames = [z[e, : lengths[e]] for e in range(len(z))]
    apart = lambda x, y: np.linalg.norm(x - y)  # noqa: E731
    intra = [sum(apart(x, y) for x in b for y in b) for b in frames]
    chosen = [first]
    while len(chosen) < number:
        seen = [y for e in chosen for y in frames[e]]
        inter = {
            e: sum(min(apart(x, y) for y in seen) for x in frames[e])
            for e in range(len(z))
            if e not in chosen
        }
        of = len(inter) if pool == "unselected" else len(z)
        size = max(1, int(np.floor(share * of + 1e-9)))
        top = sorted(inter, key=lambda e: -inter[e])[:size]
        chosen.append(max(top, key=lambda e: intra[e]))
    return chosen


@pytest.mark.parametrize("pool", select.POOLS)
def test_it_is_the_brute_force_loop_on_ragged_episodes(pool):
    rng = np.random.default_rng(0)
    for trial in range(6):
        z = rng.normal(size=(12, 5, 3)) * rng.uniform(0.2, 3, (12, 1, 1))
        lengths = rng.integers(1, 6, 12)
        mask = np.arange(5) < lengths[:, None]
        junk = np.where(mask[..., None], z, 1e3)  # what lies outside of the mask must not count
        share = (0.1, 0.25, 0.5)[trial % 3]
        found = from_first(7, share, pool, jnp.asarray(junk, jnp.float32), jnp.asarray(mask), trial)
        assert found == brute_force(z, lengths, trial, 7, share, pool)


def test_what_does_not_matter():
    rng = np.random.default_rng(1)
    z = jnp.asarray(rng.normal(size=(10, 4, 3)), jnp.float32)
    mask, key = jnp.ones((10, 4), bool), 3
    chosen = select.diverse(jax.random.key(key), z, mask, 6)
    turn = jnp.asarray(np.linalg.qr(rng.normal(size=(3, 3)))[0], jnp.float32)
    for other in (z @ turn, z + 2.0, 3.0 * z):
        again = select.diverse(jax.random.key(key), other, mask, 6)
        np.testing.assert_array_equal(again, chosen)
    with jax.disable_jit():
        plain = select.diverse(jax.random.key(key), z, mask, 6)
    np.testing.assert_array_equal(plain, chosen)
    assert len(set(np.asarray(chosen).tolist())) == 6


def test_the_others():
    chosen = select.k_center(jax.random.key(key_that_starts(0, 4)), TOY, WHOLE, 3)
    # Means 0, 1.2, 5, 4.95: the farthest from 0 is 5, then 1.2 is farther than 4.95.
    np.testing.assert_array_equal(chosen, [0, 2, 1])
    scores = jnp.array([0.1, 3.0, 2.0, 0.5])
    np.testing.assert_array_equal(select.uncertain(scores, 2), [1, 2])
    drawn = np.asarray(select.uniform(jax.random.key(0), 9, 9))
    assert sorted(drawn.tolist()) == list(range(9))


def test_bad_input():
    for number in (0, 5):
        with pytest.raises(UserError, match=rf"{number} episodes .* there are 4"):
            select.diverse(jax.random.key(0), TOY, WHOLE, number)
    with pytest.raises(UserError, match="pool='some' is unknown"):
        select.diverse(jax.random.key(0), TOY, WHOLE, 2, 0.1, "some")
