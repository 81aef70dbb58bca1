# SPDX-License-Identifier: Apache-2.0
"""What a search of a supernet runs on, images or text alike."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxsafe.advantage_nas.retrain import RetrainConfig
from jaxsafe.advantage_nas.space import Network, Space
from jaxsafe.advantage_nas.types import Batch, Metrics


class Task(NamedTuple):
    """A supernet and its data.

    Attributes:
      space: of the cells.
      network: the supernet.
      batch: `(key, step []) -> Batch`, pure; consumes `key`.
      score: `(weights, choice [E]) -> scores` on the fixed validation half, pure: `loss` and
        `accuracy`, or `loss` and `perplexity`.
      train: `(key, choice [E], config) -> scores` on the test set after training from scratch on
        all training data, pure; consumes `key`.
      cost: `choice [E] -> {"parameters", "multiply_adds"}` on the host.
      measure: `accuracy` or `perplexity`.
      data: names what it is, for headlines.
    """

    space: Space
    network: Network
    batch: Callable[[jax.Array, jax.Array], Batch]
    score: Callable[[Any, jax.Array], Metrics]
    train: Callable[[jax.Array, jax.Array, RetrainConfig], Metrics]
    cost: Callable[[Any], dict[str, int]]
    measure: str
    data: str
