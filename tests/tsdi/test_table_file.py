# SPDX-License-Identifier: Apache-2.0
"""Tables on disk: back to the bit, and refused for other models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from jaxsafe.core.checks import UserError
from jaxsafe.tsdi import table_file
from jaxsafe.tsdi.types import Table

MADE = table_file.Made("s1", "r1", "t1", "USER: {input}", draws=64, pool="words.txt", seed=3)


@pytest.fixture
def path(tmp_path):
    table = Table(jax.random.normal(jax.random.key(0), (3, 7)), jnp.ones((3, 7)), "centred_logit")
    table_file.save(tmp_path / "bias.safetensors", table, MADE)
    return tmp_path / "bias.safetensors"


def test_a_table_comes_back_to_the_bit(path):
    table, made = table_file.load(path, {"safe": "s1", "reference": "r1", "tokenizer": "t1"})
    assert (table.bias == jax.random.normal(jax.random.key(0), (3, 7))).all()
    assert table.space == "centred_logit" and made["draws"] == "64" and made["pool"] == "words.txt"
    assert set(safetensors.load_file(path)) == {"bias", "error"}


@pytest.mark.parametrize("name", table_file.MUST_AGREE)
def test_a_table_of_other_models_is_refused(path, name):
    with pytest.raises(UserError, match=f"made with {name}=.*here it is 'other'"):
        table_file.load(path, {name: "other"})


def test_bad_tables_are_refused(path, tmp_path):
    good = safetensors.load_file(path)
    metadata = {"format": table_file.FORMAT, "space": "logprob"}
    for arrays, told, words in (
        ({"bias": good["bias"]}, metadata, "'error' is missing"),
        (good | {"error": np.ones((2, 7), np.float32)}, metadata, "have shapes"),
        (good | {"bias": good["bias"].astype(np.float64)}, metadata, "float64"),
        (good | {"bias": np.full((3, 7), np.nan, np.float32)}, metadata, "not finite"),
        (good, {"format": "other"}, "metadata lack"),
        (good, metadata | {"space": "odd"}, "metadata lack"),
    ):
        safetensors.save_file(arrays, tmp_path / "bad.safetensors", told)
        with pytest.raises(UserError, match=words):
            table_file.load(tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="is no bias table"):
        table_file.load(tmp_path / "absent.safetensors")


def test_a_table_with_a_nan_is_not_written(tmp_path):
    table = Table(jnp.full((1, 2), jnp.nan), jnp.zeros((1, 2)))
    with pytest.raises(UserError, match="bias is not finite"):
        table_file.save(tmp_path / "x.safetensors", table, MADE)
    with pytest.raises(UserError, match="cannot be written"):
        table_file.save(tmp_path / "none" / "x.safetensors", Table(*[jnp.zeros((1, 2))] * 2), MADE)
    assert not list(tmp_path.iterdir())
