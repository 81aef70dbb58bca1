# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's `config.json` of the Llama family, to a `DecoderConfig` and back."""

import json
import pathlib
from typing import Any

from jaxsafe.core import checks
from jaxsafe.core.checks import UserError
from jaxsafe.lm.config import FAMILIES, DecoderConfig, Llama3Scaling, validate

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# Ours against theirs, where a name is all that differs.
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "rms_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}


def read_json(folder: str | pathlib.Path) -> dict[str, Any]:
    """What `folder/config.json` says; raises `UserError` where there is none or it is no JSON."""
    path = pathlib.Path(folder) / "config.json"
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give a model's folder."
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}): download it anew.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no mapping: download it anew.")
    return values


def read(folder: str | pathlib.Path) -> DecoderConfig:
    """The decoder that `folder/config.json` describes, its dtypes as stored there.

    Raises:
      UserError: another architecture, or a switch that this decoder does not have.
    """
    return from_dict(read_json(folder))


def from_dict(values: dict[str, Any]) -> DecoderConfig:
    """The decoder that a `config.json` describes; transformers knows what is left out.

    Raises:
      UserError: as `read`, or a value that transformers refuses or that is of a wrong kind.
    """
    family = str(values.get("model_type"))
    checks.check_choice("model_type", family, FAMILIES)
    from transformers import AutoConfig

    told = {k: v for k, v in values.items() if k not in ("model_type", "transformers_version")}
    try:
        theirs = AutoConfig.for_model(family, **told)
    except Exception as error:  # of several kinds, each one's text on many lines
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"config.json is refused by transformers: {reason}.") from error
    try:
        config = _decoder(family, theirs, values)
        validate(config)
    except UserError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"config.json has a value of a wrong kind ({error}).") from error
    return config


def _decoder(family: str, theirs: Any, values: dict[str, Any]) -> DecoderConfig:
    """The decoder of a `config.json` that transformers has made whole."""
    sizes: dict[str, Any] = {ours: getattr(theirs, name) for ours, name in _SIZES.items()}
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    window, layers = _windows(family, theirs)
    theta, scaling = _rope(theirs.rope_parameters or {})
    _check_known(theirs)
    dtype = str(values.get("dtype") or values.get("torch_dtype") or "float32")
    dtype = dtype.removeprefix("torch.")
    return DecoderConfig(
        **sizes,
        family=family,
        head_dim=head_dim,
        rope_theta=theta,
        rope_scaling=scaling,
        sliding_window=window,
        window_layers=layers,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        dtype=dtype,
        param_dtype=dtype,
    )


def _check_known(theirs: Any) -> None:
    """Raises `UserError` for what the decoder does not compute."""
    for name in ("attention_bias", "mlp_bias"):
        if getattr(theirs, name, False):
            raise UserError(f"config.json has {name}=true: only models without it can be read.")
    if theirs.hidden_act not in ("silu", "swish"):
        raise UserError(f"config.json has hidden_act={theirs.hidden_act!r}: only silu can be read.")


def _windows(family: str, theirs: Any) -> tuple[int | None, tuple[bool, ...] | None]:
    window = getattr(theirs, "sliding_window", None)
    if family in ("llama", "mistral"):
        return (window if family == "mistral" else None), None
    flags = tuple(kind == "sliding_attention" for kind in theirs.layer_types)
    if window is None or not any(flags):
        return None, None
    return window, None if all(flags) else flags


def _rope(values: dict[str, Any]) -> tuple[float, Llama3Scaling | None]:
    """Base and scaling of either form, which transformers has made one of."""
    kind, theta = values.get("rope_type", "default"), float(values.get("rope_theta", 10_000.0))
    if kind == "default" and float(values.get("partial_rotary_factor") or 1.0) == 1.0:
        return theta, None
    if kind != "llama3":
        raise UserError(f"config.json has rope {values}: only default and llama3 can be read.")
    return theta, Llama3Scaling(
        float(values["factor"]),
        float(values["low_freq_factor"]),
        float(values["high_freq_factor"]),
        int(values["original_max_position_embeddings"]),
    )


def to_dict(config: DecoderConfig) -> dict[str, Any]:
    """A `config.json` for `config`; the rope in both forms, so that older readers find theirs.

    Raises:
      UserError: the family has no field for what the config asks.
    """
    _check_family(config)
    values: dict[str, Any] = {
        "architectures": [_CLASSES[config.family]],
        "model_type": config.family,
        "hidden_act": "silu",
        "head_dim": config.head_dim,
        "dtype": config.param_dtype,
        "torch_dtype": config.param_dtype,
    } | {theirs: getattr(config, ours) for ours, theirs in _SIZES.items()}
    rope: dict[str, Any] = {"rope_type": "default"}
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        rope = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low,
            "high_freq_factor": scaling.high,
            "original_max_position_embeddings": scaling.original,
        }
        values["rope_scaling"] = dict(rope)
    values["rope_theta"] = config.rope_theta
    values["rope_parameters"] = rope | {"rope_theta": config.rope_theta}
    return values | _window_fields(config)


def _check_family(config: DecoderConfig) -> None:
    """Raises `UserError` where `config.family`'s models are made otherwise."""
    name = config.family
    has = {
        "qkv_bias": (config.qkv_bias, name == "qwen2"),
        "qk_norm": (config.qk_norm, name == "qwen3"),
    }
    for field, (given, fixed) in has.items():
        if given != fixed:
            raise UserError(
                f"{field}={given} is not what family={name!r} has: set {field}={fixed}."
            )
    if config.sliding_window is not None and name == "llama":
        raise UserError(f"sliding_window={config.sliding_window} is not for family='llama'.")
    if config.window_layers is not None and name == "mistral" and not all(config.window_layers):
        raise UserError("window_layers of family='mistral' must all be true: set it to None.")
    if name == "qwen2" and config.head_dim * config.num_heads != config.hidden_size:
        raise UserError(
            f"head_dim={config.head_dim} of family='qwen2' must be hidden_size / num_heads = "
            f"{config.hidden_size / config.num_heads:g}."
        )


def _window_fields(config: DecoderConfig) -> dict[str, Any]:
    if config.family == "llama":
        return {}
    if config.family == "mistral":
        return {"sliding_window": config.sliding_window}
    flags = config.windows()
    kinds = ["sliding_attention" if flag else "full_attention" for flag in flags]
    # Older readers slide from `max_window_layers` on.
    return {
        "use_sliding_window": any(flags),
        "sliding_window": config.sliding_window,
        "max_window_layers": flags.index(True) if any(flags) else config.num_layers,
        "layer_types": kinds,
    }
