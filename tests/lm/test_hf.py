# SPDX-License-Identifier: Apache-2.0
"""Folders: what is wrong with one is named, and what is read is read in place."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.lm import hf, hf_config, tensors
from tests.lm import models

CONFIG = models.FAMILIES["qwen2"]
NAME = "model.layers.1.self_attn.k_proj.weight"


def changed(folder, change):
    """Writes the folder's tensors again after `change(pending)`."""
    stored = tensors.read_folder(folder)
    pending = {
        n: tensors.Pending(s.dtype, s.shape, lambda s=s: np.array(s.open()))
        for n, s in stored.items()
    }
    change(pending)
    tensors.write_folder(folder, pending)


@pytest.fixture
def folder(tmp_path):
    params = models.params(CONFIG)
    hf.save(tmp_path, CONFIG, params, extra={"eos_token_id": 2})
    return tmp_path


def edit_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("family", list(models.FAMILIES))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_gives_back_every_bit(family, dtype, tmp_path):
    config = models.FAMILIES[family]
    params = jax.tree.map(lambda x: x.astype(dtype), models.params(config))
    hf.save(tmp_path, config, params, shard_bytes=3000)
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(shards) > 3 and shards[0].startswith("model-00001-of-000")
    again, back = hf.load(tmp_path)
    assert again == dataclasses.replace(config, dtype=dtype, param_dtype=dtype)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_a_dtype_may_be_asked_for(folder):
    config, params = hf.load(folder, dtype="bfloat16")
    assert config.dtype == config.param_dtype == "bfloat16"
    expected = models.params(CONFIG)["layers"]["q"]["kernel"].astype(jnp.bfloat16)
    np.testing.assert_array_equal(params["layers"]["q"]["kernel"], expected)
    with pytest.raises(UserError, match="dtype='bf16' is unknown"):
        hf.load(folder, dtype="bf16")


def test_a_model_written_over_another_leaves_nothing_of_it(folder):
    params = models.params(CONFIG)
    hf.save(folder, CONFIG, params, shard_bytes=3000)
    assert not (folder / "model.safetensors").exists()
    hf.save(folder, CONFIG, params)
    assert [path.name for path in folder.iterdir() if "model" in path.name] == ["model.safetensors"]


def test_tokenizer_files_and_special_ids_go_with_the_weights(folder, tmp_path):
    (folder / "tokenizer.json").write_text("{}")
    (folder / "notes.txt").write_text("not a tokenizer's")
    hf.save(tmp_path / "next", CONFIG, models.params(CONFIG), like=folder)
    names = {path.name for path in (tmp_path / "next").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    assert hf_config.read_json(tmp_path / "next")["eos_token_id"] == 2


def test_what_a_tensor_should_be_is_told_by_name(folder):
    def refused(change, message):
        changed(folder, change)
        with pytest.raises(UserError, match=message):
            hf.load(folder)

    data = np.array(tensors.read_folder(folder)[NAME].open())
    good = tensors.Pending(data.dtype, data.shape, lambda: data)

    def narrow(pending):
        pending[NAME] = tensors.Pending(np.dtype("f4"), (8, 15), lambda: np.zeros((8, 15), "f4"))

    def half(pending):
        pending[NAME] = tensors.Pending(np.dtype("f2"), (8, 16), lambda: np.zeros((8, 16), "f2"))

    def extra(pending):
        pending[NAME] = good
        pending["model.layers.3.extra"] = good

    refused(lambda p: p.pop(NAME), rf"lacks the tensor {NAME} \[8, 16\]")
    refused(narrow, rf"holds {NAME} as \[8, 15\], where config.json asks for \[8, 16\]")
    refused(half, rf"holds {NAME} as float16, where .* float32: give dtype='float32'")
    assert hf.load(folder, dtype="float32")[1]["layers"]["k"]["kernel"][1].sum() == 0
    refused(extra, "has the tensor model.layers.3.extra, which the model has not")


def test_tables_of_old_checkpoints_are_passed_over_and_tied_heads_compared(tmp_path):
    config = models.FAMILIES["qwen3"]
    hf.save(tmp_path, config, models.params(config))
    inverse = tensors.Pending(np.dtype("f4"), (4,), lambda: np.zeros(4, "f4"))
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    changed(tmp_path, lambda pending: pending.update({name: inverse}))
    hf.load(tmp_path)
    embed = np.array(tensors.read_folder(tmp_path)["model.embed_tokens.weight"].open())
    head = lambda data: {"lm_head.weight": tensors.Pending(data.dtype, data.shape, lambda: data)}  # noqa: E731
    changed(tmp_path, lambda pending: pending.update(head(embed)))
    assert "head" not in hf.load(tmp_path)[1]
    changed(tmp_path, lambda pending: pending.update(head(embed + 1)))
    with pytest.raises(UserError, match=r"lm_head\.weight apart from the embedding"):
        hf.load(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2' is unknown"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu': only silu"),
        ({"num_attention_heads": 3}, "does not divide"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "only default and llama3"),
    ],
)
def test_other_models_are_refused(folder, values, message):
    edit_config(folder, **values)
    with pytest.raises(UserError, match=message):
        hf.load(folder)


def test_a_llama_with_biases_is_refused():
    values = hf_config.to_dict(models.FAMILIES["llama"])
    with pytest.raises(UserError, match="attention_bias=true"):
        hf_config.from_dict(values | {"attention_bias": True})


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llama", {"qkv_bias": True}, "qkv_bias=True is not what family='llama' has"),
        ("qwen3", {"qk_norm": False}, "qk_norm=False is not what family='qwen3' has"),
        ("llama", {"sliding_window": 4}, "sliding_window=4 is not for family='llama'"),
        ("qwen2", {"head_dim": 8}, "head_dim=8 of family='qwen2' must be .* 4"),
    ],
)
def test_what_a_family_cannot_say_is_not_written(family, change, message, tmp_path):
    config = dataclasses.replace(models.FAMILIES[family], **change)
    with pytest.raises(UserError, match=message):
        hf_config.to_dict(config)


def test_missing_and_damaged_files_are_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"config\.json cannot be read \(No such file"):
        hf.load(tmp_path / "none")
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for broken, reason in (
        (data[:-1], "bytes at"),
        (data[:100], "header would end after"),
        (b"\xff" * 200, "header would end after"),
        (data[:8] + b"x" + data[9:], "Expecting value"),
        (b"", "header would end after its 0 bytes"),
    ):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=rf"model\.safetensors cannot be read \(.*{reason}"):
            hf.load(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"neither model.* nor model.*index"):
        hf.load(folder)
    (folder / "config.json").write_text("[")
    with pytest.raises(UserError, match=r"config\.json is no JSON"):
        hf.load(folder)


def test_an_index_and_its_files_must_agree(folder):
    hf.save(folder, CONFIG, models.params(CONFIG), shard_bytes=3000)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    moved = index["weight_map"] | {NAME: index["weight_map"]["model.norm.weight"]}
    path.write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(UserError, match=f"places {NAME} in model-.*, which lacks it"):
        hf.load(folder)
    fewer = {name: file for name, file in index["weight_map"].items() if name != NAME}
    path.write_text(json.dumps({"weight_map": fewer}))
    with pytest.raises(UserError, match=f"does not name {NAME}"):
        hf.load(folder)


def test_only_what_is_looked_at_is_read(folder):
    stored = tensors.read_folder(folder)
    assert isinstance(stored[NAME].open(), np.memmap)
    expected = models.params(CONFIG)["layers"]["k"]["kernel"][1].T
    np.testing.assert_array_equal(stored[NAME].open()[2:5], expected[2:5])
