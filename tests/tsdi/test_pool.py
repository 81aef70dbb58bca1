# SPDX-License-Identifier: Apache-2.0
"""Pools of tokens and the prompts made of them."""

import jax
import numpy as np
import pytest

from jaxsafe import tsdi
from jaxsafe.core.checks import UserError
from jaxsafe.tsdi import pool

CONFIG = tsdi.Config(positions=2, draws=50, prompt_length=3, batch_size=50)


def encode(text):
    return [ord(c) - ord("a") for c in text if c != " "]


def test_special_tokens_are_never_drawn():
    ids = pool.vocabulary(10, {0, 3, 9})
    assert ids.tolist() == [1, 2, 4, 5, 6, 7, 8]
    batch = pool.batch(jax.random.key(0), ids, pool.Template((0, 3), (9,)), CONFIG)
    assert batch.ids.shape == (50, 2 + 3 + 1 + 2) and batch.mask.all()
    words = np.asarray(batch.ids)[:, [2, 3, 4, 6, 7]]
    assert set(words.ravel()) == set(ids.tolist())
    assert (batch.ids[:, :2] == np.array([0, 3])).all() and (batch.ids[:, 5] == 9).all()


def test_texts_count_as_often_as_they_are_there(tmp_path):
    assert pool.of_texts(["ab a", "c"], encode, 5, {2}).tolist() == [0, 1, 0]
    (tmp_path / "words.txt").write_text("ab a")
    assert pool.of_file(tmp_path / "words.txt", encode, 5, ()).tolist() == [0, 1, 0]


def test_pools_that_cannot_be_drawn_from_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    for call, words in (
        (lambda: pool.of_file(tmp_path / "empty.txt", encode, 5, ()), "empty.txt holds no token"),
        (lambda: pool.of_file(tmp_path / "bytes.txt", encode, 5, ()), "Name a text file in UTF-8"),
        (lambda: pool.of_file(tmp_path / "none.txt", encode, 5, ()), "none.txt"),
        (lambda: pool.vocabulary(2, {0, 1}), "the vocabulary holds no token"),
        (lambda: pool.of_texts(["z"], encode, 5, ()), "id 25 is outside of the 5 tokens"),
    ):
        with pytest.raises(UserError, match=words):
            call()


def test_draws_are_whole_batches():
    with pytest.raises(UserError, match=r"does not divide bias.draws=10: set draws to 12"):
        tsdi.validate(tsdi.Config(draws=10, batch_size=4))
