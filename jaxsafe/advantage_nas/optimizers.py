# SPDX-License-Identifier: Apache-2.0
"""The two optimizers of the search and their schedules, which move once in an epoch."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxsafe.advantage_nas.config import Config

Schedule = Callable[[ArrayLike], jax.Array]


def _cosine(rate: float, schedule: str, steps_per_epoch: int, epochs: int) -> Schedule:
    """rate (1 + cos(pi e / epochs)) / 2 in epoch e, counted from 0; or `rate` throughout."""

    def value(count: ArrayLike) -> jax.Array:
        count = jnp.asarray(count)
        if schedule == "constant":
            return jnp.full_like(count, rate, dtype=jnp.float32)
        epoch = jnp.minimum(count // steps_per_epoch, epochs)
        return rate * (1 + jnp.cos(jnp.pi * epoch / epochs)) / 2

    return value


def weight_rate(config: Config) -> Schedule:
    """The weights' learning rate after a number of their updates."""
    return _cosine(config.weight_lr, config.weight_schedule, config.steps_per_epoch, config.epochs)


def theta_rate(config: Config) -> Schedule:
    """theta's learning rate after a number of its updates, the first when it is unfrozen."""
    epochs = config.epochs - config.freeze_epochs
    return _cosine(config.theta_lr, config.theta_schedule, config.steps_per_epoch, epochs)


def _clip(norm: float) -> list[optax.GradientTransformation]:
    return [optax.clip_by_global_norm(norm)] if math.isfinite(norm) else []


def _decay(factor: float) -> list[optax.GradientTransformation]:
    return [optax.add_decayed_weights(factor)] if factor else []


def weight_optimizer(config: Config) -> optax.GradientTransformation:
    """SGD with momentum behind a clip of the gradient's norm and decay, in this order."""
    momentum = config.weight_momentum or None
    sgd = optax.sgd(weight_rate(config), momentum, nesterov=config.weight_nesterov)
    return optax.chain(*_clip(config.weight_clip), *_decay(config.weight_decay), sgd)


def theta_optimizer(config: Config) -> optax.GradientTransformation:
    """Adam behind a clip of the gradient's norm and L2, in this order."""
    adam = optax.adam(theta_rate(config), config.theta_beta1, config.theta_beta2)
    return optax.chain(*_clip(config.theta_clip), *_decay(config.theta_l2), adam)
