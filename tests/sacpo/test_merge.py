# SPDX-License-Identifier: Apache-2.0
"""Merges are the inputs at both ends, exact in between, and refuse what does not match."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsafe.core.checks import UserError
from jaxsafe.lm import decoder, hf, tensors
from jaxsafe.sacpo import merge, tabular

from .rows import MODEL


@pytest.fixture
def folders(tmp_path):
    """Two models of one kind; their trees and folders."""
    trees = [decoder.init(jax.random.key(seed), MODEL) for seed in (0, 1)]
    paths = [tmp_path / name for name in "ab"]
    for path, tree in zip(paths, trees, strict=True):
        hf.save(path, MODEL, tree)
    return trees, paths, tmp_path / "out"


def same(folder, tree):
    jax.tree.map(np.testing.assert_array_equal, hf.load(folder)[1], tree)


@pytest.mark.parametrize("q", [0.0, 1.0])
def test_at_its_ends_a_merge_is_one_of_the_two(folders, q):
    trees, paths, out = folders
    merge.folders(*paths, q, out)
    same(out, trees[int(q)])
    jax.tree.map(np.testing.assert_array_equal, merge.linear(*trees, q), trees[int(q)])


def test_a_model_merged_with_itself_is_itself(folders):
    trees, (a, _), out = folders
    merge.folders(a, a, 0.3, out, shard_bytes=600)
    assert len(list(out.glob("*.safetensors"))) > 1
    same(out, trees[0])
    jax.tree.map(np.testing.assert_array_equal, merge.linear(trees[0], trees[0], 0.3), trees[0])


def test_between_its_ends_weights_are_means(folders):
    trees, paths, out = folders
    merge.folders(*paths, 0.25, out)
    expected = jax.tree.map(lambda x, y: 0.75 * x + 0.25 * y, *trees)
    for found in (hf.load(out)[1], jax.jit(merge.linear)(*trees, 0.25)):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8), found, expected
        )
    assert json.loads((out / "config.json").read_text())["vocab_size"] == MODEL.vocab_size


def test_half_precision_is_rounded_once():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1000)).astype(ml_dtypes.bfloat16)
    known = (np.float64(a) + 0.3 * (np.float64(b) - np.float64(a))).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(merge.average(a, b, 0.3), known)


def test_models_of_two_kinds_are_refused(folders):
    trees, (a, b), out = folders
    copies = {name: np.array(x.open()) for name, x in tensors.read_folder(b).items()}
    stored = {n: tensors.Pending(x.dtype, x.shape, lambda x=x: x) for n, x in copies.items()}
    name = "model.norm.weight"
    wrong = tensors.Pending(np.dtype(np.float32), (3,), lambda: np.zeros(3, np.float32))
    tensors.write_folder(b, stored | {name: wrong})
    with pytest.raises(UserError, match=rf"{name} is float32\[8\] in .*a and float32\[3\] in"):
        merge.folders(a, b, 0.5, out)
    tensors.write_folder(b, {n: x for n, x in stored.items() if n != name})
    with pytest.raises(UserError, match=rf"a has {name}, .*b has not"):
        merge.folders(a, b, 0.5, out)
    with pytest.raises(UserError, match=r"q=1\.5 is out of range"):
        merge.folders(a, a, 1.5, out)
    with pytest.raises(UserError, match="is one of the models to merge"):
        merge.folders(a, b, 0.5, a)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), trees[1])
    with pytest.raises(UserError, match=r"bfloat16.* in the other"):
        merge.linear(trees[0], half, 0.5)


def test_laws_merge_to_the_optimum_of_a_smaller_multiplier():
    """With the four responses of the known answer as a vocabulary."""
    solution = tabular.solve(
        [[0.4, 0.3, 0.2, 0.1]], [[1, 0.5, 0, 0]], [[-1, 0, 0.5, 1]], beta=0.5, bound=0.6
    )
    with jax.enable_x64(True):
        laws = [jnp.log(x.policy) + 3.0 for x in (solution.helpful, solution.optimum)]
        for q in (0.25, 0.5, 0.75):
            found = np.exp(merge.geometric(*laws, q))
            known = solution.outcomes[f"optimum {q:g}"].policy
            np.testing.assert_allclose(found, known, rtol=1e-12)


def test_a_mixture_of_models_is_a_model():
    apply = decoder.apply_fn(MODEL)
    trees = tuple(decoder.init(jax.random.key(seed), MODEL) for seed in (0, 1))
    ids, mask = jnp.array([[3, 4, 5]]), jnp.ones((1, 3), bool)
    mixed = merge.mixture(apply, apply, 0.25)(trees, ids, mask)
    one, other = (jax.nn.log_softmax(apply(tree, ids, mask)) for tree in trees)
    raw = 0.75 * one + 0.25 * other
    np.testing.assert_allclose(mixed, jax.nn.log_softmax(raw), atol=1e-6)
    np.testing.assert_allclose(np.exp(mixed).sum(-1), 1, rtol=1e-5)


WEIGHTS = st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3)
_linear = jax.jit(merge.linear)


@settings(max_examples=60, deadline=None)
@given(a=WEIGHTS, b=WEIGHTS, dtype=st.sampled_from([np.float32, ml_dtypes.bfloat16]))
def test_the_ends_of_a_merge_are_its_inputs_to_the_bit(a, b, dtype):
    """Infinities, the largest numbers and negative zeros too; q may be traced."""
    with np.errstate(over="ignore"):
        a, b = (np.asarray(x, np.float32).astype(dtype) for x in (a, b))
    for q, end in ((0.0, a), (1.0, b)):
        assert merge.average(a, b, q).tobytes() == end.tobytes()
        assert np.asarray(_linear({"x": a}, {"x": b}, q)["x"]).tobytes() == end.tobytes()


@settings(max_examples=60, deadline=None)
@given(a=WEIGHTS, b=WEIGHTS, q=st.floats(0, 1))
def test_a_merge_lies_between_its_inputs(a, b, q):
    a, b = (np.clip(np.asarray(x, np.float32), -1e30, 1e30) for x in (a, b))
    found = merge.average(a, b, q)
    assert np.all((found >= np.minimum(a, b)) & (found <= np.maximum(a, b)))
    scale = np.maximum(np.abs(a), np.abs(b)).max(initial=1e-30)
    np.testing.assert_allclose(found / scale, merge.average(b, a, 1 - q) / scale, atol=1e-6)
