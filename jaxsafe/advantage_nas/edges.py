# SPDX-License-Identifier: Apache-2.0
"""Sparse propagation: of every edge only the sampled operation runs and is stored.

A plain `lax.switch` under autodiff keeps what every branch would need. An edge here keeps its
input, its output and a few statistics, and has a backward pass for each half of a search step: the
weight half has no use for gradients of gates, the architecture half none for those of weights.

Letters in shapes: E edges, K candidates per edge, `[...]` a node's shape.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.advantage_nas.operations import Operation
from jaxsafe.advantage_nas.space import Space, Weights
from jaxsafe.core.checks import UserError, check_choice

HALVES = ("both", "weights", "gates")
Operations = tuple[Operation, ...]


def edge(
    operations: Operations,
    weights: Sequence[Weights],
    gate: jax.Array,
    choice: jax.Array | int | None,
    x: jax.Array,
    half: str = "both",
) -> jax.Array:
    """What an edge brings: `gate * operation(x)`, `[...]`.

    Args:
      operations: the K candidates.
      weights: theirs, in that order.
      gate: `[]`, 1 at use; where `choice` is None, a mixture `[K]`.
      choice: `[]` int32, which candidate runs, the same program for all; a Python int is known when
        compiling; None runs every candidate.
      x: `[...]`.
      half: gradients that will be taken, beside that of `x`: "weights", "gates" or "both"; the
        others come out as zeros. A mixture has all.
    """
    if choice is None:
        outs = [op.apply(w, x) for op, w in zip(operations, weights, strict=True)]
        shares = unstack(gate, len(outs))
        return jnp.asarray(sum(m * out for m, out in zip(shares, outs, strict=True)))
    if isinstance(choice, int):
        return gate * operations[choice].apply(weights[choice], x)
    return _sparse(operations, half, tuple(weights), gate, choice, x)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sparse(operations, half, weights, gate, choice, x):
    return gate * chosen(operations, weights, choice, x)[0]


def chosen(
    operations: Operations, weights: Sequence[Weights], choice: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Output `[...]` and statistics of the operation `choice` `[]`; not to be differentiated."""
    shape = _statistics_shape(operations, weights, x)

    def branch(k):
        def run(weights, x):
            if operations[k].forward is not None:
                return operations[k].forward(weights[k], x)
            return operations[k].apply(weights[k], x), jnp.zeros(shape.shape, shape.dtype)

        return run

    branches = [branch(k) for k in range(len(operations))]
    return lax.switch(choice, branches, tuple(weights), x)


def frozen(
    operations: Operations,
    weights: Sequence[Weights],
    choice: jax.Array,
    x: jax.Array,
    statistics: jax.Array,
) -> jax.Array:
    """Output `[...]` of the operation `choice` `[]` with statistics from elsewhere."""

    def branch(k):
        def run(weights, x, statistics):
            if operations[k].frozen is not None:
                return operations[k].frozen(weights[k], x, statistics)
            return operations[k].apply(weights[k], x)

        return run

    branches = [branch(k) for k in range(len(operations))]
    return lax.switch(choice, branches, tuple(weights), x, statistics)


def _statistics_shape(operations, weights, x) -> jax.ShapeDtypeStruct:
    for operation, w in zip(operations, weights, strict=True):
        if operation.forward is not None:
            return jax.eval_shape(operation.forward, w, x)[1]
    return jax.ShapeDtypeStruct((0,), x.dtype)


def _sparse_forward(operations, half, weights, gate, choice, x):
    y, statistics = chosen(operations, weights, choice, x)
    return gate * y, (weights, gate, choice, x, y, statistics)


def _sparse_backward(operations, half, saved, g):
    weights, gate, choice, x, y, statistics = saved
    with_weights = half != "gates"
    branches = [_backward_branch(operations, k, with_weights) for k in range(len(operations))]
    dweights, dx = lax.switch(choice, branches, weights, x, y, statistics, gate, g)
    dgate = jnp.zeros_like(gate) if half == "weights" else jnp.vdot(g, y).astype(gate.dtype)
    return dweights, dgate, None, dx


def _backward_branch(operations, k, with_weights):
    """`(weights, x, y, statistics, gate, g) -> (d weights of all candidates or None, dx)`."""
    operation = operations[k]

    def run(weights, x, y, statistics, gate, g):
        g = gate * g
        if operation.is_zero:
            dweight, dx = jax.tree.map(jnp.zeros_like, weights[k]), jnp.zeros_like(x)
        elif operation.backward is not None:
            dweight, dx = operation.backward(weights[k], x, y, statistics, g, with_weights)
        elif with_weights:
            dweight, dx = jax.vjp(operation.apply, weights[k], x)[1](g)
        else:
            dweight, (dx,) = None, jax.vjp(partial(operation.apply, weights[k]), x)[1](g)
        if not with_weights:
            return None, dx
        zeros = [jax.tree.map(jnp.zeros_like, w) for w in weights]
        return (*zeros[:k], dweight, *zeros[k + 1 :]), dx

    return run


_sparse.defvjp(_sparse_forward, _sparse_backward)


def init_cell(key: jax.Array, space: Space, x: Any) -> tuple[Weights, ...]:
    """Returns weights of all candidates of all edges: one entry per candidate, leaves `[E, ...]`.

    Args:
      key: consumed.
      space: of the cell.
      x: a node `[...]`, or its shape and type as `jax.ShapeDtypeStruct`.

    Raises:
      UserError: an operation's output has another shape or type than its input.
    """
    x = jnp.zeros(x.shape, x.dtype)
    weights = []
    for k, operation in enumerate(space.operations):
        keys = jax.random.split(jax.random.fold_in(key, k), space.num_edges)
        made = jax.vmap(operation.init, (0, None))(keys, x)
        out = jax.eval_shape(operation.apply, jax.tree.map(lambda w: w[0], made), x)
        if (out.shape, out.dtype) != (x.shape, x.dtype):
            raise UserError(
                f"operation {operation.name!r} makes {out.dtype}{list(out.shape)} of "
                f"{x.dtype}{list(x.shape)}: an operation keeps the shape and type of its input."
            )
        weights.append(made)
    return tuple(weights)


def cell(
    space: Space,
    weights: Sequence[Weights],
    gates: jax.Array,
    choice: Any,
    x: jax.Array,
    half: str = "both",
    edge: Callable[..., jax.Array] = edge,
) -> jax.Array:
    """Output `[...]` of a cell for its input `x` `[...]`.

    Args:
      space: of the cell.
      weights: as `init_cell` returns them.
      gates: `[E]`, or a mixture `[E, K]` where `choice` is None.
      choice: `[E]` int32; a tuple of Python ints where the architecture is known when compiling.
      x: the cell's input.
      half: see `edge`.
      edge: what an edge brings, with the arguments of `edge` above.

    Raises:
      UserError: `half` is unknown, or gates or choice have another shape than they must.
    """
    check_choice("half", half, HALVES)
    check_architecture(space, gates, choice)
    of_edge = unstack(tuple(weights), space.num_edges)
    gate_of = unstack(gates, space.num_edges)
    nodes = [x]
    for node in range(1, space.num_nodes):
        brought = [
            edge(
                space.operations,
                of_edge[e],
                gate_of[e],
                None if choice is None else choice[e],
                nodes[space.edges[e][0]],
                half,
            )
            for e in space.into(node)
        ]
        total = sum(brought[1:], brought[0])
        nodes.append(total / len(brought) if space.combine == "mean" else total)
    if space.output == "last":
        return nodes[-1]
    return sum(nodes[2:], nodes[1]) / (space.num_nodes - 1)


def check_architecture(space: Space, gates: jax.Array, choice: Any) -> None:
    """Raises `UserError` unless gates and choice fit the space (shapes only)."""
    edges, size = space.num_edges, space.num_operations
    wanted = (edges, size) if choice is None else (edges,)
    if jnp.shape(gates) != wanted:
        raise UserError(
            f"gates {jnp.shape(gates)} do not fit space {space.name!r}: give {wanted} "
            f"({'a mixture, since choice is None' if choice is None else 'one per edge'})."
        )
    if choice is not None and np.shape(choice) != (edges,):
        raise UserError(
            f"choice {np.shape(choice)} does not fit space {space.name!r}: give ({edges},)."
        )


def unstack(tree: Any, size: int) -> list[Any]:
    """Splits every leaf `[size, ...]` into `size` leaves `[...]`.

    Its gradient is one concatenation, where that of indexing is a sum of padded arrays.
    """
    leaves, structure = jax.tree.flatten(tree)
    parts = [lax.split(leaf, [1] * size) for leaf in leaves]
    return [
        jax.tree.unflatten(structure, [lax.squeeze(part[i], (0,)) for part in parts])
        for i in range(size)
    ]
