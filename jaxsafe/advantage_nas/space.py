# SPDX-License-Identifier: Apache-2.0
"""What is searched: nodes, edges and candidate operations, as data.

An architecture is `choice` `[E]` int32, the index of each edge's operation. A distribution over
architectures is `theta` `[E, K]`, softmaxed along its rows.

Letters in shapes: E edges, K candidates per edge.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxsafe.advantage_nas import operations as ops
from jaxsafe.advantage_nas import strings
from jaxsafe.advantage_nas.operations import Operation
from jaxsafe.core.checks import UserError, check_choice, check_once

Weights = Any
Loss = tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]


@dataclass(frozen=True, eq=False)
class Space:
    """A cell: node 0 is its input, and every other node combines what its edges bring.

    Attributes:
      name: for run folders and messages.
      num_nodes: of the cell, its input included.
      edges: `(from, to)` in the order of theta's rows; an edge leads to a later node.
      operations: candidates of every edge, in the order of theta's columns.
      combine: a node is the "sum" or the "mean" of its edges.
      output: the cell's output is its "last" node, or the "mean" of all but its input.

    Raises:
      UserError: an edge leads backwards, a node has none, or a name comes twice.
    """

    name: str
    num_nodes: int
    edges: tuple[tuple[int, int], ...]
    operations: tuple[Operation, ...]
    combine: str = "sum"
    output: str = "last"

    def __post_init__(self) -> None:
        check_once("operations", self.names)
        check_once("edges", [f"{a}>{b}" for a, b in self.edges])
        check_choice("combine", self.combine, ("sum", "mean"))
        check_choice("output", self.output, ("last", "mean"))
        for start, end in self.edges:
            if not 0 <= start < end < self.num_nodes:
                raise UserError(
                    f"edge {start}>{end} of space {self.name!r} is none between nodes 0 to "
                    f"{self.num_nodes - 1}: give (from, to) with from < to."
                )
        lonely = set(range(1, self.num_nodes)) - {end for _, end in self.edges}
        if lonely:
            raise UserError(
                f"node {min(lonely)} of space {self.name!r} has no edge: give it one, or lower "
                "num_nodes."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates, `[K]`."""
        return tuple(operation.name for operation in self.operations)

    @property
    def num_edges(self) -> int:
        """E."""
        return len(self.edges)

    @property
    def num_operations(self) -> int:
        """K."""
        return len(self.operations)

    @property
    def size(self) -> int:
        """Number of architectures, K^E."""
        return self.num_operations**self.num_edges

    @property
    def zero(self) -> int | None:
        """Column of the operation that returns zeros, or None."""
        found = [k for k, operation in enumerate(self.operations) if operation.is_zero]
        return found[0] if found else None

    def into(self, node: int) -> tuple[int, ...]:
        """Returns the indices of the edges that lead to a node."""
        return tuple(e for e, (_, end) in enumerate(self.edges) if end == node)


@dataclass(frozen=True, eq=False)
class Network:
    """A supernet: pure functions over the weights of all candidates, static under `jit`.

    Attributes:
      space: what is searched in it.
      init: `key -> weights`; consumes `key`.
      loss: `(weights, gates, choice, batch, half, carry, key) -> (loss [], (carry, metrics))`.
        `gates` `[E]` multiply the outputs of the sampled operations and are 1 at use; where
        `choice` is None, `gates` is a mixture `[E, K]` and every candidate runs. `half` says which
        gradients will be taken: "weights", "gates" or "both" (see `edges.edge`); the others are
        zero. `carry` goes from batch to batch, as the hidden state of a recurrent cell. `key` is
        for dropout; None leaves it out. `metrics` is a flat dict of scalars.
      init_carry: what the first batch is given.
    """

    space: Space
    init: Callable[[jax.Array], Weights]
    loss: Callable[..., Loss]
    init_carry: Callable[[], Any] = tuple

    @property
    def num_edges(self) -> int:
        """E."""
        return self.space.num_edges

    @property
    def num_ops(self) -> int:
        """K."""
        return self.space.num_operations

    def weight_loss(
        self,
        weights: Weights,
        choice: jax.Array,
        batch: Any,
        carry: Any = (),
        key: jax.Array | None = None,
    ) -> Loss:
        """Loss of the architecture `choice` `[E]`, to be differentiated by weights."""
        return self.loss(weights, jnp.ones(self.num_edges), choice, batch, "weights", carry, key)

    def gate_loss(
        self,
        weights: Weights,
        gates: jax.Array,
        choice: jax.Array,
        batch: Any,
        carry: Any = (),
        key: jax.Array | None = None,
    ) -> Loss:
        """Loss of the architecture `choice` `[E]`, to be differentiated by `gates` `[E]`."""
        return self.loss(weights, gates, choice, batch, "gates", carry, key)

    def dense_loss(
        self,
        weights: Weights,
        mixture: jax.Array,
        batch: Any,
        carry: Any = (),
        key: jax.Array | None = None,
    ) -> Loss:
        """Loss where each edge is the sum of its candidates, weighted by `mixture` `[E, K]`."""
        return self.loss(weights, mixture, None, batch, "both", carry, key)


def all_pairs(num_nodes: int) -> tuple[tuple[int, int], ...]:
    """Returns every edge of a cell, (0>1), (0>2), (1>2), (0>3) and so on."""
    return tuple((start, end) for end in range(1, num_nodes) for start in range(end))


NAS_BENCH_201 = strings.NB201_OPS
PTB = ("identity", "tanh", "sigmoid", "relu", "zero")


@functools.cache
def nas_bench_201(
    names: Sequence[str] = strings.PAPER_OPS,
    native: bool = False,
    reference_no_relu: bool = False,
    reference_pool: bool = False,
) -> Space:
    """The cell of NAS-Bench-201: 4 nodes, 6 edges.

    Args:
      names: its candidates; the paper searches without "none" (4^6 = 4,096 cells), the table holds
        all five (5^6 = 15,625).
      native: leave convolutions' gradients to JAX (for GPUs; see `nn.conv`).
      reference_no_relu: convolutions read their input without a ReLU, as the authors' code does
        (it computes the ReLU and drops it).
      reference_pool: means of the pooling count the zeros around the image, as the authors' code
        is believed to do.

    Raises:
      UserError: a name is unknown or comes twice.
    """
    made = {
        "skip_connect": lambda: ops.from_function("skip_connect", lambda x: x),
        "nor_conv_1x1": lambda: ops.conv_norm("nor_conv_1x1", 1, native, not reference_no_relu),
        "nor_conv_3x3": lambda: ops.conv_norm("nor_conv_3x3", 3, native, not reference_no_relu),
        "avg_pool_3x3": lambda: ops.mean_pool("avg_pool_3x3", reference_pool),
        "none": lambda: ops.zero("none"),
    }
    for name in names:
        check_choice("operation", name, made)
    return Space("nas_bench_201", 4, all_pairs(4), tuple(made[name]() for name in names))


@functools.cache
def ptb(num_inner: int = 3) -> Space:
    """The activations of the PTB cell's edges; `recurrent` holds the cell (page section 4.3)."""
    functions = (lambda x: x, jnp.tanh, jax.nn.sigmoid, jax.nn.relu)
    named = [ops.from_function(n, f) for n, f in zip(PTB[:4], functions, strict=True)]
    candidates = (*named, ops.zero("zero"))
    return Space("ptb", num_inner + 1, all_pairs(num_inner + 1), candidates, "mean", "mean")


def describe(space: Space) -> str:
    """One line: the space, its nodes, edges, candidates and size."""
    digits = f"{space.size:,}" if space.size < 1e9 else f"1e{math.log10(space.size):.1f}"
    return (
        f"{space.name}: {space.num_nodes} nodes, {space.num_edges} edges, "
        f"{space.num_operations} candidates ({', '.join(space.names)}), {digits} architectures"
    )
