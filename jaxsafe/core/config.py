# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclass configs: bounds, validation, JSON and text forms, presets, a hash."""

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from jaxsafe.core.checks import UserError, check_choice, check_range, did_you_mean

C = TypeVar("C")
_SCALARS = {float: "float", int: "int", bool: "bool", str: "string"}
_BOOLS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class Kind(NamedTuple):
    """What a field holds: `base`, or a tuple of it, or `None` too where `optional`."""

    base: type
    optional: bool = False
    many: bool = False
    size: int | None = None


class Leaf(NamedTuple):
    """One scalar or tuple field of a config; `path` is dotted, `meta` comes from `field`."""

    path: str
    kind: Kind
    meta: Mapping[str, Any]
    value: Any


def field(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """Returns a `dataclasses.field` that carries its help, closed bounds and choices.

    For a tuple field, bounds and choices hold for each element.
    """
    meta = {"help": help, "low": low, "high": high, "choices": choices and tuple(choices)}
    return dataclasses.field(default=default, metadata=meta)


def dotted(prefix: str, name: str) -> str:
    """Returns `prefix.name`, or `name` where there is no prefix."""
    return f"{prefix}.{name}" if prefix else name


def kinds(cls: Any) -> Mapping[str, Kind]:
    """Returns the `Kind` of each field of a config class, read from the annotations.

    Raises:
      TypeError: an annotation is none of float, int, bool, str, a dataclass, or (for the four
        scalars) `X | None`, `tuple[X, ...]` and `tuple[X, X]`.
    """
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    return {f.name: _kind(hints[f.name], f"{cls.__name__}.{f.name}") for f in fields}


def _kind(hint: Any, name: str) -> Kind:
    inner, optional, size = hint, False, None
    if typing.get_origin(inner) in (typing.Union, types.UnionType):
        args = [a for a in typing.get_args(inner) if a is not types.NoneType]
        optional = len(args) < len(typing.get_args(inner))
        inner = args[0] if len(args) == 1 else None
    many = typing.get_origin(inner) is tuple
    if many:
        args = list(typing.get_args(inner))
        size = None if Ellipsis in args else len(args)
        elements = set(args) - {Ellipsis}
        inner = elements.pop() if len(elements) == 1 else None
    nested = dataclasses.is_dataclass(inner) and not (optional or many)
    if not isinstance(inner, type) or not (nested or inner in _SCALARS):
        raise TypeError(f"{name}: a config field cannot be {hint}.")
    return Kind(inner, optional, many, size)


def leaves(config: Any, prefix: str = "") -> Iterator[Leaf]:
    """Yields every field that is no dataclass, depth first, in the order of definition.

    Raises:
      UserError: a field that should hold a dataclass holds something else.
    """
    for f in dataclasses.fields(config):
        path, kind = dotted(prefix, f.name), kinds(type(config))[f.name]
        value = getattr(config, f.name)
        if not dataclasses.is_dataclass(kind.base):
            yield Leaf(path, kind, f.metadata, value)
        elif isinstance(value, kind.base):
            yield from leaves(value, path)
        else:
            raise UserError(f"{path}={value!r} has the wrong type: give a {kind.base.__name__}.")


def describe(kind: Kind, meta: Mapping[str, Any], joiner: str = "a tuple of") -> str:
    """Returns what a field accepts as a phrase, such as `a float in [0, 1]`."""
    word, article = _SCALARS[kind.base], "an" if kind.base is int else "a"
    text = f"{article} {word}"
    if kind.many:
        text = f"{joiner} {'' if kind.size is None else f'{kind.size} '}{word}s"
    elif kind.base is bool:
        text = "true or false"
    low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
    if choices:
        options = ", ".join(map(str, choices))
        text = f"{text} out of {options}" if kind.many else f"one of {options}"
    elif low is not None and high is not None:
        text += f" in [{low:g}, {high:g}]"
    elif low is not None:
        text += f" >= {low:g}"
    elif high is not None:
        text += f" <= {high:g}"
    return text + (" or none" if kind.optional else "")


def check_value(name: str, value: Any, kind: Kind, meta: Mapping[str, Any]) -> None:
    """Raises `UserError` unless `value` has the type, size, range and choice of its field.

    An int may stand for a float; a bool may not stand for a number; NaN is never accepted.
    """
    if value is None and kind.optional:
        return
    if kind.many and isinstance(value, tuple):
        if kind.size not in (None, len(value)):
            raise UserError(f"{name}={value!r} has {len(value)} values: give {kind.size}.")
        for i, element in enumerate(value):
            check_value(f"{name}[{i}]", element, Kind(kind.base), meta)
        return
    allowed = (int, float) if kind.base is float else kind.base
    is_bool = isinstance(value, bool)
    if kind.many or not isinstance(value, allowed) or is_bool is not (kind.base is bool):
        raise UserError(f"{name}={value!r} has the wrong type: give {describe(kind, meta)}.")
    if isinstance(value, float) and math.isnan(value):
        raise UserError(f"{name}=nan is not a number: give {describe(kind, meta)}.")
    if meta.get("choices"):
        if value not in meta["choices"]:
            check_choice(name, str(value), map(str, meta["choices"]))
    elif isinstance(value, int | float) and not is_bool:
        check_range(name, value, meta.get("low"), meta.get("high"))


def validate(config: Any, prefix: str = "") -> None:
    """Raises `UserError` naming the dotted field, its value and what it accepts."""
    for leaf in leaves(config, prefix):
        check_value(leaf.path, leaf.value, leaf.kind, leaf.meta)


def to_dict(config: Any) -> dict[str, Any]:
    """Returns the config as nested dicts that strict JSON can hold; `from_dict` inverts it.

    Tuples become lists, ints in float fields become floats, infinities become "inf" and "-inf".
    """
    kind_of = kinds(type(config))
    return {n: _to_json(getattr(config, n), kind_of[n].base) for n in kind_of}


def _to_json(value: Any, base: type) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_to_json(v, base) for v in value]
    if value is None or base is not float:
        return value
    # Adding zero turns -0.0 into 0.0, so that equal configs hash equally.
    return str(float(value)) if math.isinf(value) else float(value) + 0.0


def from_dict(cls: type[C], values: Mapping[str, Any], prefix: str = "") -> C:
    """Builds a validated config from what `to_dict` returned.

    Raises:
      UserError: a key is unknown or missing, or a value has the wrong type or range.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix or cls.__name__}={values!r} has the wrong type: give a mapping.")
    kind_of = kinds(cls)
    for key in values:
        if key not in kind_of:
            hint = did_you_mean(key, kind_of)
            raise UserError(f"{dotted(prefix, str(key))} is not a field of {cls.__name__}.{hint}")
    arguments = {}
    for name, kind in kind_of.items():
        path = dotted(prefix, name)
        if name not in values:
            raise UserError(f"{path} is missing: a {cls.__name__} needs a value for every field.")
        if dataclasses.is_dataclass(kind.base):
            arguments[name] = from_dict(kind.base, values[name], path)
        else:
            arguments[name] = _from_json(values[name], kind)
    config = cls(**arguments)
    validate(config, prefix)
    return config


def _from_json(value: Any, kind: Kind) -> Any:
    if kind.many and isinstance(value, list):
        return tuple(_from_json(v, Kind(kind.base)) for v in value)
    return float(value) if kind.base is float and value in ("inf", "-inf") else value


def to_text(value: Any) -> str:
    """Returns a field's value as written after `--name=`; `from_text` inverts it."""
    if isinstance(value, tuple):
        return ",".join(map(to_text, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def from_text(name: str, text: str, kind: Kind, meta: Mapping[str, Any]) -> Any:
    """Returns the value that `text` stands for; whole numbers may be written `1e6`.

    In an optional field `none` stands for `None`, also where the field is a string.

    Raises:
      UserError: the text is no value of that type. Bounds are not looked at.
    """
    if kind.optional and text in ("none", "None"):
        return None
    if kind.many:
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        return tuple(from_text(name, part, Kind(kind.base), meta) for part in parts)
    try:
        return _PARSERS[kind.base](text)
    except (KeyError, ValueError, OverflowError):
        accepted = describe(kind, meta)
        raise UserError(f"{name}={text} has the wrong type: give {accepted}.") from None


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer() or abs(number) > 2**53:
            raise
        return int(number)


_PARSERS: dict[type, Callable[[str], Any]] = {
    float: float,
    int: _int,
    bool: lambda text: _BOOLS[text.lower()],
    str: str,
}


def get_preset(presets: Mapping[str, C], name: str) -> C:
    """Returns `presets[name]`; raises `UserError` with the nearest name where there is none."""
    check_choice("preset", name, presets)
    return presets[name]


def diff(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Returns `{dotted field: (value in a, value in b)}` for the fields that differ.

    Raises:
      TypeError: the configs are of different classes.
    """
    if type(a) is not type(b):
        raise TypeError(f"cannot compare a {type(a).__name__} with a {type(b).__name__}.")
    pairs = zip(leaves(a), leaves(b), strict=True)
    return {x.path: (x.value, y.value) for x, y in pairs if x.value != y.value}


def config_hash(config: Any) -> str:
    """Returns 12 hex digits of SHA-256 over the fields: equal configs have equal hashes."""
    text = json.dumps(to_dict(config), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
