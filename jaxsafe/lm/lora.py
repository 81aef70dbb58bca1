# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters on linear layers: y = x W + (alpha / r) (x A) B (Hu et al., arXiv 2106.09685).

    adapters = lora.init(key, config, options)
    loss = lambda adapters: f(lora.attach(params, adapters, options))

The base parameters alone are the reference, so no second copy of them is needed.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import checks, parallel
from jaxsafe.core.checks import UserError
from jaxsafe.lm import decoder, hf, tensors
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.layers import Params

Adapters = dict[str, dict[str, jax.Array]]  # layer: {"a": [L, I, r], "b": [L, r, O]}
TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
_WEIGHTS = "adapter_model.safetensors"


@dataclasses.dataclass(frozen=True)
class Lora:
    """Which layers get an adapter, and how large.

    Attributes:
      rank: r.
      alpha: the pair's product is scaled by alpha / r.
      targets: of q, k, v, o, gate, up, down.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = TARGETS

    @property
    def scale(self) -> float:
        """alpha / r."""
        return self.alpha / self.rank


def init(key: jax.Array, config: DecoderConfig, options: Lora) -> Adapters:
    """Adapters of no effect yet: A uniform within 1 / sqrt(I), B zero. `key` is consumed.

    Raises:
      UserError: a target is no linear layer, is named twice, or the rank is below 1.
    """
    checks.check_range("rank", options.rank, 1)
    checks.check_once("targets", options.targets)
    shapes = decoder.linear_shapes(config)
    for name in options.targets:
        checks.check_choice("targets", name, shapes)
    keys = jax.random.split(key, len(options.targets))
    adapters = {}
    for i, name in enumerate(options.targets):
        rows, columns = shapes[name]
        shape, bound = (config.num_layers, rows, options.rank), rows**-0.5
        adapters[name] = {
            "a": jax.random.uniform(keys[i], shape, jnp.float32, -bound, bound),
            "b": jnp.zeros((config.num_layers, options.rank, columns)),
        }
    return adapters


def attach(params: Params, adapters: Adapters, options: Lora) -> Params:
    """The parameters with the adapters beside their kernels, for the decoder to apply."""
    layers = dict(params["layers"])
    for name, pair in adapters.items():
        layers[name] = layers[name] | {"a": pair["a"], "b": options.scale * pair["b"]}
    return params | {"layers": layers}


def merge(params: Params, adapters: Adapters, options: Lora) -> Params:
    """The parameters with W + (alpha / r) A B for W, in W's dtype."""
    layers = dict(params["layers"])
    for name, pair in adapters.items():
        kernel = layers[name]["kernel"]
        change = options.scale * jnp.matmul(pair["a"], pair["b"])
        layers[name] = layers[name] | {"kernel": (kernel + change).astype(kernel.dtype)}
    return params | {"layers": layers}


def _name(layer: int, target: str, part: str) -> str:
    return f"base_model.model.model.layers.{layer}.{hf.MODULES[target]}.lora_{part}.weight"


def save(
    folder: str | pathlib.Path, adapters: Adapters, options: Lora, base: str | None = None
) -> None:
    """Writes adapters as PEFT lays them out; `base` names the model they belong to.

    Numpy arrays are whole; others are gathered, so that every process must ask.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    whole = all(isinstance(x, np.ndarray) for x in jax.tree.leaves(adapters))
    host: Any = adapters if whole else parallel.to_host(adapters)
    pending = {}
    for target, pair in host.items():
        for layer in range(len(pair["a"])):
            for part in "ab":
                data = np.asarray(pair[part][layer]).T
                make = functools.partial(np.asarray, data)
                pending[_name(layer, target, part.upper())] = tensors.Pending(
                    data.dtype, data.shape, make
                )
    if not parallel.is_main_process():
        return
    tensors.write_file(folder / _WEIGHTS, pending)
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": [hf.MODULES[name].split(".")[-1] for name in options.targets],
    }
    (folder / "adapter_config.json").write_text(json.dumps(values, indent=2) + "\n")


def load(folder: str | pathlib.Path, config: DecoderConfig) -> tuple[Lora, Adapters]:
    """Reads adapters that `save` or PEFT wrote for a decoder of this config.

    Raises:
      UserError: a file is missing or damaged, or the adapters are of another model or kind.
    """
    folder = pathlib.Path(folder)
    path = folder / "adapter_config.json"
    names = {hf.MODULES[name].split(".")[-1]: name for name in decoder.linear_shapes(config)}
    try:
        values = json.loads(path.read_text())
        targets = tuple(name for key, name in names.items() if key in values["target_modules"])
        options = Lora(int(values["r"]), float(values["lora_alpha"]), targets)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no LoRA adapter's ({error}): give its folder.") from error
    stored = tensors.read_file(folder / _WEIGHTS)
    like = jax.eval_shape(lambda: init(jax.random.key(0), config, options))
    adapters: Adapters = {target: {} for target in targets}
    for target in targets:
        for part in "ab":
            shape = like[target][part].shape
            parts = []
            for layer in range(shape[0]):
                name = _name(layer, target, part.upper())
                have = stored.pop(name, None)
                if have is None or have.shape != shape[:0:-1]:
                    told = "lacks it" if have is None else f"has {list(have.shape)}"
                    raise UserError(
                        f"{name} should be {list(shape[:0:-1])}, {folder} {told}: give an adapter "
                        "of this model."
                    )
                parts.append(have.open().T)
            adapters[target][part] = jnp.asarray(np.stack(parts))
    if stored:
        raise UserError(f"{folder} has {min(stored)}, for which this model has no place.")
    return options, adapters
