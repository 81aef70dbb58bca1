# SPDX-License-Identifier: Apache-2.0
"""The recurrent supernet of the Penn Treebank search (authors' code, ptb/cell.py and default.py).

A step reads a word x and the hidden state h:

    c0 = sigmoid(Wxc x + Whc h),  h0 = tanh(Wxh x + Whh h),  node 0 = h + c0 (h0 - h)
    edge j>i:  c = sigmoid(Wc node_j),  u = gate * op(Wh node_j),  brings node_j + c (u - node_j)
    node i = mean of what its edges bring;  h' = mean of all nodes but node 0

Matrices belong to edges, not to operations. The gate multiplies u alone, so that "zero" leaves
`(1 - c) node_j`. Their batch norm is declared and bypassed; here there is none.

Letters in shapes: T words of a chunk, B streams, V vocabulary, D units, E edges, K candidates.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxsafe.advantage_nas import edges
from jaxsafe.advantage_nas.space import Network, Space, Weights
from jaxsafe.core.checks import UserError, check_range


@dataclass(frozen=True)
class Language:
    """What stands around the cell; the defaults are the authors'.

    Attributes:
      vocabulary: V.
      streams: B, whose hidden states are carried from chunk to chunk.
      units: D, of the embedding and of the cell.
      dropout: share of embedded words' and of outputs' entries dropped while training.
      spread: weights start uniformly within +- this.
      sum_loss: the loss is the sum over a chunk's T words, as theirs (clips and rates then go with
        T), not their mean.
    """

    vocabulary: int
    streams: int = 256
    units: int = 300
    dropout: float = 0.5
    spread: float = 0.1
    sum_loss: bool = True

    def __post_init__(self) -> None:
        for name in ("vocabulary", "streams", "units"):
            check_range(name, getattr(self, name), low=1)
        check_range("dropout", self.dropout, 0, 0.99)


@functools.cache
def recurrent_network(space: Space, language: Language) -> Network:
    """Returns the supernet of `space`; a batch is a `data.text.Chunk`, words `[T, B]` twice.

    The loss is in nats, per stream, over a chunk (see `Language.sum_loss`); `nats` per word and
    `perplexity`, their exponential, are its metrics. `carry` is the hidden state `[B, D]`, cut from
    the gradient. Without a key nothing is dropped.

    Raises:
      UserError: an operation of the space has weights, or changes shapes.
    """
    node = jax.ShapeDtypeStruct((1, language.units), jnp.float32)
    for operation in space.operations:
        if jax.tree.leaves(jax.eval_shape(operation.init, jax.random.key(0), node)):
            raise UserError(
                f"operation {operation.name!r} has weights: the recurrent cell's are of edges, "
                "give it operations without."
            )

    def loss(weights, gates, choice, batch, half="both", carry=None, key=None):
        tokens, targets = batch
        hidden = init_carry() if carry is None else carry
        logits, hidden = run(space, language, weights, gates, choice, tokens, hidden, half, key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        nats = jnp.mean(losses)
        value = nats * tokens.shape[0] if language.sum_loss else nats
        return value, (lax.stop_gradient(hidden), {"nats": nats, "perplexity": jnp.exp(nats)})

    def init_carry() -> jax.Array:
        return jnp.zeros((language.streams, language.units))

    return Network(space, lambda key: init_weights(key, space, language), loss, init_carry)


def init_weights(key: jax.Array, space: Space, language: Language) -> Weights:
    """Returns all weights; those of edges are `[E, D, 2 D]`, of c and of u. `key` is consumed."""
    size = language.units
    shapes: dict[str, tuple[int, ...]] = {}
    shapes["embedding"] = (language.vocabulary, size)
    shapes["words"] = shapes["hidden"] = (size, 2 * size)
    shapes["edges"] = (space.num_edges, size, 2 * size)
    shapes["decoder"] = (size, language.vocabulary)
    shapes["bias"] = (language.vocabulary,)
    bound = language.spread
    return {
        name: jax.random.uniform(jax.random.fold_in(key, i), shape, jnp.float32, -bound, bound)
        for i, (name, shape) in enumerate(shapes.items())
    }


def run(
    space: Space,
    language: Language,
    weights: Weights,
    gates: jax.Array,
    choice: Any,
    tokens: jax.Array,
    hidden: jax.Array,
    half: str = "both",
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns logits `[T, B, V]` and the hidden state after the chunk `[B, D]`.

    Args:
      space: of the cell.
      language: around it.
      weights: of `init_weights`.
      gates: `[E]`, or a mixture `[E, K]` where `choice` is None.
      choice: `[E]` int32; a tuple of Python ints where it is known when compiling.
      tokens: `[T, B]`.
      hidden: `[B, D]`.
      half: which gradients will be taken; see `edges.edge`.
      key: of dropout, consumed; None drops nothing.
    """
    edges.check_architecture(space, gates, choice)
    words = weights["embedding"][tokens]
    if key is not None:
        word_key, out_key = jax.random.split(key)
        words = _drop(word_key, words, language.dropout)
    read = words @ weights["words"]  # of all words at once, since none waits for the state

    def step(hidden: jax.Array, read: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = cell(space, weights, gates, choice, read, hidden, half)
        return hidden, hidden

    hidden, outputs = lax.scan(step, hidden, read)
    if key is not None:
        outputs = _drop(out_key, outputs, language.dropout)
    return outputs @ weights["decoder"] + weights["bias"], hidden


def cell(
    space: Space,
    weights: Weights,
    gates: jax.Array,
    choice: Any,
    read: jax.Array,
    hidden: jax.Array,
    half: str = "both",
) -> jax.Array:
    """The next hidden state `[B, D]`, given `read = Wx x` `[B, 2 D]` and `hidden` `[B, D]`."""
    carry, new = jnp.split(read + hidden @ weights["hidden"], 2, axis=-1)
    nodes = [_between(hidden, carry, jnp.tanh(new))]
    gate_of = edges.unstack(gates, space.num_edges)
    nothing = ((),) * space.num_operations
    brought: dict[int, list[jax.Array]] = {node: [] for node in range(space.num_nodes)}
    for start in range(space.num_nodes):
        if start:
            nodes.append(sum(brought[start][1:], brought[start][0]) / len(brought[start]))
        for e, (source, end) in enumerate(space.edges):
            if source == start:
                carry, raw = jnp.split(nodes[start] @ weights["edges"][e], 2, axis=-1)
                which = None if choice is None else choice[e]
                new = edges.edge(space.operations, nothing, gate_of[e], which, raw, half)
                brought[end].append(_between(nodes[start], carry, new))
    return sum(nodes[2:], nodes[1]) / (space.num_nodes - 1)


def _between(old: jax.Array, carry: jax.Array, new: jax.Array) -> jax.Array:
    return old + jax.nn.sigmoid(carry) * (new - old)


def _drop(key: jax.Array, x: jax.Array, share: float) -> jax.Array:
    kept = jax.random.bernoulli(key, 1 - share, x.shape)
    return jnp.where(kept, x / (1 - share), 0)


def used_parameters(space: Space, language: Language, choice: Any) -> int:
    """Numbers that the architecture `choice` `[E]` reads: of "zero" edges the matrix of c alone.

    Their tables count every edge but "identity" alike, though identity edges run both matrices and
    zero edges one.
    """
    size = language.units
    cell_size = sum(size * size * (1 if space.operations[int(k)].is_zero else 2) for k in choice)
    around = 2 * language.vocabulary * size + language.vocabulary + 4 * size * size
    return cell_size + around
