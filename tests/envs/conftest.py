# SPDX-License-Identifier: Apache-2.0
"""Compiled programs and recordings that several test files share, as compiling is slow."""

import jax
import pytest

from jaxsafe.envs.mujoco_tasks import make
from jaxsafe.envs.uncertainty import make_set, scenario

from .recordings import record, replay


@pytest.fixture(scope="session")
def pendulum():
    """(task, set) of InvertedPendulum-2 in 32 bits."""
    return scenario("InvertedPendulum-2")


@pytest.fixture(scope="session")
def compiled_step(pendulum):
    """One jitted, unbatched step: (model, state, action) -> (State, Timestep)."""
    return jax.jit(pendulum[0].step)


@pytest.fixture(scope="session")
def gym_v5():
    return record("v5")


@pytest.fixture(scope="session")
def gym_v4():
    return record("v4")


@pytest.fixture(scope="session")
def mjx32(pendulum, gym_v5):
    """MJX v5 in 32 bits over the v5 recording."""
    return replay(*pendulum, gym_v5)


@pytest.fixture(scope="session")
def mjx64(gym_v4):
    """MJX v4 in 64 bits over the v4 recording."""
    jax.clear_caches()  # What 32 bits have traced of MJX's Runge-Kutta step does not lower in 64.
    with jax.enable_x64(True):
        task = make("InvertedPendulum-v4")
        uncertainty = make_set(task, {"pole_mass": (1, 31), "cart_mass": (1, 11)})
        return replay(task, uncertainty, gym_v4)
