# SPDX-License-Identifier: Apache-2.0
"""Arrays of rows, and an order that sees every row once a pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data.preferences import Labelled, Pair
from jaxsafe.lm import tiny
from jaxsafe.sacpo import batches
from jaxsafe.sacpo.batches import Lengths
from jaxsafe.sacpo.config import Stage

from .rows import some

TEMPLATE = "USER: {input} ASSISTANT:"


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.train_tokenizer(["USER: say red ASSISTANT: red and blue"] * 3, 300)


def text(tokenizer, ids, where):
    return tokenizer.decode(np.asarray(ids)[np.asarray(where)])


def test_a_pair_is_two_sequences_with_one_prompt(tokenizer):
    rows = [Pair("say red", " red", " blue"), Pair("say", " red and blue", " red")]
    encoded = batches.encode(rows, tokenizer, TEMPLATE, Lengths(32, 64))
    data = encoded.data
    assert data.ids.shape[:2] == (2, 2) and encoded.truncated == 0 and data.desirable is None
    for n, row in enumerate(rows):
        for k, answer in enumerate(row[1:]):
            prompt = data.mask[n, k] & ~data.completion[n, k]
            said = f"<s>USER: {row.prompt} ASSISTANT:"
            assert text(tokenizer, data.ids[n, k], prompt) == said
            assert text(tokenizer, data.ids[n, k], data.completion[n, k]) == f"{answer}</s>"
            assert data.ids[n, k][prompt].tolist() == encoded.prompts[n]
    assert batches.max_completion(data) == data.completion.sum(-1).max()


def test_labels_come_along_and_cuts_are_counted(tokenizer):
    rows = [Labelled("say red " * 9, " red", True), Labelled("say", " red", False)]
    encoded = batches.encode(rows, tokenizer, TEMPLATE, Lengths(8, 16))
    assert encoded.data.desirable.tolist() == [True, False] and encoded.truncated == 1
    assert encoded.data.ids.shape[-1] <= 16
    with pytest.raises(UserError, match="there are no rows"):
        batches.encode([], tokenizer, TEMPLATE, Lengths(8, 16))


def test_pairs_as_labels_and_data_side_by_side():
    data = some(3, 2)
    flat = batches.as_labelled(data)
    np.testing.assert_array_equal(flat.ids[:, 0], data.ids.reshape(6, -1))
    assert flat.desirable.tolist() == [True, False] * 3
    both = batches.joined([data, some(2, 2, width=12)])
    assert both.ids.shape == (5, 2, 12) and not both.mask[:3, :, 9:].any()


def test_a_pass_sees_every_row_once_and_the_next_one_otherwise():
    order = batches.order(some(12), Stage(batch_size=4))
    assert order.per_epoch == 3
    key = jax.random.key(0)
    take = jax.jit(order.take)
    epochs = [
        np.concatenate([take(key, jnp.int32(step)) for step in range(3 * e, 3 * e + 3)])
        for e in range(2)
    ]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert not np.array_equal(*epochs)


def test_interleaved_batches_hold_half_of_each_kind():
    data = some(10)._replace(desirable=np.arange(10) < 3)
    order = batches.order(data, Stage(loss="kto", kto_balance="interleave", batch_size=4))
    assert order.per_epoch == 3
    rows = np.stack([order.take(jax.random.key(0), jnp.int32(s)) for s in range(3)])
    assert (data.desirable[rows].sum(1) == 2).all()
    assert len(set(rows[:, 2:].reshape(-1))) == 6
    with pytest.raises(UserError, match="there are 10 desirable and 0 undesirable rows"):
        batches.order(
            data._replace(desirable=np.ones(10, bool)),
            Stage(loss="kto", kto_balance="both", batch_size=4),
        )


def test_too_few_rows_are_named():
    with pytest.raises(UserError, match="3 rows do not fill a batch of 4"):
        batches.order(some(3), Stage(batch_size=4))
