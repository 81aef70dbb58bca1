# SPDX-License-Identifier: Apache-2.0
"""Eight forced host devices: seeds spread over them keep their numbers."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core import checkpoint, loop, parallel
from jaxsafe.core.checks import UserError
from jaxsafe.core.run import Folder
from tests.core import toy
from tests.core.test_checkpoint import assert_same

pytestmark = pytest.mark.device8


def trained(folder, num_devices, steps=20, **options):
    program = toy.program(toy.Config(steps=steps), num_devices, **options)
    return program, loop.train(program, Folder(folder), loop.Stop())


def test_automatic_and_requested_devices():
    assert parallel.choose_num_devices(8) == 8 and parallel.choose_num_devices(6) == 6
    assert parallel.choose_num_devices(8, 4) == 4
    with pytest.raises(UserError, match=r"--devices=5 .* on 8 devices: choose one of \[1, 2, 4, 8"):
        parallel.choose_num_devices(8, 5)


def test_one_seed_per_device_has_the_bits_of_a_lone_run(tmp_path):
    _, together = trained(tmp_path / "all", 8, num_seeds=8)
    assert len(together.state.weights.sharding.device_set) == 8
    for seed in (0, 5):
        _, alone = trained(tmp_path / str(seed), 1, num_seeds=1, seed=seed)
        one = jax.tree.map(lambda x, i=seed: x[i : i + 1], jax.device_get(together.state))
        assert_same(one, jax.device_get(alone.state))


def test_several_seeds_per_device_agree_to_rounding(tmp_path):
    """float32 sums in another order, 20 Adam steps: 1e-5 of the value, or 1e-6."""
    _, one = trained(tmp_path / "1", 1, num_seeds=8)
    for num_devices in (2, 4):
        _, many = trained(tmp_path / str(num_devices), num_devices, num_seeds=8)
        for a, b in zip(jax.tree.leaves(one.state), jax.tree.leaves(many.state), strict=True):
            a, b = (np.asarray(checkpoint._raw(x)) for x in (a, b))
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("wrote", "reads"), [(8, 1), (1, 8), (4, 2), (2, 2)])
def test_a_checkpoint_moves_to_another_number_of_devices(tmp_path, wrote, reads):
    _, before = trained(tmp_path, wrote, steps=5, num_seeds=8)
    other = toy.program(toy.Config(steps=5), reads, num_seeds=8)
    after = checkpoint.restore(tmp_path / "checkpoints" / "line", 5, other.shapes())
    assert_same(jax.device_get(before.state), jax.device_get(after))
    for leaf, shape in zip(jax.tree.leaves(after), jax.tree.leaves(other.shapes()), strict=True):
        assert leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim)
    # And it is a state to go on from.
    stepped, _ = other.chunk(5)(after, jnp.int32(5))
    assert stepped.steps.tolist() == [10] * 8


def test_resume_on_eight_devices_gives_the_rows_of_an_unbroken_run(tmp_path):
    arguments = ["--num_seeds=8", "--steps=20"]
    assert toy.here(*arguments, f"--out={tmp_path}/whole") == 0
    record = json.loads((tmp_path / "whole/config.json").read_text())
    assert record["options"]["devices"] == 8
    out = tmp_path / "run"
    assert toy.here(*arguments, "--checkpoint_every=5", f"--out={out}") == 0
    shutil.rmtree(out / "checkpoints/line/20")
    (out / "summary.json").unlink()
    assert toy.here("--resume", f"--out={out}") == 0
    assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"--devices=4 differs from the run in .* which has 8"):
        toy.here("--resume", f"--out={out}", "--devices=4")
