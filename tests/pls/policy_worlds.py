# SPDX-License-Identifier: Apache-2.0
"""A world whose best return-conditioned policy is known, and data from it."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.data import trajectories
from jaxsafe.envs.types import Task, Timestep

STEPS = 10


@flax.struct.dataclass
class Counter:
    noise: jax.Array
    steps: jax.Array


def steady(steps=STEPS):
    """Pays its first action, from -1 to 1, and costs its second, halved from [-1, 1] to [0, 1].

    Where episodes keep one action a throughout, R_t / (T - t) = a_0 and C_t / (T - t) =
    (a_1 + 1) / 2, whatever the observation, so that pi_z reaches exactly z.
    """

    def step(model, state, action):
        action = jnp.clip(action, -1.0, 1.0)
        after = Counter(state.noise, state.steps + 1)
        done = after.steps >= steps
        return after, Timestep(
            obs=observe(model, after),
            reward=action[0],
            cost=(action[1] + 1) / 2,
            terminated=jnp.bool_(False),
            truncated=done,
        )

    def observe(model, state):
        return model + state.noise * jnp.array([1.0, -1.0, 0.5])

    return Task(
        name="Steady",
        model=jnp.float32(3.0),
        reset=lambda model, key: Counter(jax.random.normal(key), jnp.int32(0)),
        explore=lambda model, key: Counter(jax.random.normal(key), jnp.int32(0)),
        step=step,
        observe=observe,
        obs_size=3,
        action_size=2,
        action_low=np.full(2, -1, np.float32),
        action_high=np.full(2, 1, np.float32),
        obs_scale=np.ones(3, np.float32),
        max_episode_steps=steps,
        parameters={},
        host=None,
    )


def columns(lengths, seed=0, obs=3, action=2):
    """The seven keys of episodes of these lengths, each with one action throughout."""
    rng = np.random.default_rng(seed)
    size, ends = sum(lengths), np.cumsum(lengths) - 1
    actions = np.repeat(rng.uniform(-1, 1, (len(lengths), action)), lengths, axis=0)
    flags = np.zeros(size, bool)
    flags[ends] = True
    return {
        "observations": rng.normal(3, 1, (size, obs)),
        "next_observations": rng.normal(3, 1, (size, obs)),
        "actions": actions,
        "rewards": actions[:, 0],
        "costs": (actions[:, 1] + 1) / 2,
        "terminals": np.zeros(size, bool),
        "timeouts": flags,
    }


def steady_data(episodes=200, seed=0, steps=STEPS, **sizes):
    """Trajectories of the steady world under constant actions."""
    return trajectories.build(columns([steps] * episodes, seed, **sizes))


def with_costs(costs, steps=200):
    """One episode for each of these whole cost returns: ones, then zeros."""
    data = columns([steps] * len(costs))
    rows = np.arange(steps)
    data["costs"] = np.concatenate([(rows < cost).astype(float) for cost in costs])
    return trajectories.build(data)
