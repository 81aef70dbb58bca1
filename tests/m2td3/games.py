# SPDX-License-Identifier: Apache-2.0
"""Tiny worlds with known answers, as tasks."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsafe.envs.types import Leaf, State, Task, Timestep
from jaxsafe.envs.uncertainty import UncertaintySet, make_set


@struct.dataclass
class Model:
    """The one uncertain number of a game."""

    w: jax.Array  # [1]


def _task(name, step, max_steps: int, low: float = 0.0, high: float = 1.0) -> Task:
    def reset(model, key):
        return State(jnp.zeros(1), jnp.zeros(0), jnp.zeros(0), jnp.int32(0))

    return Task(
        name=name,
        model=Model(jnp.array([0.5])),
        reset=reset,
        explore=reset,
        step=step,
        observe=lambda model, state: state.qpos,
        obs_size=1,
        action_size=1,
        action_low=np.array([low], np.float32),
        action_high=np.array([high], np.float32),
        obs_scale=np.ones(1, np.float32),
        max_episode_steps=max_steps,
        parameters={"w": Leaf("w", (0,))},
        host=None,
    )


def quadratic() -> tuple[Task, UncertaintySet]:
    """One step, r = -(1 + 8w)(a - w)^2, w in [0, 1]: minimax action 23/32, worst -729/1024."""

    def step(model, state, action):
        w, a = model.w[0], action[0]
        reward = -(1 + 8 * w) * (a - w) ** 2
        state = state.replace(steps=state.steps + 1)
        true, false = jnp.bool_(True), jnp.bool_(False)
        return state, Timestep(state.qpos, reward, jnp.float32(0), true, false)

    task = _task("quadratic", step, 1)
    return task, make_set(task, {"w": (0.0, 1.0)})


def quadratic_worst(a: float) -> float:
    """Exact worst return of action `a` in the quadratic game."""
    inner = (8 * a + 1) ** 3 / 432 if 0 <= (4 * a - 1) / 12 <= 1 else 0.0
    return -max(inner, 9 * (1 - a) ** 2, a**2)


def endless(length: int) -> tuple[Task, UncertaintySet]:
    """Reward 1 always, truncated after `length` steps, never terminated: V = 1 / (1 - gamma)."""

    def step(model, state, action):
        state = state.replace(steps=state.steps + 1)
        ended = state.steps >= length
        return state, Timestep(state.qpos, jnp.float32(1), jnp.float32(0), jnp.bool_(False), ended)

    task = _task("endless", step, length)
    return task, make_set(task, {"w": (0.0, 1.0)})
