# SPDX-License-Identifier: Apache-2.0
"""Estimates of d E[L] / d theta, where architectures are drawn from softmax(theta).

Every method has one signature, `estimate(key, theta, losses, state, config)`, and works on any
loss of an architecture. What most share is the score function (arXiv 2012.06138; authors' code,
util.py): with a the one-hot sample of an edge and p its probabilities,

  g[e, :] = factor[e] (a[e, :] - p[e, :]),

and methods differ in the factor. With G = dL/dgate of the sampled operation:

  advantage       G, as published. Exact in mean only where L is affine in each edge's gate:
                  elsewhere the remainder depends on the choice and stays, with either sign.
  advantage_ema   G less its average over steps: the same mean, less variance.
  counterfactual  L less L with the edge's gate at 0, from E forward passes more. What is
                  subtracted does not depend on the edge's choice, so the mean is exact always.
  corrected       G less half of L's curvature in the gate: the same where L is quadratic in it.
  reinforce       L less its average over steps, for every edge.
  rloo            L less the mean of the other samples' losses.

The others are no score functions: gdas (arXiv 1910.04465), darts (1806.09055, first order),
proxyless (1812.00332); random has no gradient.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.advantage_nas import relaxed, sampling
from jaxsafe.advantage_nas.config import EstimatorConfig
from jaxsafe.advantage_nas.losses import curvature, gate_gradients, open_gates, without_each
from jaxsafe.advantage_nas.types import Average, Draw, EstimatorState, Info, Losses


def init(num_edges: int, num_ops: int, dtype: jax.typing.DTypeLike = jnp.float32) -> EstimatorState:
    """What an estimator remembers before its first step."""

    def average(*shape: int) -> Average:
        return Average(jnp.zeros(shape, dtype), jnp.zeros(shape, bool))

    return EstimatorState(
        edge_baseline=average(num_edges),
        loss_baseline=average(),
        worst=average(num_edges, num_ops),
        step=jnp.int32(0),
    )


def moved(average: Average, value: jax.Array, rate: float, where: jax.Array) -> Average:
    """The average with `value` in it, where `where`; the first value sets it outright."""
    mean = jnp.where(average.seen, (1 - rate) * average.value + rate * value, value)
    return Average(jnp.where(where, mean, average.value), average.seen | where)


def draw(key: jax.Array, theta: jax.Array, config: EstimatorConfig) -> Draw:
    """The random part of an estimate, for logits `[E, K]`. `key` is consumed."""
    if config.method in ("gdas", "proxyless", "darts"):
        return relaxed.draw(key, theta, config)
    # Random search is over the space, whatever theta is.
    logits = jnp.zeros_like(theta) if config.method == "random" else theta
    count = config.samples if config.method == "rloo" else 1
    choice = sampling.sample(key, logits, config.sampler, count)
    return Draw(choice, jnp.zeros_like(theta), choice[0])


def estimate(
    key: jax.Array,
    theta: jax.Array,
    losses: Losses,
    state: EstimatorState,
    config: EstimatorConfig,
) -> tuple[jax.Array, EstimatorState, Info]:
    """Draws architectures, runs them and returns a gradient to descend.

    Args:
      key: typed PRNG key, consumed.
      theta: logits `[E, K]`.
      losses: of an architecture, on one minibatch.
      state: from `init`, or the last estimate.
      config: static.

    Returns:
      the gradient `[E, K]`, the next state, and what was seen.

    Raises:
      ValueError: darts or proxyless without a dense form of the loss.
    """
    return estimate_of(draw(key, theta, config), theta, losses, state, config)


def estimate_of(
    drawn: Draw, theta: jax.Array, losses: Losses, state: EstimatorState, config: EstimatorConfig
) -> tuple[jax.Array, EstimatorState, Info]:
    """`estimate` for a given draw: a pure function, whose mean and variance can be enumerated."""
    methods = {
        "advantage": _gates,
        "advantage_ema": _gates,
        "counterfactual": _gates,
        "corrected": _gates,
        "reinforce": _reinforce,
        "rloo": _rloo,
        "random": _random,
        "gdas": relaxed.gdas,
        "darts": relaxed.darts,
        "proxyless": relaxed.proxyless,
    }
    grad, state, info = methods[config.method](drawn, theta, losses, state, config)
    return grad, state.replace(step=state.step + 1), info


def _score(factor: jax.Array, choice: jax.Array, theta: jax.Array) -> jax.Array:
    return factor[:, None] * (sampling.one_hot(choice, theta) - jax.nn.softmax(theta))


def _info(loss, choice, factor, aux) -> Info:
    return Info(loss, choice, factor, jnp.stack([choice, choice], axis=-1), aux)


def _gates(drawn, theta, losses, state, config):
    """The methods whose factor is an edge's own."""
    choice = drawn.choice[0]
    if config.method == "counterfactual":
        loss, aux = losses.sampled(open_gates(choice, theta), choice)
        factor = loss - without_each(losses, choice, theta, config.in_turn)
    else:
        loss, factor, aux = gate_gradients(losses, choice, theta)
        if config.method == "corrected":
            factor = factor - 0.5 * curvature(losses, choice, theta, config.in_turn)
    if config.method == "advantage_ema":
        average = state.edge_baseline
        later = moved(average, factor, config.ema_rate, jnp.ones_like(average.seen))
        factor, state = factor - average.value, state.replace(edge_baseline=later)
    if config.zero_rule != "gate":
        factor, state = _worst_for_zero(factor, choice, theta, state, config)
    return _score(factor, choice, theta), state, _info(loss, choice, factor, aux)


def _worst_for_zero(factor, choice, theta, state, config):
    """Replaces the zero operation's factor by the greatest average on its edge (traps 8 to 10).

    A gate gradient of 0 says nothing about an operation whose output is 0. The published rule
    averages a table of all entries, those that were not sampled standing still, and takes its
    greatest, which is never below zero's own 0; `worst` leaves out zero and what was never sampled.
    """
    sampled = sampling.one_hot(choice, theta) > 0
    here = jnp.broadcast_to(factor[:, None], theta.shape)
    average = state.worst
    if config.zero_rule == "literal":
        now = jnp.where(sampled, here, average.value)
        average = moved(average, now, config.ema_rate, jnp.ones_like(average.seen))
        greatest = average.value.max(axis=1)
    else:
        average = moved(average, here, config.ema_rate, sampled)
        known = average.seen & (jnp.arange(theta.shape[1]) != config.zero_op)
        greatest = jnp.where(known, average.value, -jnp.inf).max(axis=1)
        greatest = jnp.where(known.any(axis=1), greatest, 0.0)
    factor = jnp.where(choice == config.zero_op, greatest, factor)
    return factor, state.replace(worst=average)


def with_loss(state: EstimatorState, loss: jax.Array, rate: float) -> EstimatorState:
    """The state whose loss baseline has one more loss."""
    return state.replace(loss_baseline=moved(state.loss_baseline, loss, rate, jnp.bool_(True)))


def _reinforce(drawn, theta, losses, state, config):
    """The loss less its average, which a first estimate does not have: its factor is 0."""
    choice = drawn.choice[0]
    loss, aux = losses.sampled(open_gates(choice, theta), choice)
    later = with_loss(state, loss, config.ema_rate)
    baseline = state.loss_baseline if config.loss_baseline == "before" else later.loss_baseline
    factor = jnp.where(state.loss_baseline.seen, loss - baseline.value, 0.0)
    factor = jnp.broadcast_to(factor, choice.shape)
    return _score(factor, choice, theta), later, _info(loss, choice, factor, aux)


def _rloo(drawn, theta, losses, state, config):
    """Each sample's loss less the mean of the others', averaged over the samples."""
    gates = open_gates(drawn.choice[0], theta)
    # In turn: under vmap a supernet would run every operation.
    loss, aux = lax.map(lambda choice: losses.sampled(gates, choice), drawn.choice)
    count = loss.shape[0]
    factor = (loss - loss.mean()) * count / (count - 1)
    grads = jax.vmap(_score, (0, 0, None))(
        jnp.broadcast_to(factor[:, None], drawn.choice.shape), drawn.choice, theta
    )
    first = jnp.broadcast_to(factor[0], gates.shape)
    aux = jax.tree.map(lambda x: x[0], aux)
    return grads.mean(axis=0), state, _info(loss.mean(), drawn.choice[0], first, aux)


def _random(drawn, theta, losses, state, config):
    choice = drawn.choice[0]
    loss, aux = losses.sampled(open_gates(choice, theta), choice)
    return (
        jnp.zeros_like(theta),
        state,
        _info(loss, choice, jnp.zeros(choice.shape, theta.dtype), aux),
    )
