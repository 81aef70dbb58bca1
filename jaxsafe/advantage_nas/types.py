# SPDX-License-Identifier: Apache-2.0
"""What AdvantageNAS's functions pass to each other.

Letters in shapes: E edges, K candidate operations of an edge, S architectures of one estimate.
An architecture is a `choice` `[E]` of int32, the index of each edge's operation; `theta` `[E, K]`
are the logits of the distribution it is drawn from; the gate of a sampled operation is a factor of
value 1 on its output.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import struct

from jaxsafe.advantage_nas.space import Weights

Metrics = dict[str, jax.Array]


class Losses(NamedTuple):
    """A loss of an architecture, in the forms it has; each returns `(loss [], aux)`.

    Attributes:
      sampled: `(gates [E], choice [E]) -> (loss, aux)`, differentiable in the gates; needs to run
        the chosen operations only.
      dense: `mixture [E, K] -> (loss, aux)`, differentiable in the mixture; None where an
        architecture can only be sampled.
    """

    sampled: Callable[[jax.Array, jax.Array], tuple[jax.Array, Any]]
    dense: Callable[[jax.Array], tuple[jax.Array, Any]] | None = None


class Average(struct.PyTreeNode):
    """An exponential moving average whose first update is the value itself."""

    value: jax.Array
    seen: jax.Array  # bool, of the value's shape: has been updated


class EstimatorState(struct.PyTreeNode):
    """What estimators remember, each average for one purpose."""

    edge_baseline: Average  # [E] of the gate gradients
    loss_baseline: Average  # [] of the losses
    worst: Average  # [E, K] of the gate gradients of each operation
    step: jax.Array  # [] int32, estimates made


class Info(NamedTuple):
    """What an estimate saw."""

    loss: jax.Array  # [] of the architecture, the mean where there are several
    choice: jax.Array  # [E] the architecture run, the first where there are several
    factor: jax.Array  # [E] what multiplies the score of each edge; 0 where there is no score
    pair: jax.Array  # [E, 2] operations whose theta may move (proxyless), else both the choice
    aux: Any  # what the loss returned beside its value, of `choice`


class Draw(NamedTuple):
    """The random part of an estimate; the rest is a function of it."""

    choice: jax.Array  # [S, E] int32
    noise: jax.Array  # [E, K] Gumbel noise behind `choice` (gdas), else zeros
    other: jax.Array  # [E] int32, the second operation of the pair (proxyless), else the first


class Batch(NamedTuple):
    """One minibatch of each half of a search step."""

    train: Any  # for the weights
    valid: Any  # for theta


class Carry(NamedTuple):
    """What the network hands on within each stream."""

    train: Any
    valid: Any


class Best(struct.PyTreeNode):
    """The sampled architecture whose single minibatch had the lowest loss ("PB")."""

    choice: jax.Array  # [E]
    loss: jax.Array  # []


class State(struct.PyTreeNode):
    """Everything one search carries between updates."""

    weights: Weights
    weight_opt: Any
    theta: jax.Array  # [E, K]
    theta_opt: Any
    estimator: EstimatorState
    best: Best
    carry: Carry
    step: jax.Array  # [] int32, updates done
    key: jax.Array
