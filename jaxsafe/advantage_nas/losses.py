# SPDX-License-Identifier: Apache-2.0
"""Losses of architectures in the forms that estimators ask for, and their gradients by gates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.advantage_nas.space import Network, Weights
from jaxsafe.advantage_nas.types import Losses


def from_dense(dense: Callable[[jax.Array], jax.Array], num_ops: int) -> Losses:
    """Both forms of a loss given as `mixture [E, K] -> loss []`; `num_ops` is K."""

    def with_aux(mixture: jax.Array) -> tuple[jax.Array, Any]:
        return dense(mixture), ()

    def sampled(gates: jax.Array, choice: jax.Array) -> tuple[jax.Array, Any]:
        return with_aux(gates[:, None] * jax.nn.one_hot(choice, num_ops, dtype=gates.dtype))

    return Losses(sampled, with_aux)


def of_network(
    network: Network, weights: Weights, batch: Any, carry: Any, key: jax.Array
) -> Losses:
    """The loss of each architecture on one minibatch; aux is `(carry, metrics)`.

    Every evaluation has the same random numbers, such as dropout's, so that losses differ by the
    architecture alone. `key` is consumed.
    """
    # As words, so that a key is made anew for each evaluation.
    words, impl = jax.random.key_data(key), jax.random.key_impl(key)
    common = (batch, carry)

    def sampled(gates: jax.Array, choice: jax.Array):
        again = jax.random.wrap_key_data(words, impl=impl)
        return network.gate_loss(weights, gates, choice, *common, again)

    def dense(mixture: jax.Array):
        again = jax.random.wrap_key_data(words, impl=impl)
        return network.dense_loss(weights, mixture, *common, again)

    return Losses(sampled, dense)


def open_gates(choice: jax.Array, theta: jax.Array) -> jax.Array:
    """Gates of value 1, of the shape of `choice` and in theta's dtype."""
    return jnp.ones(choice.shape, theta.dtype)


def gate_gradients(
    losses: Losses, choice: jax.Array, theta: jax.Array
) -> tuple[jax.Array, jax.Array, Any]:
    """The loss `[]`, its gradient `[E]` by the gates of `choice` `[E]`, and aux."""
    run = jax.value_and_grad(losses.sampled, has_aux=True)
    (loss, aux), grad = run(open_gates(choice, theta), choice)
    return loss, grad, aux


def dense_gradients(
    losses: Losses, mixture: jax.Array, method: str
) -> tuple[jax.Array, jax.Array, Any]:
    """The loss `[]`, its gradient `[E, K]` by the mixture, and aux.

    Raises:
      ValueError: the loss has no dense form.
    """
    if losses.dense is None:
        raise ValueError(f"{method} runs several operations of an edge: give losses.dense.")
    (loss, aux), grad = jax.value_and_grad(losses.dense, has_aux=True)(mixture)
    return loss, grad, aux


def _each_edge(
    function: Callable[[jax.Array], jax.Array], num_edges: int, in_turn: bool
) -> jax.Array:
    edges = jnp.arange(num_edges)
    return lax.map(function, edges) if in_turn else jax.vmap(function)(edges)


def without_each(
    losses: Losses, choice: jax.Array, theta: jax.Array, in_turn: bool = False
) -> jax.Array:
    """The loss `[E]` with the gate of one edge at a time at 0, by E forward passes."""

    def without(edge: jax.Array) -> jax.Array:
        return losses.sampled(open_gates(choice, theta).at[edge].set(0.0), choice)[0]

    return _each_edge(without, choice.shape[0], in_turn)


def curvature(
    losses: Losses, choice: jax.Array, theta: jax.Array, in_turn: bool = False
) -> jax.Array:
    """d^2 L / d gate^2 `[E]` of each edge, by a Hessian-vector product for each.

    Reverse over reverse, so that losses whose parts have custom backward passes have it too.
    """
    grad = jax.grad(lambda gates: losses.sampled(gates, choice)[0])
    _, pull = jax.vjp(grad, open_gates(choice, theta))

    def second(edge: jax.Array) -> jax.Array:
        unit = jnp.zeros_like(open_gates(choice, theta)).at[edge].set(1.0)
        return pull(unit)[0][edge]

    return _each_edge(second, choice.shape[0], in_turn)
