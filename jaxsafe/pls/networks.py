# SPDX-License-Identifier: Apache-2.0
"""The policies' networks as pure functions of (params, sizes, config, inputs).

`predict` trains them and `start` and `act` roll them out, whichever model it is.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxsafe.nn.mlp import MLP
from jaxsafe.pls import layers, transformer
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Batch, Params, Policy, Prediction, Sizes

LOG_STD = (-5.0, 2.0)  # as OSRL names them


def _perceptron(config: PolicyConfig, sizes: Sizes) -> MLP:
    return MLP(config.hidden, sizes.action * (2 if config.loss == "gaussian" else 1))


def _transformer(config: PolicyConfig, sizes: Sizes) -> transformer.Transformer:
    return transformer.Transformer(config, sizes.obs, sizes.action, sizes.steps)


def scaled_obs(sizes: Sizes, obs: jax.Array) -> jax.Array:
    """Observations `[..., S]` as networks see them."""
    return (obs - sizes.obs_mean) * sizes.obs_scale


def _scaled_targets(
    sizes: Sizes, config: PolicyConfig, reward_to_go: jax.Array, cost_to_go: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Targets `[...]` as the transformer sees them."""
    cost = cost_to_go * sizes.cost_scale
    return reward_to_go * sizes.return_scale, 50.0 - cost if config.flip_costs else cost


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
    if config.model == "cdt":
        targets, time = jnp.zeros((1, 1)), jnp.zeros((1, 1), jnp.int32)
        obs, action = jnp.zeros((1, 1, sizes.obs)), jnp.zeros((1, 1, sizes.action))
        return _transformer(config, sizes).init(key, targets, targets, obs, action, time)
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
    if config.model == "cdt":
        # Three sites in each block, and the embedding.
        sites = 3 * config.layers + 1
        drop = layers.no_drop if key is None else layers.dropper(key, sites)
        output: Any = _transformer(config, sizes).apply(
            params,
            *_scaled_targets(sizes, config, batch.reward_to_go, batch.cost_to_go),
            scaled_obs(sizes, batch.obs),
            batch.action,
            batch.time,
            drop,
        )
        return Prediction(*_gaussian(output.action, config), output.cost, output.next_obs)
    del key  # a perceptron has no dropout
    inputs = features(sizes, config, batch.obs, batch.reward_to_go, batch.cost_to_go, batch.time)
    output = jnp.asarray(_perceptron(config, sizes).apply(params, inputs))
    return Prediction(*_gaussian(output, config), None, None)


def start(policy: Policy, config: PolicyConfig) -> Any:
    """Returns what a policy remembers at the start of an episode."""
    if config.model == "rvs":
        return ()
    return _transformer(config, policy.sizes).apply(policy.params, method="start")


def act(
    policy: Policy,
    config: PolicyConfig,
    memory: Any,
    limits: tuple[jax.Array, jax.Array],
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
      limits: low `[A]` and high `[A]`, to which the action is clipped.
      obs: `[S]`.
      reward_to_go: `[]`, raw units.
      cost_to_go: `[]`.
      time: `[]` int32, steps since the start, counted by one in each call.
    """
    sizes, params = policy.sizes, policy.params
    if config.model == "rvs":
        inputs = features(sizes, config, obs, reward_to_go, cost_to_go, time)
        output = jnp.asarray(_perceptron(config, sizes).apply(params, inputs))
        return jnp.clip(_gaussian(output, config)[0], *limits), memory
    model = _transformer(config, sizes)
    targets = _scaled_targets(sizes, config, reward_to_go, cost_to_go)
    output, memory = model.apply(
        params, memory, *targets, scaled_obs(sizes, obs), time, method="observe"
    )
    action = jnp.clip(_gaussian(output, config)[0], *limits)
    return action, model.apply(params, memory, action, time, method="acted")
