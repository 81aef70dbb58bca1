# SPDX-License-Identifier: Apache-2.0
"""Logits and folders against transformers' torch models, for every family (section 7's gates)."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxsafe import lm
from jaxsafe.lm import hf, hf_config
from tests.parity import theirs

KINDS = list(theirs.KINDS)
torch, transformers = theirs.torch, theirs.transformers


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    """A kind, its torch model, and the folder transformers wrote of it."""
    folder = tmp_path_factory.mktemp(request.param)
    model = theirs.make(request.param)
    model.save_pretrained(folder)
    return request.param, model, folder


def ours(config, params, *arguments):
    return np.asarray(jax.jit(lm.apply_fn(config))(params, *arguments))


def test_logits_are_transformers(saved):
    """Rows without padding, padded on the left, and padded on the right; 1e-4 in float32."""
    _, model, folder = saved
    config, params = hf.load(folder)
    ids, mask = theirs.tokens((4, 19)), np.ones((4, 19), bool)
    mask[1, :6] = False
    mask[2, 12:] = False
    mask[3, :2] = False
    expected = theirs.logits(model, ids, mask)
    spread = expected[mask].std()
    assert spread > 0.5  # logits that differ, or the gate says little
    found = ours(config, params, ids, mask)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[mask], expected[mask], rtol=0, atol=1e-4)


def test_our_folder_is_read_by_transformers_and_by_us(saved, tmp_path):
    """Sharded, with an index; the same logits, and no key missing or left over."""
    kind, model, folder = saved
    config, params = hf.load(folder)
    sharded = kind in ("llama", "qwen3")
    hf.save(tmp_path, config, params, shard_bytes=20_000 if sharded else 10**9, like=folder)
    assert (tmp_path / "model.safetensors.index.json").exists() == sharded
    back, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float32
    )
    assert not any(info[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(back) is type(model) and back.config.eos_token_id == 2
    for name, weight in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight), name
    ids = theirs.tokens((2, 9))
    np.testing.assert_array_equal(theirs.logits(back, ids), theirs.logits(model, ids))
    again, same = hf.load(tmp_path)
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, same, params)


def test_old_and_new_forms_of_the_rope_are_one(saved):
    """Files of before transformers 5 have `rope_theta` and `rope_scaling` on their own."""
    kind, _, folder = saved
    values = json.loads((folder / "config.json").read_text())
    assert "rope_theta" not in values and "rope_theta" in values["rope_parameters"]
    rope = values.pop("rope_parameters")
    values["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] != "default":
        values["rope_scaling"] = rope
    assert hf_config.from_dict(values) == hf_config.read(folder)
    written = hf_config.to_dict(hf_config.read(folder))
    assert hf_config.from_dict(written) == hf_config.read(folder)
    assert written["rope_parameters"]["rope_theta"] == written["rope_theta"]
    assert ("rope_scaling" in written) == (kind == "llama3")


def test_bfloat16_is_kept_to_the_bit_and_computes_near_torch(tmp_path):
    model = theirs.make("llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "theirs")
    config, params = hf.load(tmp_path / "theirs")
    assert config.dtype == config.param_dtype == "bfloat16"
    hf.save(tmp_path / "ours", config, params)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    for name, weight in model.state_dict().items():
        assert back.state_dict()[name].dtype == torch.bfloat16
        assert torch.equal(back.state_dict()[name], weight), name
    ids, mask = theirs.tokens((2, 9)), np.ones((2, 9), bool)
    wide = dataclasses.replace(config, dtype="float32")
    exact = ours(wide, params, ids, mask)
    near, far = ours(config, params, ids, mask), theirs.logits(model, ids)
    # Two computations in 8 bits of mantissa are apart by no more than either from the exact one.
    scale = np.abs(exact).max()
    assert np.abs(near - exact).max() < 0.05 * scale and np.abs(near - far).max() < 0.08 * scale


def test_safetensors_library_reads_and_writes_what_we_do(tmp_path):
    from safetensors import torch as theirs_io

    from jaxsafe.lm import tensors

    data = {"a": torch.randn(3, 5).to(torch.bfloat16), "b": torch.arange(4), "c": torch.ones(0, 2)}
    theirs_io.save_file(data, tmp_path / "x.safetensors", {"format": "pt"})
    stored = tensors.read_file(tmp_path / "x.safetensors")
    pending = {
        name: tensors.Pending(x.dtype, x.shape, x.open) for name, x in sorted(stored.items())
    }
    tensors.write_file(tmp_path / "y.safetensors", pending)
    back = theirs_io.load_file(tmp_path / "y.safetensors")
    assert back.keys() == data.keys()
    assert all(
        torch.equal(back[name], x) and back[name].dtype == x.dtype for name, x in data.items()
    )
