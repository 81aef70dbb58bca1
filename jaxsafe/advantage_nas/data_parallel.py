# SPDX-License-Identifier: Apache-2.0
"""One search over several devices, each with its share of every minibatch.

Losses and gradients are means over devices, so that all take the same step. Batch norm normalises
each device's images by their own moments, as PyTorch's DataParallel does; smaller shares therefore
make noisier statistics.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxsafe.advantage_nas import algorithm
from jaxsafe.advantage_nas.config import Config
from jaxsafe.advantage_nas.space import Network
from jaxsafe.advantage_nas.types import Batch, Metrics, State
from jaxsafe.core.checks import UserError
from jaxsafe.core.parallel import DATA_AXIS


def updates(
    config: Config, network: Network, devices: Sequence[Any]
) -> Callable[[State, Batch], tuple[State, Metrics]]:
    """Returns `algorithm.update` as `(state, batch) -> (state, metrics)` over several devices.

    The state is whole on every device, the batch's leaves `[B, ...]` are split by rows; the result
    is to be jitted. On one device it is `algorithm.update`.

    Args:
      config: static.
      network: static; of images, for the hidden state of a recurrent cell is not split.
      devices: of JAX.

    Raises:
      UserError: the network carries a hidden state; and, when called, the rows do not divide over
        the devices.
    """
    if any(leaf.ndim for leaf in jax.tree.leaves(jax.eval_shape(network.init_carry))):
        raise UserError(
            f"space {network.space.name!r} carries rows from batch to batch: search on one device."
        )
    mesh, axis = Mesh(np.asarray(devices), (DATA_AXIS,)), DATA_AXIS
    shared = over(network, axis)
    step = jax.shard_map(
        lambda state, batch: algorithm.update(state, batch, config, shared),
        mesh=mesh,
        in_specs=(P(), P(axis)),
        out_specs=P(),
        check_vma=False,
    )

    def update(state: State, batch: Batch) -> tuple[State, Metrics]:
        for leaf in jax.tree.leaves(batch):
            if leaf.shape[0] % mesh.size:
                raise UserError(
                    f"{leaf.shape[0]} rows of a batch do not divide over {mesh.size} devices: "
                    "change one of the two."
                )
        return step(state, batch)

    return update


def over(network: Network, axis: str) -> Network:
    """The network whose loss and gradients are means over a mapped axis."""
    given, mean = _with_mean_gradient(axis), _mean(axis)

    def loss(weights, gates, choice, batch, half="both", carry=(), key=None):
        if half != "gates":
            weights = given(weights)
        if half != "weights":
            gates = given(gates)
        if key is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis))
        found, (carry, metrics) = network.loss(weights, gates, choice, batch, half, carry, key)
        return mean(found), (carry, lax.pmean(metrics, axis))

    return dataclasses.replace(network, loss=loss)


def _with_mean_gradient(axis: str) -> Callable[[Any], Any]:
    """The identity, whose gradient is the mean of the devices' gradients."""

    @jax.custom_vjp
    def same(x: Any) -> Any:
        return x

    same.defvjp(lambda x: (x, None), lambda _, g: (lax.pmean(g, axis),))
    return same


def _mean(axis: str) -> Callable[[jax.Array], jax.Array]:
    """The mean over devices, whose gradient each device has for its own value in full."""

    @jax.custom_vjp
    def mean(x: jax.Array) -> jax.Array:
        return lax.pmean(x, axis)

    mean.defvjp(lambda x: (lax.pmean(x, axis), None), lambda _, g: (g,))
    return mean
