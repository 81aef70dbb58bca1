# SPDX-License-Identifier: Apache-2.0
"""What the learner's functions pass to each other.

Letters in shapes: N rows of the data, B rows of a batch, K sequences of a row, T tokens.
K is 2 where a row is a pair (chosen, rejected), or an answer and the one it is mismatched with
(KTO); otherwise 1. Padding is on the right.
"""

from typing import Any, NamedTuple

import jax
import optax
from flax import struct

Params = Any
Array = Any  # numpy's on the host, JAX's on devices


class Batch(NamedTuple):
    """Rows to learn from; the data as a whole has the same fields, `[N, ...]`."""

    ids: Array  # [B, K, T] int32
    mask: Array  # [B, K, T] bool, a token
    completion: Array  # [B, K, T] bool, a token of the answer, its end included
    desirable: Array | None = None  # [B] bool; KTO
    reference: Array | None = None  # [B, K] log pi_ref(answer | prompt); None: from the state


class State(struct.PyTreeNode):
    """Everything one stage's learner carries between updates."""

    params: Params  # float32 where they are masters; with adapters, where the stage started
    reference: Params | None  # the policy that the stage starts from; None where batches tell
    adapters: Params | None  # what is trained in place of `params`; None: those are
    opt_state: optax.OptState
    step: jax.Array  # [] int32, updates done
    key: jax.Array
