# SPDX-License-Identifier: Apache-2.0
"""What M2TD3's functions pass to each other. Omegas are in normalised units, [-1, 1] per dimension.

Letters in shapes: B batch, O observation, A action, D uncertain parameters, K candidates.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

Params = Any


class Transition(NamedTuple):
    """One step of one world; `discount = gamma * (1 - terminated)`."""

    obs: jax.Array  # [B, O]
    action: jax.Array  # [B, A]
    reward: jax.Array  # [B]
    discount: jax.Array  # [B]
    next_obs: jax.Array  # [B, O], before any reset
    omega: jax.Array  # [B, D]


class World(struct.PyTreeNode):
    """Constants of the task and of its uncertainty set that the update needs."""

    obs_scale: jax.Array  # [O], multiplies observations at the networks' door
    action_low: jax.Array  # [A]
    action_high: jax.Array  # [A]
    omega_low: jax.Array  # [D], physical units
    omega_high: jax.Array  # [D], physical units
    omega_nominal: jax.Array  # [D], normalised; may lie outside [-1, 1]

    @property
    def omega_varies(self) -> jax.Array:
        """`[D]` 1 where the set has width in that dimension, 0 where it is a point."""
        return (self.omega_high > self.omega_low).astype(jnp.float32)

    def physical(self, omega: jax.Array) -> jax.Array:
        """Maps normalised omega `[..., D]` to physical units."""
        half = (self.omega_high - self.omega_low) / 2
        return (self.omega_high + self.omega_low) / 2 + half * omega


def make_world(
    obs_scale, action_low, action_high, omega_low, omega_high, omega_nominal=None
) -> World:
    """Builds a `World` from numbers; `omega_nominal` in physical units, the middle by default."""
    low, high = np.asarray(omega_low, np.float32), np.asarray(omega_high, np.float32)
    half = (high - low) / 2
    nominal = (low + high) / 2 if omega_nominal is None else np.asarray(omega_nominal)
    safe_half = np.where(half > 0, half, 1.0)
    normalised = np.where(half > 0, (nominal - (low + high) / 2) / safe_half, 0.0)
    arrays = (obs_scale, action_low, action_high, low, high, normalised)
    return World(*(jnp.asarray(x, jnp.float32) for x in arrays))


class Candidates(struct.PyTreeNode):
    """K candidate worst parameters, each with its own Adam state and probability."""

    z: jax.Array  # [K, D], omega = 2 sigmoid(z) - 1
    opt_state: optax.OptState  # leaves [K, ...]
    probs: jax.Array  # [K]


class Nature(struct.PyTreeNode):
    """An adversary that picks omega from the observation (rarl, m3ddpg)."""

    params: Params
    target: Params
    opt_state: optax.OptState


class State(struct.PyTreeNode):
    """Everything one learner carries between updates."""

    actor: Params
    critic: Params  # {"q1": ..., "q2": ...}
    target_actor: Params
    target_critic: Params
    mean_actor: Params  # exponential moving average of the actor's weights
    actor_opt: optax.OptState
    critic_opt: optax.OptState
    candidates: Candidates
    nature: Any  # Nature, or None where the method has none
    episode_length: jax.Array  # [], of the last finished episode, for the literal p horizon
    step: jax.Array  # [] int32, updates done
    key: jax.Array
    world: World
