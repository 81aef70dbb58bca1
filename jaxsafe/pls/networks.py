# SPDX-License-Identifier: Apache-2.0
"""The policies' networks as pure functions of (params, sizes, config, inputs).

`predict` trains them and `start` and `act` roll them out, whichever model it is.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxsafe.nn.mlp import MLP
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Batch, Params, Policy, Prediction, Sizes

LOG_STD = (-5.0, 2.0)  # as OSRL names them


def _perceptron(config: PolicyConfig, sizes: Sizes) -> MLP:
    return MLP(config.hidden, sizes.action * (2 if config.loss == "gaussian" else 1))


def scaled_obs(sizes: Sizes, obs: jax.Array) -> jax.Array:
    """Observations `[..., S]` as networks see them."""
    return (obs - sizes.obs_mean) * sizes.obs_scale


def features(
    sizes: Sizes,
    config: PolicyConfig,
    obs: jax.Array,
    reward_to_go: jax.Array,
    cost_to_go: jax.Array,
    time: jax.Array,
) -> jax.Array:
    """What the perceptron sees, `[..., S + 5]`.

    The scaled observation, the fraction of T gone, both scaled targets, and both per remaining
    step, in units of the target that would be met by so much at each of T steps. Targets may run
    ahead of what can still be had, so these rates are clipped.

    Args:
      sizes: of the data.
      config: for `rate_limit`.
      obs: `[..., S]`.
      reward_to_go: `[...]`, raw units.
      cost_to_go: `[...]`.
      time: `[...]`, steps since the start.
    """
    gone = jnp.minimum(time / sizes.steps, 1.0)
    left = jnp.maximum(1 - gone, 1 / sizes.steps)
    targets = jnp.stack([reward_to_go * sizes.return_scale, cost_to_go * sizes.cost_scale], axis=-1)
    rates = jnp.clip(targets / left[..., None], -config.rate_limit, config.rate_limit)
    return jnp.concatenate([scaled_obs(sizes, obs), gone[..., None], targets, rates], axis=-1)


def init(key: jax.Array, config: PolicyConfig, sizes: Sizes) -> Params:
    """Returns the parameters of the configured model. `key` is consumed."""
    return _perceptron(config, sizes).init(key, jnp.zeros((1, sizes.obs + 5)))


def _gaussian(output: jax.Array, config: PolicyConfig) -> tuple[jax.Array, jax.Array]:
    """Splits `[..., 2A]` in mean and log standard deviation, or takes `[..., A]` as the mean."""
    if config.loss == "mse":
        return output, jnp.zeros_like(output)
    mean, log_std = jnp.split(output, 2, axis=-1)
    return mean, jnp.clip(log_std, *LOG_STD) if config.clip_log_std else log_std


def predict(
    params: Params,
    sizes: Sizes,
    config: PolicyConfig,
    batch: Batch,
    key: jax.Array | None = None,
) -> Prediction:
    """Predicts the actions of windows, and of a transformer also costs and next observations.

    Args:
      params: of the network.
      sizes: of the data.
      config: static.
      batch: windows `[B, K, ...]`.
      key: for dropout, consumed; None for none.
    """
    del key  # a perceptron has no dropout
    inputs = features(sizes, config, batch.obs, batch.reward_to_go, batch.cost_to_go, batch.time)
    output = jnp.asarray(_perceptron(config, sizes).apply(params, inputs))
    return Prediction(*_gaussian(output, config), None, None)


def start(policy: Policy, config: PolicyConfig) -> Any:
    """Returns what a policy remembers at the start of an episode."""
    del policy, config
    return ()


def act(
    policy: Policy,
    config: PolicyConfig,
    memory: Any,
    obs: jax.Array,
    reward_to_go: jax.Array,
    cost_to_go: jax.Array,
    time: jax.Array,
) -> tuple[jax.Array, Any]:
    """The mean action `[A]` for one observation `[S]` and what is left of the targets.

    Args:
      policy: of one seed.
      config: static.
      memory: of the steps before, from `start` or the last call.
      obs: `[S]`.
      reward_to_go: `[]`, raw units.
      cost_to_go: `[]`.
      time: `[]` int32, steps since the start, counted by one in each call.

    Returns:
      `(action [A], memory)`; the action is not clipped.
    """
    inputs = features(policy.sizes, config, obs, reward_to_go, cost_to_go, time)
    output = jnp.asarray(_perceptron(config, policy.sizes).apply(policy.params, inputs))
    return _gaussian(output, config)[0], memory
