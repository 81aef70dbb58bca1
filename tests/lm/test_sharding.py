# SPDX-License-Identifier: Apache-2.0
"""Eight forced host devices against one: the same loss and gradients, parameters really split."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import lm
from jaxsafe.core.checks import UserError
from jaxsafe.lm import hf, logprobs, optimiser, sharding, tensors
from tests.lm import models

CONFIG = dataclasses.replace(
    models.FAMILIES["qwen2"], vocab_size=64, hidden_size=32, head_dim=8, num_heads=4, remat="full"
)
MESHES = {"fsdp": (1, 8, 1), "both": (2, 4, 1), "tensor": (2, 2, 2)}


def batch():
    ids = np.asarray(models.tokens(CONFIG, (16, 10)))
    completion = np.zeros(ids.shape, bool)
    completion[:, 5:] = True
    return {"ids": ids, "mask": np.ones_like(completion), "completion": completion}


def loss(params, rows):
    sums = logprobs.sums(CONFIG, params, rows["ids"], rows["mask"], rows["completion"])
    return -sums.mean(), {}


step = jax.jit(lambda params, rows: optimiser.value_and_grad(loss, params, rows, 2))


@pytest.mark.device8
@pytest.mark.parametrize("name", list(MESHES))
def test_loss_and_gradients_are_those_of_one_device(name):
    """To 1e-5 of each leaf's largest; gradients and moments are split as parameters are."""
    # Smaller than the others' parameters, which amplify rounding.
    params = jax.tree.map(lambda x: x / 2, models.params(CONFIG))
    (expected, _), gradients = step(params, batch())
    mesh = sharding.make_mesh(*MESHES[name])
    where = sharding.param_shardings(CONFIG, mesh)
    placed = jax.device_put(params, where)
    rule = optimiser.make(optimiser.Optimiser(), 10)
    moments = jax.eval_shape(rule.init, params)
    spread = sharding.shardings(moments, mesh)
    with jax.set_mesh(mesh):
        (value, _), found = step(placed, sharding.place(batch(), mesh))
        state = jax.jit(rule.init, out_shardings=spread)(placed)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))
    kernel = placed["layers"]["gate"]["kernel"]
    _, fsdp, tensor = MESHES[name]
    part = (3, 32 // fsdp, 24 // tensor)
    assert {shard.data.shape for shard in kernel.addressable_shards} == {part}
    assert len({str(shard.index) for shard in kernel.addressable_shards}) == fsdp * tensor
    inner = next(x for x in jax.tree.leaves(state) if x.shape == kernel.shape)
    assert inner.sharding.shard_shape(inner.shape) == part
    whole = sum(x.nbytes for x in jax.tree.leaves(params))
    assert sharding.bytes_per_device(params, where) < 1.6 * whole / (fsdp * tensor)


@pytest.mark.device8
def test_a_folder_is_read_straight_into_shards(tmp_path, monkeypatch):
    """No device's part is made of more than its own rows and columns; the model is not gathered."""
    params = models.params(CONFIG)
    hf.save(tmp_path, CONFIG, params)
    mesh = sharding.make_mesh(2, 2, 2)
    made = []
    callback = jax.make_array_from_callback

    def watched(shape, where, part):
        return callback(shape, where, lambda i: made.append((shape, part(i).size)) or part(i))

    monkeypatch.setattr(jax, "make_array_from_callback", watched)
    config, read = hf.load(tmp_path, sharding.param_shardings(CONFIG, mesh))
    assert config == dataclasses.replace(CONFIG, remat="none")
    shape = (3, 32, 24)
    assert {size for whole, size in made if whole == shape} == {3 * 16 * 12}
    jax.tree.map(np.testing.assert_array_equal, read, params)
    hf.save(tmp_path / "again", CONFIG, read)
    for name, stored in tensors.read_folder(tmp_path).items():
        other = tensors.read_folder(tmp_path / "again")[name]
        np.testing.assert_array_equal(stored.open(), other.open())


@pytest.mark.device8
def test_generation_on_a_mesh_gives_the_same_tokens():
    params = models.params(CONFIG)
    prompts = [[3, 4, 5], [6], [7, 8], [9, 9, 9]]
    alone = lm.generate.generate(lm.prepare(params, CONFIG), prompts, lm.Generation(6))
    mesh = sharding.make_mesh(1, 4, 2)
    placed = jax.device_put(params, sharding.param_shardings(CONFIG, mesh))
    found = lm.generate.generate(lm.prepare(placed, CONFIG), prompts, lm.Generation(6))
    np.testing.assert_array_equal(found.tokens, alone.tokens)


def test_a_mesh_needs_all_devices_and_axes_that_divide():
    devices = [jax.devices()[0]] * 1
    with pytest.raises(UserError, match="data=2 x fsdp=1 x tensor=1 is not the 1 devices"):
        sharding.make_mesh(2, 1, 1, devices)
    mesh = jax.sharding.AbstractMesh((1, 8, 4), sharding.AXES)
    rule = sharding.spec(("layers", "q", "kernel"), (3, 32, 30), mesh)
    assert rule == jax.sharding.PartitionSpec(None, "fsdp", None)
    assert sharding.spec(("mu", "embed"), (64, 32), mesh) == jax.sharding.PartitionSpec(
        "tensor", "fsdp"
    )
    assert sharding.spec(("final_norm",), (32,), mesh) == jax.sharding.PartitionSpec()
