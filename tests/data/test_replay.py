# SPDX-License-Identifier: Apache-2.0
"""The ring buffer against a deque, one seed or many."""

import re
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsafe.core.checks import UserError
from jaxsafe.data import replay


def items(first, num):
    """Transitions numbered from `first`: a pair of leaves that must stay together."""
    number = np.arange(first, first + num)
    return {"x": jnp.float32(number[:, None] + [0.0, 0.5]), "n": jnp.int32(number)}


EXAMPLE = {"x": jnp.zeros(2), "n": jnp.int32(0)}


@settings(max_examples=40, deadline=None)
@given(num=st.integers(1, 5), slots=st.integers(1, 5), writes=st.integers(0, 13))
def test_it_holds_the_newest_items_as_a_deque_does(num, slots, writes):
    capacity = num * slots
    buffer, model = replay.empty(EXAMPLE, capacity), deque(maxlen=capacity)
    for i in range(writes):
        buffer = replay.write(buffer, items(i * num, num), i * num)
        model.extend(range(i * num, (i + 1) * num))
    filled = len(model)
    stored = np.asarray(buffer["n"][:filled])
    assert sorted(stored.tolist()) == sorted(model)
    np.testing.assert_array_equal(buffer["x"][:filled], stored[:, None] + [0.0, 0.5])
    assert not np.any(buffer["x"][filled:]) and buffer["n"].shape == (capacity,)
    # Slot by slot: each item sits where its number says.
    assert all(stored[number % capacity] == number for number in model)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 25), skip_last=st.booleans(), seed=st.integers(0, 1000))
def test_draws_come_from_what_was_written(count, skip_last, seed):
    buffer = replay.empty(EXAMPLE, 10)
    for i in range(0, count + (-count) % 5, 5):
        buffer = replay.write(buffer, items(100 + i, 5), i)
    index = replay.indices(jax.random.key(seed), count, 10, (200,), skip_last)
    batch = replay.take(buffer, index)
    if not skip_last:
        same = replay.sample(jax.random.key(seed), buffer, count, (200,))
        np.testing.assert_array_equal(batch["n"], same["n"])
    slots = max(min(count, 10) - skip_last, 1)
    assert batch["x"].shape == (200, 2) and batch["n"].shape == (200,)
    assert set(np.asarray(batch["n"]).tolist()) == set(np.asarray(buffer["n"][:slots]).tolist())
    np.testing.assert_array_equal(batch["x"], np.asarray(batch["n"])[:, None] + [0.0, 0.5])


def test_draws_are_uniform():
    """10,000 draws of 8: the counts' chi-square is below its 0.1 % point for 7 degrees, 24.3."""
    buffer = jnp.arange(8)
    drawn = replay.sample(jax.random.key(0), buffer, 8, (100, 100))
    counts = np.bincount(np.asarray(drawn).ravel(), minlength=8)
    assert ((counts - 1250) ** 2 / 1250).sum() < 24.3


def test_items_keep_the_dtypes_of_the_buffer():
    buffer = replay.empty({"half": jnp.bfloat16(0), "flag": jnp.bool_(False), "n": 0}, 4)
    new = {"half": jnp.ones(2), "flag": jnp.ones(2, bool), "n": jnp.ones(2, jnp.int8)}
    for leaf, after in zip(
        jax.tree.leaves(buffer), jax.tree.leaves(replay.write(buffer, new, 0)), strict=True
    ):
        assert leaf.dtype == after.dtype and after[:2].all() and not after[2:].any()


def test_seeds_side_by_side_hold_what_each_would_alone():
    num_seeds = 3
    buffers = jax.vmap(lambda _: replay.empty(EXAMPLE, 6))(jnp.arange(num_seeds))
    alone = [replay.empty(EXAMPLE, 6) for _ in range(num_seeds)]
    write = jax.jit(jax.vmap(replay.write, in_axes=(0, 0, None)))
    for i in range(5):
        news = [items(100 * seed + 2 * i, 2) for seed in range(num_seeds)]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *news)
        buffers = write(buffers, stacked, 2 * i)
        alone = [replay.write(b, new, 2 * i) for b, new in zip(alone, news, strict=True)]
    for seed in range(num_seeds):
        for name in EXAMPLE:
            np.testing.assert_array_equal(buffers[name][seed], alone[seed][name])


def instructions(count, axis):
    """How often each kind of instruction that writes stands in the compiled, vmapped write."""
    buffers, new = {"x": jnp.zeros((3, 4096, 2))}, {"x": jnp.ones((3, 4, 2))}
    write = jax.jit(jax.vmap(replay.write, in_axes=(0, 0, axis)), donate_argnums=0)
    compiled = write.lower(buffers, new, count).compile()
    text = compiled.as_text()
    assert "input_output_alias" in text
    assert compiled.memory_analysis().temp_size_in_bytes < buffers["x"].nbytes / 10
    kinds = ("dynamic-update-slice", "scatter", "while")
    return [len(re.findall(rf" {kind}\(", text)) for kind in kinds]


def test_a_write_under_vmap_is_one_slice_in_place():
    """Else every step would cost more with every seed; a count per seed would do that."""
    assert instructions(jnp.int32(8), None) == [1, 0, 0]
    assert instructions(jnp.int32([8, 12, 16]), 0) != [1, 0, 0]


@pytest.mark.parametrize(
    ("capacity", "num", "fix"), [(10, 4, 8), (3, 4, 4), (401, 16, 400), (1, 1, None), (8, 4, None)]
)
def test_a_capacity_that_writes_do_not_fill_is_refused(capacity, num, fix):
    if fix is None:
        replay.check_capacity("--replay", capacity, num)
        return
    with pytest.raises(UserError) as caught:
        replay.check_capacity("--replay", capacity, num)
    assert str(caught.value) == (
        f"--replay={capacity} is not a multiple of the {num} transitions written at once: set it "
        f"to {fix}."
    )
    replay.check_capacity("--replay", fix, num)
