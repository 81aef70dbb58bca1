# SPDX-License-Identifier: Apache-2.0
"""A small learner that every test of the algorithm shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.m2td3 import Config, Transition, make_world


@pytest.fixture(scope="session")
def config() -> Config:
    return Config(hidden=(16, 16), batch_size=8, total_steps=100, warmup_steps=1)


@pytest.fixture(scope="session")
def world():
    return make_world(
        obs_scale=[1.0, 2.0, 0.5],
        action_low=[-1.0, -2.0],
        action_high=[1.0, 4.0],
        omega_low=[1.0, 10.0],
        omega_high=[3.0, 30.0],
        omega_nominal=[1.5, 25.0],
    )


@pytest.fixture
def make_batch(world):
    """Returns `(seed, leading shape) -> Transition` of plausible random numbers."""

    def make(seed: int, shape: tuple[int, ...]) -> Transition:
        rng = np.random.default_rng(seed)
        normal = lambda *s: jnp.asarray(rng.normal(size=(*shape, *s)), jnp.float32)  # noqa: E731
        low, high = np.asarray(world.action_low), np.asarray(world.action_high)
        terminated = rng.random(shape) < 0.3
        return Transition(
            obs=normal(3),
            action=jnp.asarray(rng.uniform(low, high, (*shape, 2)), jnp.float32),
            reward=normal(),
            discount=jnp.asarray(0.99 * (1 - terminated), jnp.float32),
            next_obs=normal(3),
            omega=jnp.asarray(rng.uniform(-1, 1, (*shape, 2)), jnp.float32),
        )

    return make


def trees_equal(a, b) -> bool:
    """Whether two pytrees hold the same bits."""
    raw = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    same = jax.tree.map(lambda x, y: np.array_equal(raw(x), raw(y)), a, b)
    return all(jax.tree.leaves(same))
