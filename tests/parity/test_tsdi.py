# SPDX-License-Identifier: Apache-2.0
"""The README's processor for transformers: the same tokens as ours, from the same file."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import lm, tsdi
from jaxsafe.lm import hf
from jaxsafe.lm.generate import pad_prompts
from jaxsafe.tsdi import models, table_file
from tests.lm import models as decoders

torch = pytest.importorskip("torch", reason="needs the extra parity")
README = pathlib.Path(tsdi.__file__).with_name("README.md")
PROMPTS = [[5, 9, 3, 7, 1], [4, 8], [3, 3, 6, 30, 11]]


def test_transformers_gives_our_tokens(tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    (example,) = re.findall(r"```py\n(.*?)```", README.read_text(), flags=re.S)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    config = decoders.FAMILIES["llama"]
    params = decoders.params(config)
    hf.save(tmp_path / "model", config, params)
    drawn = 4 * jax.random.normal(jax.random.key(0), (3, config.vocab_size))
    table = tsdi.Table(drawn, jnp.zeros_like(drawn))
    table_file.save(tmp_path / "bias.safetensors", table, table_file.Made("", "", "", ""))
    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained("model", dtype=torch.float32).eval()
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    ids, mask = pad_prompts(PROMPTS, buckets=(5,))
    inputs = {
        "input_ids": torch.tensor(ids).long(),
        "attention_mask": torch.tensor(mask).long(),
    }
    names = {"model": model, "inputs": inputs}
    exec(example, names)
    theirs = names["out"][:, 5:].numpy()
    ready, options = lm.prepare(params, config), lm.Generation(max_new=12)
    ours = models.generate(ready, PROMPTS, options, correction=tsdi.correction(table), buckets=(5,))
    np.testing.assert_array_equal(np.asarray(ours.tokens), theirs)
    plain = lm.generate.generate(ready, PROMPTS, options, buckets=(5,))
    assert (np.asarray(plain.tokens) != theirs).any(1).all()
