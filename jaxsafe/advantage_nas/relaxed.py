# SPDX-License-Identifier: Apache-2.0
"""Gradients of theta that are no score functions: GDAS, DARTS and ProxylessNAS."""

import jax
import jax.numpy as jnp

from jaxsafe.advantage_nas import sampling
from jaxsafe.advantage_nas.config import EstimatorConfig
from jaxsafe.advantage_nas.losses import dense_gradients, gate_gradients
from jaxsafe.advantage_nas.types import Draw, Info


def draw(key: jax.Array, theta: jax.Array, config: EstimatorConfig) -> Draw:
    """What the method draws for logits `[E, K]`: Gumbel noise, a pair, or nothing."""
    zeros = jnp.zeros_like(theta)
    if config.method == "darts":
        choice = jnp.argmax(theta, axis=1).astype(jnp.int32)
        return Draw(choice[None], zeros, choice)
    key_noise, key_active = jax.random.split(key)
    noise = jax.random.gumbel(key_noise, theta.shape, theta.dtype)
    if config.method == "gdas":
        choice = jnp.argmax(theta + noise, axis=1).astype(jnp.int32)
        return Draw(choice[None], noise, choice)
    # Two without replacement, then the one that runs, by their own softmax (1812.00332, 3.2.1).
    pair = jax.lax.top_k(theta + noise, 2)[1].astype(jnp.int32)
    logits = jnp.take_along_axis(theta, pair, axis=1)
    active = jax.random.categorical(key_active, logits)[:, None]
    choice = jnp.take_along_axis(pair, active, axis=1)[:, 0]
    other = jnp.take_along_axis(pair, 1 - active, axis=1)[:, 0]
    return Draw(choice[None], zeros, other)


def temperature(step: jax.Array, config: EstimatorConfig) -> jax.Array:
    """Falls from tau_start to tau_end in equal parts over tau_steps steps, and stays there."""
    share = jnp.minimum(step / max(config.tau_steps - 1, 1), 1.0)
    return config.tau_start + (config.tau_end - config.tau_start) * share


def gdas(drawn, theta, losses, state, config):
    """Straight through a hard Gumbel-softmax, of which only the sampled operation runs.

    g[e, :] = dL/dgate[e] d s[e, i] / d theta[e, :], with i the sampled operation and s the softmax
    of (theta + noise) / tau (arXiv 1910.04465, section 3.2).
    """
    choice = drawn.choice[0]
    loss, factor, aux = gate_gradients(losses, choice, theta)
    tau = temperature(state.step, config).astype(theta.dtype)
    soft = jax.nn.softmax((theta + drawn.noise) / tau)
    hot = sampling.one_hot(choice, theta)
    slope = jnp.sum(soft * hot, axis=1, keepdims=True) * (hot - soft) / tau
    return factor[:, None] * slope, state, _info(loss, choice, choice, factor, aux)


def darts(drawn, theta, losses, state, config):
    """The gradient of the mixture's loss, L(softmax(theta)): first order, no sampling."""
    mixture, pull = jax.vjp(jax.nn.softmax, theta)
    loss, grad, aux = dense_gradients(losses, mixture, "darts")
    choice = drawn.choice[0]
    zeros = jnp.zeros(choice.shape, theta.dtype)
    return pull(grad)[0], state, _info(loss, choice, choice, zeros, aux)


def proxyless(drawn, theta, losses, state, config):
    """Binary gates of two operations, of which one runs (arXiv 1812.00332, equation 4).

    g[e, k] = sum_j dL/dgate[e, j] q_j (1[j = k] - q_k) over the pair, q its softmax. The step that
    follows is to leave the other operations' probabilities alone: `rescaled`.
    """
    choice, other = drawn.choice[0], drawn.other
    loss, grad, aux = dense_gradients(losses, sampling.one_hot(choice, theta), "proxyless")
    mask = sampling.one_hot(choice, theta) + sampling.one_hot(other, theta) > 0
    q = jax.nn.softmax(jnp.where(mask, theta, -jnp.inf))
    slope = q * (grad - jnp.sum(q * grad, axis=1, keepdims=True))
    zeros = jnp.zeros(choice.shape, theta.dtype)
    return slope, state, _info(loss, choice, other, zeros, aux)


def rescaled(before: jax.Array, after: jax.Array, info: Info) -> jax.Array:
    """theta `[E, K]` after a step, with the entries outside each edge's pair as before, and the
    pair shifted so that the others' probabilities are too (trap 15: one pair per row).
    """
    pair = info.pair
    old = jnp.take_along_axis(before, pair, axis=1)
    new = jnp.take_along_axis(after, pair, axis=1)
    shift = jax.nn.logsumexp(old, axis=1) - jax.nn.logsumexp(new, axis=1)
    rows = jnp.arange(before.shape[0])[:, None]
    return before.at[rows, pair].set(new + shift[:, None])


def _info(loss, choice, other, factor, aux) -> Info:
    return Info(loss, choice, factor, jnp.stack([choice, other], axis=-1), aux)
