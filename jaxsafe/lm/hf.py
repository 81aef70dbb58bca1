# SPDX-License-Identifier: Apache-2.0
"""Models in Hugging Face folders: `config.json` and safetensors in and out, tensor by tensor.

    config, params = hf.load("folder")
    hf.save("other", config, params, like="folder")

Reading maps the files and makes each device's part of each stacked parameter from what it needs
of them, so that no second copy of the model is ever in memory; writing holds one tensor at a time.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import checks, parallel
from jaxsafe.core.checks import UserError
from jaxsafe.lm import decoder, hf_config, tensors
from jaxsafe.lm.config import DTYPES, DecoderConfig
from jaxsafe.lm.layers import Params

MODULES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
}
# Tables that old checkpoints hold, and everyone computes.
_IGNORED = "rotary_emb.inv_freq"
# What makes a folder a tokenizer's, or tells how to generate, beside the weights.
KEPT = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)


class Leaf(NamedTuple):
    """Where a parameter of ours is in a file.

    `names` holds one tensor for each layer, or one in all where `stacked` is false.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    shape: tuple[int, ...]  # of ours, the axis of layers included
    stacked: bool
    transposed: bool  # files hold [out, in]


def leaves(config: DecoderConfig) -> Iterator[Leaf]:
    """Every parameter of the decoder, in the order of the tree, with its tensors' names."""
    c = config

    def stacked(name: str, part: str, what: str, shape: tuple[int, ...], turned: bool) -> Leaf:
        names = tuple(f"model.layers.{i}.{MODULES[name]}.{what}" for i in range(c.num_layers))
        path = ("layers", name, part) if part else ("layers", name)
        return Leaf(path, names, (c.num_layers, *shape), True, turned)

    yield Leaf(
        ("embed",), ("model.embed_tokens.weight",), (c.vocab_size, c.hidden_size), False, False
    )
    for name, size in decoder.norm_sizes(c).items():
        yield stacked(name, "", "weight", (size,), False)
    for name, shape in decoder.linear_shapes(c).items():
        yield stacked(name, "kernel", "weight", shape, True)
        if name in decoder.biased(c):
            yield stacked(name, "bias", "bias", shape[1:], False)
    yield Leaf(("final_norm",), ("model.norm.weight",), (c.hidden_size,), False, False)
    if not c.tie_embeddings:
        shape = (c.hidden_size, c.vocab_size)
        yield Leaf(("head", "kernel"), ("lm_head.weight",), shape, False, True)


def _stored_shape(leaf: Leaf) -> tuple[int, ...]:
    shape = leaf.shape[1:] if leaf.stacked else leaf.shape
    return shape[::-1] if leaf.transposed else shape


def load(
    folder: str | pathlib.Path, sharding: Any = None, dtype: str | None = None
) -> tuple[DecoderConfig, Params]:
    """Reads a model.

    Args:
      folder: with `config.json` and safetensors, single or with an index.
      sharding: one `Sharding` for all parameters, or a tree of them (`sharding.shardings`); None:
        the default device.
      dtype: cast parameters to it, float tensors of any kind then being welcome; None keeps the
        stored one, which must be the one `config.json` tells. It is also set as the dtype of the
        computation.

    Returns:
      `(config, params)`.

    Raises:
      UserError: a tensor is missing, extra, or of another shape or dtype, and is named; a file is
        damaged; `config.json` describes another kind of model; or an unknown dtype is asked for.
    """
    if dtype is not None:
        checks.check_choice("dtype", dtype, DTYPES)
    config = hf_config.read(folder)
    stored = tensors.read_folder(folder)
    if config.num_layers > len(stored):  # ahead of a plan for a billion of them
        raise UserError(
            f"{folder} has {len(stored)} tensors, where config.json asks for {config.num_layers} "
            "layers: get both from one place."
        )
    plan = list(leaves(config))
    kind = np.dtype(jnp.dtype(config.param_dtype))
    _check(pathlib.Path(folder), config, plan, stored, None if dtype else kind)
    if dtype:
        kind = np.dtype(jnp.dtype(dtype))
    params: Params = {}
    for leaf in plan:
        node = params
        for part in leaf.path[:-1]:
            node = node.setdefault(part, {})
        where = _sharding_of(sharding, leaf.path)
        node[leaf.path[-1]] = _read(leaf, stored, kind, where)
    return dataclasses.replace(config, dtype=kind.name, param_dtype=kind.name), params


def _sharding_of(sharding: Any, path: tuple[str, ...]) -> jax.sharding.Sharding:
    if sharding is None:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    for part in path:
        if isinstance(sharding, jax.sharding.Sharding):
            break
        sharding = sharding[part]
    return sharding


def _check(
    folder: pathlib.Path,
    config: DecoderConfig,
    plan: list[Leaf],
    stored: Mapping[str, tensors.Stored],
    kind: np.dtype | None,
) -> None:
    """Raises `UserError` unless the folder holds exactly the parameters of `plan`."""
    wanted = {name: _stored_shape(leaf) for leaf in plan for name in leaf.names}
    fix = "Its config.json and its weights are not of one model; get both from one place."
    for name, shape in wanted.items():
        if name not in stored:
            raise UserError(f"{folder} lacks the tensor {name} {list(shape)}. {fix}")
        have = stored[name]
        if have.shape != shape:
            raise UserError(
                f"{folder} holds {name} as {list(have.shape)}, where config.json asks for "
                f"{list(shape)}. {fix}"
            )
        if kind is not None and have.dtype != kind:
            raise UserError(
                f"{folder} holds {name} as {have.dtype}, where config.json asks for {kind}: "
                f"give dtype={kind.name!r} to have it cast."
            )
        if not jnp.issubdtype(have.dtype, jnp.floating):
            raise UserError(f"{folder} holds {name} as {have.dtype}: give one of floats.")
    for name in stored:
        if name in wanted or name.endswith(_IGNORED):
            continue
        if not (name == "lm_head.weight" and config.tie_embeddings):
            raise UserError(f"{folder} has the tensor {name}, which the model has not. {fix}")
        embed = stored["model.embed_tokens.weight"].open()
        if not np.array_equal(stored[name].open(), embed):
            raise UserError(
                f"{folder} holds lm_head.weight apart from the embedding, while config.json ties "
                "them: set tie_word_embeddings to false."
            )


def _read(
    leaf: Leaf,
    stored: Mapping[str, tensors.Stored],
    kind: np.dtype,
    sharding: jax.sharding.Sharding,
) -> jax.Array:
    """The parameter on its devices, each one's part made from the rows and columns it has."""

    def turned(name: str, index: tuple[slice, ...]) -> np.ndarray:
        data = stored[name].open()
        return (data.T if leaf.transposed else data)[index]

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        index = index or (slice(None),) * len(leaf.shape)
        if not leaf.stacked:
            return np.ascontiguousarray(turned(leaf.names[0], index), kind)
        names = leaf.names[index[0]]
        sizes = (len(range(*i.indices(n))) for i, n in zip(index[1:], leaf.shape[1:], strict=True))
        out = np.empty((len(names), *sizes), kind)
        for i, name in enumerate(names):
            out[i] = turned(name, index[1:])
        return out

    return jax.make_array_from_callback(leaf.shape, sharding, part)


_layer = jax.jit(lambda value, i: value[i])


def _to_host(value: jax.Array, i: int | None) -> np.ndarray:
    """A parameter, or layer i of it, as numpy."""
    if all(device.platform == "cpu" for device in value.devices()) and len(value.devices()) == 1:
        data = np.asarray(value)  # no copy
        return data if i is None else data[i]
    return np.asarray(parallel.to_host(value if i is None else _layer(value, i)))


def named_tensors(config: DecoderConfig, params: Params) -> dict[str, tensors.Pending]:
    """Parameters as Hugging Face names and lays them out; raises `UserError` for another shape."""
    found = {}
    for leaf in leaves(config):
        value: Any = params
        for part in leaf.path:
            value = value[part]
        if tuple(value.shape) != leaf.shape:
            path = ".".join(leaf.path)
            raise UserError(f"{path} is {value.shape}: the config asks for {leaf.shape}.")
        for i, name in enumerate(leaf.names):

            def make(value=value, i=i if leaf.stacked else None, leaf=leaf) -> np.ndarray:
                data = _to_host(value, i)
                return data.T if leaf.transposed else data

            found[name] = tensors.Pending(np.dtype(value.dtype), _stored_shape(leaf), make)
    return found


def save(
    folder: str | pathlib.Path,
    config: DecoderConfig,
    params: Params,
    *,
    shard_bytes: int = 5 * 10**9,
    like: str | pathlib.Path | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model that `load` and transformers read.

    With several processes all must call it; process 0 writes.

    Args:
      folder: made if it is not there; a model in it is replaced.
      config: of the decoder.
      params: without adapters (`lora.merge` first).
      shard_bytes: largest file; beyond it, several and an index.
      like: a folder whose tokenizer and generation files are copied, and whose `config.json`
        gives what ours does not say, such as the ids of special tokens.
      extra: further fields of `config.json`.
    """
    folder = pathlib.Path(folder)
    dtype = np.dtype(params["embed"].dtype).name
    values = hf_config.to_dict(dataclasses.replace(config, param_dtype=dtype))
    if like is not None:
        values = _others(hf_config.read_json(like)) | values
    pending = named_tensors(config, params)
    if not parallel.is_main_process():
        for tensor in pending.values():
            tensor.make()  # gathers what process 0 writes
        return
    tensors.write_folder(folder, pending, shard_bytes)
    text = json.dumps(values | dict(extra or {}), indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n")
    if like is not None and not folder.samefile(like):
        copy_tokenizer(like, folder)


def _others(values: dict[str, Any]) -> dict[str, Any]:
    """Fields that say nothing about the decoder."""
    return {name: value for name, value in values.items() if name.endswith("_token_id")}


def copy_tokenizer(source: str | pathlib.Path, folder: str | pathlib.Path) -> None:
    """Copies the files of `KEPT` that `source` has."""
    for name in KEPT:
        if (pathlib.Path(source) / name).is_file():
            shutil.copyfile(pathlib.Path(source) / name, pathlib.Path(folder) / name)
