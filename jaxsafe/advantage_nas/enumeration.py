# SPDX-License-Identifier: Apache-2.0
"""Bias, direction and variance of any estimator, exact by enumeration of a small space.

    report = analyse(losses, theta, EstimatorConfig("advantage"))
    report.bias, report.cosine, report.variance

Where theta is float64 (under `jax.enable_x64`), so is all of it.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.advantage_nas import estimators, sampling
from jaxsafe.advantage_nas.config import EstimatorConfig
from jaxsafe.advantage_nas.losses import gate_gradients, open_gates
from jaxsafe.advantage_nas.types import Average, Draw, EstimatorState, Losses
from jaxsafe.core.checks import UserError

MAX_DRAWS = 2_000_000


class Table(NamedTuple):
    """Every architecture of a space."""

    choice: jax.Array  # [A, E] int32
    probability: jax.Array  # [A]
    loss: jax.Array  # [A]


class Analysis(NamedTuple):
    """What an estimator does at one theta."""

    truth: jax.Array  # [E, K] d E[L] / d theta
    mean: jax.Array  # [E, K] of the estimate
    bias: jax.Array  # [] norm of mean - truth, relative to that of truth
    cosine: jax.Array  # [] between mean and truth
    variance: jax.Array  # [] summed over the entries
    error: jax.Array  # [] standard error of the mean's norm: 0 where it is enumerated


def architectures(num_edges: int, num_ops: int) -> np.ndarray:
    """All architectures `[K^E, E]` int32, the last edge running fastest.

    Raises:
      UserError: there are more than MAX_DRAWS.
    """
    if num_ops**num_edges > MAX_DRAWS:
        raise UserError(
            f"{num_ops}^{num_edges} architectures are too many to enumerate: give a space of at "
            f"most {MAX_DRAWS:,}."
        )
    return np.array(list(itertools.product(range(num_ops), repeat=num_edges)), np.int32)


def table(losses: Losses, theta: jax.Array) -> Table:
    """Probability and loss of every architecture, at logits `[E, K]`."""
    choices = jnp.asarray(architectures(*theta.shape))
    loss = jax.vmap(lambda choice: losses.sampled(open_gates(choice, theta), choice)[0])(choices)
    return Table(choices, sampling.probability(choices, theta), loss)


def expected_loss(losses: Losses, theta: jax.Array) -> jax.Array:
    """E[L] `[]` over architectures drawn from softmax(theta `[E, K]`)."""
    every = table(losses, theta)
    return every.probability @ every.loss


def exact_gradient(losses: Losses, theta: jax.Array) -> jax.Array:
    """d E[L] / d theta `[E, K]`: the mean over architectures of L (a - p)."""
    every = table(losses, theta)
    score = sampling.one_hot(every.choice, theta) - jax.nn.softmax(theta)
    return jnp.einsum("a,a,aek->ek", every.probability, every.loss, score)


def settled_state(losses: Losses, theta: jax.Array) -> EstimatorState:
    """The state whose averages are the exact means at theta, as after many steps there."""
    every = table(losses, theta)
    gates = jax.vmap(lambda choice: gate_gradients(losses, choice, theta)[1])(every.choice)
    state = estimators.init(theta.shape[0], theta.shape[1], theta.dtype)

    def average(value: jax.Array) -> Average:
        return Average(value, jnp.ones(value.shape, bool))

    return state.replace(
        edge_baseline=average(every.probability @ gates),
        loss_baseline=average(every.probability @ every.loss),
    )


def draws(theta: jax.Array, config: EstimatorConfig) -> tuple[Draw, jax.Array]:
    """Every draw `[D, ...]` of a method and its probability `[D]`.

    Raises:
      UserError: the method's draws are not finite in number, or too many, or not exact.
    """
    num_edges, num_ops = theta.shape
    if config.method == "gdas" or config.sampler != "exact":
        raise UserError(
            f"method={config.method!r} with sampler={config.sampler!r} cannot be enumerated: give "
            "analyse a key and num_draws."
        )
    if config.method == "darts":
        only = estimators.draw(jax.random.key(0), theta, config)
        return jax.tree.map(lambda x: x[None], only), jnp.ones(1, theta.dtype)
    if config.method == "proxyless":
        return _pairs(theta)
    one = architectures(num_edges, num_ops)
    count = config.samples if config.method == "rloo" else 1
    if len(one) ** count > MAX_DRAWS:
        raise UserError(
            f"{len(one)}^{count} draws of {config.method} are too many to enumerate: give analyse "
            "a key and num_draws, or a smaller space."
        )
    picks = np.array(list(itertools.product(range(len(one)), repeat=count)))
    choice = jnp.asarray(one[picks])
    logits = jnp.zeros_like(theta) if config.method == "random" else theta
    probability = jnp.prod(sampling.probability(choice, logits), axis=1)
    noise = jnp.zeros((len(picks), *theta.shape), theta.dtype)
    return Draw(choice, noise, choice[:, 0]), probability


def _pairs(theta: jax.Array) -> tuple[Draw, jax.Array]:
    """Every draw of proxyless: on each edge the operation that runs, and its companion."""
    num_edges, num_ops = theta.shape
    pairs = np.array(list(itertools.permutations(range(num_ops), 2)), np.int32)
    picks = architectures(num_edges, len(pairs))
    p = jax.nn.softmax(theta)
    i, j = p[:, pairs[:, 0]], p[:, pairs[:, 1]]
    # Without replacement in either order, then one of the two by their own softmax.
    each = (i * j / (1 - i) + i * j / (1 - j)) * i / (i + j)
    probability = jnp.prod(each[jnp.arange(num_edges), picks], axis=1)
    noise = jnp.zeros((len(picks), *theta.shape), theta.dtype)
    chosen = jnp.asarray(pairs[picks])
    return Draw(chosen[:, None, :, 0], noise, chosen[:, :, 1]), probability


def analyse(
    losses: Losses,
    theta: jax.Array,
    config: EstimatorConfig,
    state: EstimatorState | None = None,
    key: jax.Array | None = None,
    num_draws: int = 0,
    block: int = 4096,
) -> Analysis:
    """Mean and variance of an estimator beside d E[L] / d theta, for any loss.

    Args:
      losses: of every architecture.
      theta: logits `[E, K]`; its dtype is that of the numbers.
      config: the estimator.
      state: its averages; those of `settled_state` by default.
      key: of `num_draws` random draws, where not all can be enumerated. Consumed.
      num_draws: how many; 0 enumerates.
      block: draws evaluated side by side.

    Raises:
      UserError: the draws cannot be enumerated and no key was given, or there are too many.
    """
    state = settled_state(losses, theta) if state is None else state
    if num_draws and key is not None:
        keys = jax.random.split(key, num_draws)
        drawn = jax.vmap(lambda k: estimators.draw(k, theta, config))(keys)
        weight = jnp.full(num_draws, 1 / num_draws, theta.dtype)
    else:
        drawn, weight = draws(theta, config)

    def estimate(one: Draw) -> jax.Array:
        return estimators.estimate_of(one, theta, losses, state, config)[0]

    grads = lax.map(estimate, drawn, batch_size=min(block, len(weight)))
    mean = jnp.tensordot(weight, grads, axes=1)
    variance = weight @ jnp.sum(jnp.square(grads - mean), axis=(1, 2))
    truth = exact_gradient(losses, theta)
    size = jnp.linalg.norm(truth)
    return Analysis(
        truth=truth,
        mean=mean,
        bias=jnp.linalg.norm(mean - truth) / size,
        cosine=jnp.sum(mean * truth) / (jnp.linalg.norm(mean) * size),
        variance=variance,
        error=jnp.sqrt(variance / num_draws) if num_draws else jnp.zeros_like(variance),
    )


def compare(losses: Losses, theta: jax.Array, methods: tuple[str, ...] = ()) -> dict[str, Analysis]:
    """`analyse` of several methods, by name: those that can be enumerated, by default."""
    methods = methods or ("advantage", "advantage_ema", "counterfactual", "corrected", "reinforce")
    return {m: analyse(losses, theta, EstimatorConfig(method=m)) for m in methods}
