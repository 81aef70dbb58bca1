# SPDX-License-Identifier: Apache-2.0
"""Rows of text to arrays, and the order in which updates see them."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.data.preferences import Labelled, Pair
from jaxsafe.lm import tokenizer as tokens
from jaxsafe.sacpo.config import Stage, interleaves
from jaxsafe.sacpo.types import Batch

Ids = Sequence[int]


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How rows are cut (`lm.tokenizer.truncate`)."""

    max_prompt: int
    max_length: int
    rule: str = "middle"


class Encoded(NamedTuple):
    """Data as arrays.

    Attributes:
      data: `[N, K, T]`, without references.
      prompts: ids of each row's prompt, for generation.
      truncated: rows of which something was cut.
    """

    data: Batch
    prompts: list[list[int]]
    truncated: int


def encode(
    rows: Iterable[Pair | Labelled | tuple[str, str]],
    tokenizer: Any,
    template: str,
    lengths: Lengths,
) -> Encoded:
    """Encodes pairs, labelled answers, or (prompt, answer) of demonstrations.

    Args:
      rows: all of one kind.
      tokenizer: from `lm.tokenizer.load`.
      template: `chat`, or a text with `{input}` in it.
      lengths: how rows are cut; T is `max_length`, or less where no row is that long.

    Raises:
      UserError: there are no rows, or a tokenizer or template that does not do.
    """
    rows = list(rows)
    if not rows:
        raise UserError("there are no rows to encode: give one at least.")
    cut, truncated = [], 0
    for row in rows:
        prompt = tokens.encode_prompt(tokenizer, row[0], template)
        answers = row[1:3] if isinstance(row, Pair) else row[1:2]
        sides = [
            tokens.truncate(
                prompt,
                tokens.encode_completion(tokenizer, str(answer)),
                lengths.max_prompt,
                lengths.max_length,
                lengths.rule,
            )
            for answer in answers
        ]
        truncated += any(side.truncated for side in sides)
        cut.append([(side.prompt, side.completion) for side in sides])
    labels = [row.desirable for row in rows if isinstance(row, Labelled)]
    data = arrays(cut)._replace(desirable=np.array(labels) if labels else None)
    return Encoded(data, [list(row[0][0]) for row in cut], truncated)


def arrays(rows: Sequence[Sequence[tuple[Ids, Ids]]], width: int | None = None) -> Batch:
    """(prompt, answer) ids, K for each row, as numpy `[N, K, T]`, padded on the right with 0."""
    longest = max(len(prompt) + len(answer) for row in rows for prompt, answer in row)
    shape = (len(rows), len(rows[0]), width or longest)
    ids, mask, completion = np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, bool)
    for n, row in enumerate(rows):
        for k, (prompt, answer) in enumerate(row):
            middle, end = len(prompt), len(prompt) + len(answer)
            ids[n, k, :end] = [*prompt, *answer]
            mask[n, k, :end] = True
            completion[n, k, middle:end] = True
    return Batch(ids, mask, completion)


def max_completion(data: Batch) -> int:
    """Most tokens of an answer."""
    return int(np.asarray(data.completion).sum(-1).max())


def shared_prompt(data: Batch) -> int | None:
    """Most tokens of a prompt, if in every row all answers have the same one; otherwise None."""
    ids, completion = np.asarray(data.ids), np.asarray(data.completion)
    prompt = np.asarray(data.mask) & ~completion
    starts = completion.argmax(-1)
    alike = (starts == starts[:, :1]).all() and (prompt.sum(-1) == starts).all()
    kept = np.where(prompt, ids, 0)
    alike = alike and (kept == kept[:, :1]).all()
    return int(starts.max()) if alike else None


def as_labelled(data: Batch) -> Batch:
    """Pairs `[N, 2, T]` as answers `[2 N, 1, T]`, desirable where they were chosen."""
    ids, mask, completion = (np.asarray(x).reshape(-1, 1, x.shape[-1]) for x in data[:3])
    return Batch(ids, mask, completion, np.tile([True, False], data.ids.shape[0]))


def joined(parts: Sequence[Batch]) -> Batch:
    """Data sets one after the other, padded to the longest."""
    width = max(part.ids.shape[-1] for part in parts)

    def stacked(*leaves: Any) -> Any:
        wide = [np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])]) for x in leaves]
        return np.concatenate(wide)

    ids, mask, completion = (
        stacked(*leaves) for leaves in zip(*(part[:3] for part in parts), strict=True)
    )
    labels = [part.desirable for part in parts if part.desirable is not None]
    return Batch(ids, mask, completion, np.concatenate(labels) if labels else None)


def with_mismatches(data: Batch) -> Batch:
    """KTO's data `[N, 1, T]` with each prompt and the next row's answer beside it, `[N, 2, T]`.

    For cached references, which need a pairing that stays; otherwise the update draws one itself.
    """
    rows = []
    for n in range(data.ids.shape[0]):
        other = (n + 1) % data.ids.shape[0]
        own, strange = (data.ids[m, 0][data.completion[m, 0]].tolist() for m in (n, other))
        prompt = data.ids[n, 0][data.mask[n, 0] & ~data.completion[n, 0]].tolist()
        room = data.ids.shape[-1] - len(prompt)
        rows.append([(prompt, own), (prompt, strange[:room])])
    return arrays(rows, data.ids.shape[-1])._replace(desirable=data.desirable)


class Order(NamedTuple):
    """Which rows an update takes: `take(key, step) -> [B]`, and how many updates a pass has."""

    take: Callable[[jax.Array, jax.Array], jax.Array]
    per_epoch: int


def order(data: Batch, stage: Stage) -> Order:
    """Rows shuffled anew in each pass; what does not fill a batch waits for the next shuffle.

    Raises:
      UserError: fewer rows than a batch has, or of one kind none where batches hold both.
    """
    size, rows = stage.batch_size, data.ids.shape[0]
    if not interleaves(stage):
        return _shuffled([np.arange(rows)], [size])
    kinds = [np.flatnonzero(np.asarray(data.desirable) == kind) for kind in (True, False)]
    if not all(len(kind) for kind in kinds):
        raise UserError(
            f"kto_balance={stage.kto_balance!r} needs both kinds: there are {len(kinds[0])} "
            f"desirable and {len(kinds[1])} undesirable rows."
        )
    return _shuffled(kinds, [size // 2, size // 2])


def _shuffled(kinds: Sequence[np.ndarray], sizes: Sequence[int]) -> Order:
    """Batches of `sizes` of each kind; a pass is one over the largest kind."""
    per_epoch = max(len(kind) // size for kind, size in zip(kinds, sizes, strict=True))
    if not per_epoch:
        raise UserError(
            f"{sum(map(len, kinds))} rows do not fill a batch of {sum(sizes)}: lower batch_size."
        )

    def take(key: jax.Array, step: jax.Array) -> jax.Array:
        epoch, number = step // per_epoch, step % per_epoch
        taken = []
        for i, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
            key_kind = jax.random.fold_in(jax.random.fold_in(key, i), epoch)
            rows = jax.random.permutation(key_kind, jnp.asarray(kind))
            # The smaller kind comes round more than once in a pass.
            slots = (number * size + jnp.arange(size)) % len(kind)
            taken.append(rows[slots])
        return jnp.concatenate(taken)

    return Order(take, per_epoch)


def rows_at(data: Batch, rows: jax.Array, reference: jax.Array | None = None) -> Batch:
    """The batch of some rows `[B]` of the data, with their references `[N, K]` if there are any."""
    batch = jax.tree.map(lambda x: jnp.take(x, rows, axis=0), data)
    return batch if reference is None else batch._replace(reference=reference[rows])
