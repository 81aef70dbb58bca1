# SPDX-License-Identifier: Apache-2.0
"""Cells as strings of NAS-Bench-201's form.

A cell of N nodes has an edge from every node to every later one, in the order (0>1), (0>2), (1>2),
(0>3), (1>3), (2>3); its string names the operations node by node:

    |op~0|+|op~0|op~1|+|op~0|op~1|op~2|
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from jaxsafe.core.checks import UserError, did_you_mean

# The paper's search leaves out the last, whose output is 0.
NB201_OPS = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3", "none")
PAPER_OPS = NB201_OPS[:4]


def num_nodes(num_edges: int) -> int:
    """Nodes of a cell of `num_edges` edges, the input included.

    Raises:
      UserError: no cell has so many edges.
    """
    nodes = (1 + math.isqrt(1 + 8 * num_edges)) // 2
    if num_edges < 1 or nodes * (nodes - 1) // 2 != num_edges:
        raise UserError(
            f"{num_edges} edges make no cell: give 1, 3, 6, 10 or another n (n - 1) / 2."
        )
    return nodes


def edges(nodes: int) -> list[tuple[int, int]]:
    """The edges (from, to) of a cell in their order."""
    return [(j, i) for i in range(1, nodes) for j in range(i)]


def encode(choice: Sequence[int] | np.ndarray, ops: Sequence[str] = NB201_OPS) -> str:
    """The string of an architecture `[E]` of indices into `ops`.

    Raises:
      UserError: no cell has E edges, or an index is no operation.
    """
    indices = [int(k) for k in np.asarray(choice).reshape(-1)]
    nodes = num_nodes(len(indices))
    for edge, k in enumerate(indices):
        if not 0 <= k < len(ops):
            raise UserError(f"choice[{edge}]={k} is no operation: give 0 to {len(ops) - 1}.")
    names = iter(indices)
    parts = ["".join(f"{ops[next(names)]}~{j}|" for j in range(i)) for i in range(1, nodes)]
    return "+".join(f"|{part}" for part in parts)


def decode(text: str, ops: Sequence[str] = NB201_OPS) -> np.ndarray:
    """The architecture `[E]` int32 of a string; `encode` inverts it.

    Raises:
      UserError: the string has another form, or an operation that is not among `ops`.
    """
    choice = []
    for i, part in enumerate(text.split("+"), 1):
        entries = re.findall(r"([^|~]+)~(\d+)\|", part)
        whole = "|" + "".join(f"{op}~{source}|" for op, source in entries)
        if part != whole or [source for _, source in entries] != [str(j) for j in range(i)]:
            raise UserError(
                f"{text!r} is no cell at {part!r}: give |op~0| for node 1, |op~0|op~1| for node 2 "
                "and so on, joined by +."
            )
        for op, _ in entries:
            if op not in ops:
                hint = did_you_mean(op, ops)
                raise UserError(f"{op!r} in {text!r} is no operation of {', '.join(ops)}.{hint}")
            choice.append(ops.index(op))
    return np.array(choice, np.int32)
