# SPDX-License-Identifier: Apache-2.0
"""Offline training of a policy that is conditioned on a return and a cost return."""

import math

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from jaxsafe.pls import losses, networks, windows
from jaxsafe.pls.losses import Metrics
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Batch, Policy, PolicyState, Sizes, Windows


def optimizer(config: PolicyConfig) -> optax.GradientTransformation:
    """AdamW behind a clip of the gradient's norm; the first of w warm-up steps has rate lr / w."""

    def rate(count: ArrayLike) -> jax.Array:
        share = (jnp.asarray(count) + 1) / config.warmup_steps
        return config.learning_rate * jnp.minimum(share, 1.0)

    clip = optax.clip_by_global_norm(config.clip) if math.isfinite(config.clip) else None
    decay = optax.adamw(rate, *config.betas, weight_decay=config.weight_decay)
    return optax.chain(clip, decay) if clip else decay


def _temperature_optimizer(config: PolicyConfig) -> optax.GradientTransformation:
    return optax.adam(config.temperature_lr)


def init(key: jax.Array, config: PolicyConfig, sizes: Sizes) -> PolicyState:
    """Returns a fresh learner. `key` is consumed.

    Args:
      key: typed PRNG key.
      config: static.
      sizes: of the data, `windows.make(...).sizes`.
    """
    key_params, key = jax.random.split(key)
    params = networks.init(key_params, config, sizes)
    log_temperature = jnp.float32(math.log(config.temperature or 1.0))
    return PolicyState(
        params=params,
        opt_state=optimizer(config).init(params),
        log_temperature=log_temperature,
        temperature_opt=_temperature_optimizer(config).init(log_temperature),
        step=jnp.int32(0),
        key=key,
        # Copies, so that a caller may donate the state.
        sizes=jax.tree.map(jnp.copy, sizes),
    )


def update(state: PolicyState, batch: Batch, config: PolicyConfig) -> tuple[PolicyState, Metrics]:
    """One optimizer step on windows `[B, K, ...]`, and one of the entropy's weight.

    Args:
      state: the learner.
      batch: from `windows.sample`.
      config: static.

    Returns:
      the next learner, and scalars: `policy/loss`, `policy/action_loss`, `policy/grad_norm`; with
      loss="gaussian" also `policy/nll`, `policy/entropy` (both per dimension) and
      `policy/temperature`; for cdt `policy/cost_loss`, `policy/cost_accuracy` and, where it counts,
      `policy/state_loss`.
    """
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)
    grads, metrics = jax.grad(losses.policy_loss, has_aux=True)(
        state.params, state.log_temperature, batch, key, config, state.sizes
    )
    updates, opt_state = optimizer(config).update(grads, state.opt_state, state.params)
    metrics["policy/grad_norm"] = optax.tree.norm(grads)
    state = state.replace(
        params=optax.apply_updates(state.params, updates), opt_state=opt_state, step=state.step + 1
    )
    if config.loss == "gaussian" and config.temperature:
        # The gradient of temperature (entropy - goal) by the temperature's logarithm.
        excess = metrics["policy/entropy"] - losses.entropy_goal(config, state.sizes)
        change, opt = _temperature_optimizer(config).update(
            jnp.exp(state.log_temperature) * excess, state.temperature_opt
        )
        log_temperature = optax.apply_updates(state.log_temperature, change)
        state = state.replace(log_temperature=log_temperature, temperature_opt=opt)
    return state, metrics


def chunk(
    state: PolicyState, data: Windows, first: jax.Array, length: int, config: PolicyConfig
) -> tuple[PolicyState, Metrics]:
    """Steps `first` `[]` to `first + length - 1` in one program, each on fresh windows.

    Returns:
      the learner, and the metrics' means, scalars.
    """

    def one(state: PolicyState, step: jax.Array) -> tuple[PolicyState, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, step), 0)
        return update(state, windows.sample(key, data, config), config)

    state, traced = lax.scan(one, state, first + jnp.arange(length))
    return state, jax.tree.map(jnp.mean, traced)


def policy(state: PolicyState) -> Policy:
    """What acting takes of a learner; leaves stay `[num_seeds, ...]` where they are."""
    return Policy(state.params, state.sizes)
