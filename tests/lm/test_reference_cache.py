# SPDX-License-Identifier: Apache-2.0
"""The reference cache: bit for bit, gone on with, and refused with the reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.lm import logprobs
from jaxsafe.lm import reference_cache as cache_lib
from tests.lm import models

CONFIG = models.FAMILIES["llama"]
KEY = {"model": "abc", "template": "plain", "lengths": "4,12"}
COLUMNS = ("chosen", "rejected")
N, BATCH = 10, 4


@pytest.fixture(scope="module")
def world():
    """Ids of ten rows, and their scores by a model, four rows at a time."""
    params, ids = models.params(CONFIG), np.asarray(models.tokens(CONFIG, (N, 2, 8)))
    mask = jnp.ones((2 * BATCH, 8), bool)
    completion = mask & (jnp.arange(8) >= 3)
    score = jax.jit(lambda x: logprobs.sums(CONFIG, params, x, mask, completion))

    def compute(begin, end):
        rows = ids[begin:end]
        padded = np.zeros((BATCH, 2, 8), np.int32)
        padded[: end - begin] = rows
        return np.asarray(score(padded.reshape(-1, 8))).reshape(BATCH, 2)[: end - begin]

    names = [cache_lib.row_id(row[0, :3], row[0, 3:], row[1, 3:]) for row in ids]
    return names, compute


class KilledError(Exception):
    """Stands for a kill."""


def test_cached_values_are_the_online_ones_to_the_bit(world, tmp_path):
    names, compute = world
    told = []
    cache = cache_lib.fill(
        tmp_path / "c", KEY, COLUMNS, names, compute, BATCH, lambda *x: told.append(x)
    )
    online = np.concatenate([compute(i, min(i + BATCH, N)) for i in range(0, N, BATCH)])
    assert cache.values.dtype == np.float32 and (cache.values == online).all()
    assert len(np.unique(online)) == 2 * N and told == [(4, 10), (8, 10), (10, 10)]
    assert isinstance(cache.values.base, np.memmap) and not cache.values.flags.writeable
    looked: list[int] = []
    again = cache_lib.fill(
        tmp_path / "c", KEY, COLUMNS, names, lambda b, e: looked.append(b) or compute(b, e), BATCH
    )
    # Of a whole cache two rows are looked at, each in its batch.
    assert (again.values == online).all() and looked == [0, 8]


def never(*_):
    raise AssertionError("computed again")


@pytest.mark.parametrize("extra", [0, 30])
def test_a_killed_writer_is_gone_on_with(world, tmp_path, extra):
    """After two of three batches, with or without a part of a further row on disk."""
    names, compute = world
    begun = []

    def killed(begin, end):
        begun.append(begin)
        if begin == 8:
            raise KilledError
        return compute(begin, end)

    with pytest.raises(KilledError):
        cache_lib.fill(tmp_path, KEY, COLUMNS, names, killed, BATCH)
    with pytest.raises(UserError, match="holds 8 of 10 rows: go on"):
        cache_lib.load(tmp_path, KEY, COLUMNS, names)
    with (tmp_path / "rows.bin").open("ab") as file:
        file.write(b"x" * extra)
    begun.clear()
    cache = cache_lib.fill(
        tmp_path, KEY, COLUMNS, names, lambda b, e: begun.append(b) or compute(b, e), BATCH
    )
    assert begun == [8]
    whole = cache_lib.fill(tmp_path / "whole", KEY, COLUMNS, names, compute, BATCH)
    assert (cache.values == whole.values).all()


def test_another_key_column_or_row_is_refused_with_the_reason(world, tmp_path):
    names, compute = world
    cache_lib.fill(tmp_path, KEY, COLUMNS, names, compute, BATCH)
    other = [names[1], names[0], *names[2:]]
    for key, columns, rows, message in (
        (KEY | {"template": "chat"}, COLUMNS, names, "key.template='plain', now it is 'chat'"),
        (KEY | {"dtype": "bf16"}, COLUMNS, names, "key.dtype=None, now it is 'bf16'"),
        ({"model": "abc"}, COLUMNS, names, "key.lengths='4,12', now it is None"),
        (KEY, ("chosen",), names, r"columns=\['chosen', 'rejected'\], now it is \['chosen'\]"),
        (KEY, COLUMNS, names[:-1], "rows=10, now it is 9"),
        (KEY, COLUMNS, other, "row 0 of the reference cache .* is of other tokens"),
    ):
        for act in (
            lambda k, c, r: cache_lib.load(tmp_path, k, c, r),
            lambda k, c, r: cache_lib.fill(tmp_path, k, c, r, never, BATCH),
        ):
            with pytest.raises(UserError, match=message):
                act(key, columns, rows)


def test_damage_is_found(world, tmp_path):
    names, compute = world
    cache_lib.fill(tmp_path, KEY, COLUMNS, names, compute, BATCH)
    path = tmp_path / "rows.bin"
    data = bytearray(path.read_bytes())
    data[28 * 3 + 18] ^= 1  # a value's bit in row 3
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"row 3 of the reference cache .* is damaged"):
        cache_lib.load(tmp_path, KEY, COLUMNS, names)
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(UserError, match=r"meta\.json is no reference cache's"):
        cache_lib.load(tmp_path, KEY, COLUMNS, names)
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("")
    with pytest.raises(UserError, match="is not empty and holds no reference cache"):
        cache_lib.fill(other, KEY, COLUMNS, names, compute, BATCH)


def test_a_spot_check_finds_another_model(world, tmp_path):
    names, compute = world
    cache = cache_lib.fill(tmp_path, KEY, COLUMNS, names, compute, BATCH)
    cache_lib.spot_check(cache, compute, [0, 9])
    with pytest.raises(UserError, match=r"row 9 of the reference cache .* differs by 0.01"):
        cache_lib.spot_check(cache, lambda b, e: compute(b, e) + 0.01 * (b == 9), [0, 9])
    with pytest.raises(UserError, match=r"row 0 of the reference cache .* differs by 0.01"):
        cache_lib.fill(tmp_path, KEY, COLUMNS, names, lambda b, e: compute(b, e) + 0.01, BATCH)


def test_fingerprints_tell_any_change_apart(tmp_path):
    params = models.params(CONFIG)
    same = jax.tree.map(jnp.array, params)
    first = cache_lib.fingerprint_tree(params)
    assert first == cache_lib.fingerprint_tree(same)
    small = same | {"final_norm": same["final_norm"].at[0].multiply(1 + 1e-6)}
    renamed = {"final" if k == "final_norm" else k: v for k, v in same.items()}
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), same)
    others = [cache_lib.fingerprint_tree(tree) for tree in (small, renamed, half)]
    assert len({first, *others}) == 4
    (tmp_path / "a").write_text("1")
    one = cache_lib.fingerprint_files(tmp_path / "a")
    (tmp_path / "a").write_text("2")
    assert one != cache_lib.fingerprint_files(tmp_path / "a")
    assert cache_lib.row_id([1, 2], [3]) != cache_lib.row_id([1], [2, 3])
