# SPDX-License-Identifier: Apache-2.0
"""The search: weights and theta in turns (arXiv 2012.06138; authors' code, cifar10/search.py).

One update is a step of theta on the validation minibatch and a step of the weights on the training
one, each on an architecture drawn anew; theta rests in the first epochs. Theirs counts the two as
two iterations.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxsafe.advantage_nas import estimators, losses, optimizers, relaxed, sampling
from jaxsafe.advantage_nas.config import Config, EstimatorConfig
from jaxsafe.advantage_nas.space import Network
from jaxsafe.advantage_nas.types import Batch, Best, Carry, Metrics, State


def init(key: jax.Array, config: Config, network: Network) -> State:
    """Returns a fresh search. `key` is consumed.

    Args:
      key: typed PRNG key.
      config: static.
      network: static.
    """
    key_weights, key = jax.random.split(key)
    weights = network.init(key_weights)
    theta = sampling.init_theta(network.num_edges, network.num_ops)
    return State(
        weights=weights,
        weight_opt=optimizers.weight_optimizer(config).init(weights),
        theta=theta,
        theta_opt=optimizers.theta_optimizer(config).init(theta),
        estimator=estimators.init(network.num_edges, network.num_ops),
        best=Best(jnp.zeros(network.num_edges, jnp.int32), jnp.float32(jnp.finfo("float32").max)),
        carry=Carry(network.init_carry(), network.init_carry()),
        step=jnp.int32(0),
        key=key,
    )


def estimator_config(config: Config) -> EstimatorConfig:
    """The estimator, with the temperature's fall spread over theta's steps of this search."""
    steps = config.estimator.tau_steps or config.total_steps - config.freeze_steps
    return dataclasses.replace(config.estimator, tau_steps=steps)


def theta_step(
    state: State, batch: Any, key: jax.Array, config: Config, network: Network
) -> tuple[State, Metrics]:
    """One step of theta on a minibatch of the validation half. `key` is consumed.

    Returns:
      the next state, and `theta/loss` of the architecture drawn, `theta/factor`, the root mean
      square of what multiplies the scores, and `theta/grad_norm`.
    """
    key_draw, key_loss = jax.random.split(key)
    how = estimator_config(config)
    loss = losses.of_network(network, state.weights, batch, state.carry.valid, key_loss)
    grad, estimator, info = estimators.estimate(key_draw, state.theta, loss, state.estimator, how)
    updates, theta_opt = optimizers.theta_optimizer(config).update(
        grad, state.theta_opt, state.theta
    )
    theta = jnp.asarray(optax.apply_updates(state.theta, updates))
    if how.method == "random":  # L2 alone would move it
        theta = state.theta
    if how.method == "proxyless":
        theta = relaxed.rescaled(state.theta, theta, info)
    better = info.loss < state.best.loss
    best = Best(
        jnp.where(better, info.choice, state.best.choice),
        jnp.where(better, info.loss, state.best.loss),
    )
    carry, _ = info.aux
    metrics = {
        "theta/loss": info.loss,
        "theta/factor": jnp.sqrt(jnp.mean(jnp.square(info.factor))),
        "theta/grad_norm": optax.tree.norm(grad),
    }
    state = state.replace(
        theta=theta,
        theta_opt=theta_opt,
        estimator=estimator,
        best=best,
        carry=state.carry._replace(valid=carry),
    )
    return state, metrics


def weight_step(
    state: State, batch: Any, key: jax.Array, config: Config, network: Network
) -> tuple[State, Metrics]:
    """One step of the weights on a minibatch of the training half. `key` is consumed.

    The architecture is drawn as theta's estimator draws it; darts trains its mixture.

    Returns:
      the next state, and `weights/loss`, `weights/grad_norm` before the clip, and the network's
      own metrics as `weights/NAME`.
    """
    key_draw, key_loss = jax.random.split(key)
    carry = state.carry.train
    if config.estimator.method == "darts":
        mixture = jax.nn.softmax(state.theta)
        run = jax.value_and_grad(
            lambda w: network.dense_loss(w, mixture, batch, carry, key_loss), has_aux=True
        )
    else:
        choice = estimators.draw(key_draw, state.theta, config.estimator).choice[0]
        run = jax.value_and_grad(
            lambda w: network.weight_loss(w, choice, batch, carry, key_loss), has_aux=True
        )
    (loss, (carry, metrics)), grads = run(state.weights)
    updates, weight_opt = optimizers.weight_optimizer(config).update(
        grads, state.weight_opt, state.weights
    )
    estimator = state.estimator
    if config.estimator.loss_baseline == "after":  # theirs averages both streams' losses
        estimator = estimators.with_loss(estimator, loss, config.estimator.ema_rate)
    metrics = {f"weights/{name}": value for name, value in metrics.items()}
    metrics |= {"weights/loss": loss, "weights/grad_norm": optax.tree.norm(grads)}
    state = state.replace(
        weights=optax.apply_updates(state.weights, updates),
        weight_opt=weight_opt,
        estimator=estimator,
        carry=state.carry._replace(train=carry),
    )
    return state, metrics


def update(state: State, batch: Batch, config: Config, network: Network) -> tuple[State, Metrics]:
    """One search step: theta's, unless it rests, then the weights'.

    Args:
      state: the search.
      batch: a minibatch of each half.
      config: static.
      network: static.

    Returns:
      the next state, and the metrics of `theta_step` (0 while theta rests) and `weight_step`, with
      `theta/entropy` and `theta/confidence`, the means over edges of entropy, in nats, and of the
      greatest probability.
    """
    key_theta, key_weights = jax.random.split(jax.random.fold_in(state.key, state.step))

    def move(state: State, words: jax.Array) -> tuple[State, Metrics]:
        key = jax.random.wrap_key_data(words, impl=jax.random.key_impl(key_theta))
        return theta_step(state, batch.valid, key, config, network)

    def rest(state: State, words: jax.Array) -> tuple[State, Metrics]:
        names = ("theta/loss", "theta/factor", "theta/grad_norm")
        return state, {name: jnp.float32(0) for name in names}

    # Keys as words, for a mapped `cond` would seem to use them twice.
    words = jax.random.key_data(key_theta)
    if config.freeze_steps:
        own, moving = state.key, state.step >= config.freeze_steps
        state, theta_metrics = lax.cond(moving, move, rest, state.replace(key=()), words)
        state = state.replace(key=own)
    else:
        state, theta_metrics = move(state, words)
    state, weight_metrics = weight_step(state, batch.train, key_weights, config, network)
    p = jax.nn.softmax(state.theta)
    told = {
        "theta/entropy": sampling.entropy(state.theta).mean(),
        "theta/confidence": p.max(axis=1).mean(),
    }
    return state.replace(step=state.step + 1), theta_metrics | weight_metrics | told


def most_likely(theta: jax.Array) -> jax.Array:
    """The architecture of greatest probability `[..., E]` ("AM")."""
    return jnp.argmax(theta, axis=-1).astype(jnp.int32)
