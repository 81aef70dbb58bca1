# SPDX-License-Identifier: Apache-2.0
"""What the offline policy's functions pass to each other.

Letters in shapes: B windows, K steps of a window, S observation, A action, N transitions,
E episodes, T steps of the longest episode.
"""

from typing import Any, NamedTuple

import jax
import optax
from flax import struct

Params = Any


class Sizes(struct.PyTreeNode):
    """Constants of the data that the networks need; the three whole numbers are static."""

    obs_mean: jax.Array  # [S], subtracted at the networks' door
    obs_scale: jax.Array  # [S], multiplied after that
    return_scale: jax.Array  # [], of returns-to-go
    cost_scale: jax.Array  # [], of costs-to-go
    obs: int = struct.field(pytree_node=False)
    action: int = struct.field(pytree_node=False)
    steps: int = struct.field(pytree_node=False)  # T


class Batch(NamedTuple):
    """Windows of episodes; where `mask` is false, all but `time` is 0 and comes after the end."""

    obs: jax.Array  # [B, K, S]
    action: jax.Array  # [B, K, A]
    reward_to_go: jax.Array  # [B, K] undiscounted, raw units
    cost_to_go: jax.Array  # [B, K]
    cost: jax.Array  # [B, K] of the step
    time: jax.Array  # [B, K] int32, steps since the episode's start
    mask: jax.Array  # [B, K] bool, a real step


class Windows(struct.PyTreeNode):
    """Offline data on the device. Relabelled episodes share the rows of those they come from."""

    obs: jax.Array  # [N + K, S], the last K rows 0
    action: jax.Array  # [N + K, A]
    reward_to_go: jax.Array  # [N + K]
    cost_to_go: jax.Array  # [N + K]
    cost: jax.Array  # [N + K]
    start: jax.Array  # [E] int32, first row
    length: jax.Array  # [E] int32
    reward_line: jax.Array  # [E, 2] factor and shift of the episode's returns-to-go
    cost_line: jax.Array  # [E, 2]
    cumulative: jax.Array  # [E] probability of drawing this episode or one before it
    sizes: Sizes


class Prediction(NamedTuple):
    """What a network says of a window."""

    mean: jax.Array  # [B, K, A] of the action
    log_std: jax.Array  # [B, K, A]; zeros for loss="mse"
    cost_logits: jax.Array | None  # [B, K, 2]; cdt
    next_obs: jax.Array | None  # [B, K, S] scaled; cdt


class Policy(struct.PyTreeNode):
    """What acting takes, for one seed; leaves `[num_seeds, ...]` for many."""

    params: Params
    sizes: Sizes


class PolicyState(struct.PyTreeNode):
    """Everything training carries."""

    params: Params
    opt_state: optax.OptState
    log_temperature: jax.Array  # [] of the entropy's weight
    temperature_opt: optax.OptState
    step: jax.Array  # [] int32, updates done
    key: jax.Array
    sizes: Sizes
