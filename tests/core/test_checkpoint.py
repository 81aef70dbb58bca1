# SPDX-License-Identifier: Apache-2.0
"""Checkpoints come back bit for bit, or not at all."""

import gc
import os
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsafe.core import checkpoint
from jaxsafe.core.checks import UserError
from tests.core import toy


def state(scale: float = 1.0):
    weights = {"w": scale * jnp.arange(6.0).reshape(2, 3) / 7, "half": jnp.ones(3, jnp.bfloat16)}
    return {
        "params": weights,
        "opt": optax.adam(1e-3).init(weights),
        "keys": jax.random.split(jax.random.key(3), (2, 3)),
        "key": jax.random.key(4),
        "count": jnp.int32(7),
        "byte": jnp.int8(-3),
        "flags": jnp.array([True, False]),
        "nothing": jnp.zeros((0, 2)),
        "noise": jax.random.normal(jax.random.key(5), (5000,)),
    }


def raw(tree):
    return jax.tree.map(lambda leaf: np.asarray(checkpoint._raw(leaf)), tree)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(raw(a)), jax.tree.leaves(raw(b)), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with one checkpoint, step 10; tests that damage it take a copy."""
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoint.save(folder, 10, state())
    return folder


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def test_every_kind_of_leaf_comes_back_bit_for_bit(written):
    restored = checkpoint.restore(written, 10, jax.eval_shape(state))
    assert_same(restored, state())
    # The key is a key: the same one, with the same future.
    draw = jax.random.normal(restored["key"], (4,))
    np.testing.assert_array_equal(draw, jax.random.normal(state()["key"], (4,)))


def test_another_process_reads_it(written):
    code = (
        "import pathlib, sys, jax\n"
        "from jaxsafe.core import checkpoint\n"
        "from tests.core.test_checkpoint import assert_same, state\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "assert checkpoint.steps(folder) == [10]\n"
        "assert_same(checkpoint.restore(folder, 10, jax.eval_shape(state)), state())\n"
    )
    command = [sys.executable, "-c", code, str(written)]
    done = subprocess.run(command, cwd=toy.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_newest_are_kept_and_an_existing_step_stays(tmp_path):
    assert checkpoint.steps(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, {"x": jnp.float32(step)}, max_to_keep=2)
    assert checkpoint.steps(tmp_path) == [2, 10]
    checkpoint.save(tmp_path, 10, {"x": jnp.float32(-1)})
    assert checkpoint.restore(tmp_path, 10, {"x": jnp.float32(0)})["x"] == 10


def test_half_written_folders_are_passed_over_and_swept(copy):
    """A killed write leaves a folder with a temporary name, whole inside or not."""
    (copy / "20.orbax-checkpoint-tmp").mkdir()
    shutil.copytree(copy / "10", copy / "30.orbax-checkpoint-tmp-1")
    assert checkpoint.steps(copy) == [10]
    checkpoint.save(copy, 20, state())
    assert sorted(path.name for path in copy.iterdir()) == ["10", "20"]
    assert_same(checkpoint.restore(copy, 20, state()), state())


def changed(path, leaf):
    """The state with the leaf at a dotted path replaced, or removed where `leaf` is None."""
    tree = state()
    *above, name = path.split(".")
    inner = tree
    for key in above:
        inner = inner[key]
    if leaf is None:
        del inner[name]
    else:
        inner[name] = leaf
    return tree


@pytest.mark.parametrize(
    ("path", "leaf", "text"),
    [
        ("params.new", jnp.ones(2), "lacks params.new."),
        ("count", None, "has count, which this run lacks."),
        ("params.w", jnp.ones((3, 2)), "params.w as float32[2, 3], this run needs float32[3, 2]."),
        ("params.half", jnp.ones(3), "params.half as bfloat16[3], this run needs float32[3]."),
        ("keys", jax.random.key(0), "keys as uint32[2, 3, 2], this run needs uint32[2]."),
        ("nothing", jnp.ones((1, 2)), "lacks nothing."),
    ],
)
def test_any_difference_in_structure_is_named(written, path, leaf, text):
    with pytest.raises(UserError) as caught:
        checkpoint.restore(written, 10, changed(path, leaf))
    message = str(caught.value)
    assert text in message and f"{written}/10" in message and "--overwrite" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_stored_value_that_is_not_finite_is_named(tmp_path, value):
    tree = changed("params.half", jnp.array([1, value, 1], jnp.bfloat16))
    checkpoint.save(tmp_path, 5, tree)
    with pytest.raises(UserError, match=r"not finite in params\.half: delete that folder"):
        checkpoint.restore(tmp_path, 5, state())


DAMAGE = {
    "cut in half": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "emptied": lambda path, data: path.write_bytes(b""),
    "removed": lambda path, data: path.unlink(),
    "one byte changed": lambda path, data: path.write_bytes(
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0x10]) + data[len(data) // 2 + 1 :]
    ),
}


# What orbax leaves behind when it gives up reading is collected at some later time.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_files_are_one_line_or_harmless(copy, how):
    """No damage to any file ends in a traceback, or in numbers other than those saved."""
    refused = 0
    for path in sorted(p for p in (copy / "10").rglob("*") if p.is_file()):
        data = path.read_bytes()
        DAMAGE[how](path, data)
        try:
            assert_same(checkpoint.restore(copy, 10, state()), state())
        except UserError as error:
            refused += 1
            assert re.fullmatch(
                rf"checkpoint {copy}/10 (cannot be read \(.*\)|lacks .*|has .*|holds .*)"
                r": delete .*|.*Resume with .*",
                str(error),
            )
        path.write_bytes(data)
    gc.collect()
    assert refused >= 3


def test_a_changed_number_is_named(copy):
    largest = max((p for p in (copy / "10").rglob("*") if p.is_file()), key=os.path.getsize)
    DAMAGE["one byte changed"](largest, largest.read_bytes())
    with pytest.raises(UserError, match=r"cannot be read \(noise has changed on disk\)"):
        checkpoint.restore(copy, 10, state())


def test_checksums_see_any_change_of_one_word():
    flat = {"a": jnp.arange(100.0), "b": jnp.zeros(10, jnp.bfloat16), "c": jnp.array([True] * 3)}
    before = np.asarray(checkpoint._checksums(flat))
    for i, name in enumerate(flat):
        for at in (0, 2):
            value = flat[name].at[at].set(~flat[name][at] if name == "c" else 2.5)
            after = np.asarray(checkpoint._checksums(flat | {name: value}))
            assert [a != b for a, b in zip(before, after, strict=True)] == [
                j == i for j in range(3)
            ]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the checkpoint of step 3 to .*Not a dir"):
        checkpoint.save(tmp_path / "file", 3, state())


def test_a_mistake_of_ours_is_not_called_a_full_disk(tmp_path, monkeypatch):
    def mistaken(flat):
        raise ValueError("shapes do not match")

    monkeypatch.setattr(checkpoint, "_checksums", mistaken)
    with pytest.raises(ValueError, match=r"^shapes do not match$") as caught:
        checkpoint.save(tmp_path, 1, state())
    assert not isinstance(caught.value, UserError)


def test_a_full_disk_is_one_line_and_earlier_checkpoints_stay(copy):
    """A limit on the size of files stands for the disk; the write fails inside tensorstore."""
    code = (
        "import pathlib, resource, signal, sys\n"
        "from jaxsafe.core import checkpoint\n"
        "from tests.core.test_checkpoint import state\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    checkpoint.save(pathlib.Path(sys.argv[1]), 20, state())\n"
        "except checkpoint.checks.UserError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(copy)]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(command, cwd=toy.ROOT, capture_output=True, text=True, env=environment)
    assert re.fullmatch(
        rf"cannot write the checkpoint of step 20 to {copy}: File too large\. Free space or .*\n",
        done.stdout,
    ), done.stderr
    assert done.stderr.count("Traceback") == 0, done.stderr
    assert checkpoint.steps(copy) == [10]
    assert_same(checkpoint.restore(copy, 10, state()), state())
    checkpoint.save(copy, 20, state(2.0))
    assert_same(checkpoint.restore(copy, 20, state()), state(2.0))
