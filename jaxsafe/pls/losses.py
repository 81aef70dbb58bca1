# SPDX-License-Identifier: Apache-2.0
"""The losses of return-conditioned policies, one equation each (OSRL `algorithms/cdt.py`)."""

import math

import jax
import jax.numpy as jnp

from jaxsafe.pls import networks
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Batch, Params, Prediction, Sizes

Metrics = dict[str, jax.Array]


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of `values` `[B, K]` or `[B, K, D]` over the steps in `mask` `[B, K]`, `[]`."""
    weight = mask if values.ndim == mask.ndim else mask[..., None]
    number = jnp.maximum(jnp.sum(mask), 1) * (values.size // mask.size)
    return jnp.sum(jnp.where(weight, values, 0.0)) / number


def _mean(values: jax.Array, mask: jax.Array, config: PolicyConfig) -> jax.Array:
    """The masked mean, or OSRL's, which divides by padded steps too."""
    if config.masked_losses:
        return masked_mean(values, mask)
    weight = mask if values.ndim == mask.ndim else mask[..., None]
    return jnp.mean(values * weight)


def action_mse(prediction: Prediction, batch: Batch, config: PolicyConfig) -> jax.Array:
    """mean (mu(s, R, C) - a)^2, `[]`, of means and actions `[B, K, A]`."""
    return _mean(jnp.square(prediction.mean - batch.action), batch.mask, config)


def log_likelihood(prediction: Prediction, batch: Batch) -> jax.Array:
    """mean log N(a; mu, sigma^2), `[]`, per dimension of actions `[B, K, A]`."""
    error = (batch.action - prediction.mean) * jnp.exp(-prediction.log_std)
    density = -0.5 * jnp.square(error) - prediction.log_std - 0.5 * math.log(2 * math.pi)
    return masked_mean(density, batch.mask)


def entropy(prediction: Prediction, batch: Batch) -> jax.Array:
    """mean (1/2 + log(2 pi) / 2 + log sigma), `[]`, per dimension of actions `[B, K, A]`."""
    return masked_mean(prediction.log_std, batch.mask) + 0.5 * (1 + math.log(2 * math.pi))


def entropy_goal(config: PolicyConfig, sizes: Sizes) -> float:
    """What the entropy per dimension should come to; OSRL's is minus the number of dimensions."""
    return -float(sizes.action) if config.entropy_target is None else config.entropy_target


def cost_labels(cost: jax.Array, config: PolicyConfig) -> jax.Array:
    """Classes 0 and 1, int32, of costs `[B, K]`; OSRL's cut the fraction off."""
    return ((cost > 0) if config.cost_labels == "positive" else (cost >= 1)).astype(jnp.int32)


def cost_nll(
    prediction: Prediction, batch: Batch, config: PolicyConfig
) -> tuple[jax.Array, jax.Array]:
    """-mean log p(whether a step of `[B, K]` costs), and the share told right, both `[]`."""
    labels = cost_labels(batch.cost, config)
    log_p = jax.nn.log_softmax(jnp.asarray(prediction.cost_logits))
    picked = jnp.where(labels == 1, log_p[..., 1], log_p[..., 0])
    right = (log_p[..., 1] > log_p[..., 0]) == (labels == 1)
    return -_mean(picked, batch.mask, config), masked_mean(right, batch.mask)


def next_obs_mse(
    prediction: Prediction, batch: Batch, config: PolicyConfig, sizes: Sizes
) -> jax.Array:
    """mean (o_hat(s_t, a_t) - s_{t+1})^2, `[]`, of scaled `[B, K, S]` inside the window."""
    # Of padded steps the observation is 0 whatever its scale.
    obs = jnp.where(batch.mask[..., None], networks.scaled_obs(sizes, batch.obs), 0.0)
    error = jnp.square(jnp.asarray(prediction.next_obs)[:, :-1] - obs[:, 1:])
    # OSRL masks by the step that predicts, and so asks the last one for the padding.
    mask = batch.mask[:, 1:] if config.masked_losses else batch.mask[:, :-1]
    return _mean(error, mask, config)


def policy_loss(
    params: Params,
    log_temperature: jax.Array,
    batch: Batch,
    key: jax.Array,
    config: PolicyConfig,
    sizes: Sizes,
) -> tuple[jax.Array, Metrics]:
    """The action's mse, or -(log likelihood + temperature entropy); for cdt with auxiliary terms.

    cdt adds cost_loss * nll(cost) + state_loss * mse(next observation). `key` is consumed by
    dropout.
    """
    prediction = networks.predict(params, sizes, config, batch, key)
    metrics: Metrics = {}
    if config.loss == "mse":
        loss = action_mse(prediction, batch, config)
    else:
        likelihood, spread = log_likelihood(prediction, batch), entropy(prediction, batch)
        weight = jnp.exp(log_temperature) if config.temperature else jnp.float32(0)
        loss = -(likelihood + weight * spread)
        metrics |= {
            "policy/nll": -likelihood,
            "policy/entropy": spread,
            "policy/temperature": weight,
        }
    metrics["policy/action_loss"] = loss
    if config.model == "cdt":
        cost, right = cost_nll(prediction, batch, config)
        metrics |= {"policy/cost_loss": cost, "policy/cost_accuracy": right}
        loss = loss + config.cost_loss * cost
        if config.state_loss and config.context > 1:
            state = next_obs_mse(prediction, batch, config, sizes)
            metrics["policy/state_loss"] = state
            loss = loss + config.state_loss * state
    return loss, metrics | {"policy/loss": loss}
