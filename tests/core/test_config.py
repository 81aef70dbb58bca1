# SPDX-License-Identifier: Apache-2.0
"""Configs: validation, JSON round trip, presets, difference and hash."""

import dataclasses
import hashlib
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsafe.core import config as config_lib
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field


@dataclasses.dataclass(frozen=True)
class Net:
    width: int = field(64, "Units.", low=1, high=4096)
    hidden: tuple[int, ...] = field((64, 64), "Layers.", low=1)
    activation: str = field("relu", "Nonlinearity.", choices=("relu", "tanh"))


@dataclasses.dataclass(frozen=True)
class Config:
    gamma: float = field(0.99, "Discount.", low=0, high=1)
    clip: float = field(float("inf"), "Gradient norm.", low=0)
    bounds: tuple[float, float] = field((-1.0, 1.0), "Box.")
    warmup: int | None = field(None, "Warm-up.", low=0)
    compat: bool = field(False, "Literal version.")
    name: str = field("a", "Name.")
    size: int = field(28, "Image size.", choices=(28, 84))
    net: Net = Net()


configs = st.builds(
    Config,
    gamma=st.floats(0, 1) | st.integers(0, 1),
    clip=st.floats(0, allow_nan=False),
    bounds=st.tuples(*[st.floats(allow_nan=False)] * 2),
    warmup=st.none() | st.integers(0, 10**9),
    compat=st.booleans(),
    name=st.text(),
    size=st.sampled_from([28, 84]),
    net=st.builds(
        Net,
        width=st.integers(1, 4096),
        hidden=st.lists(st.integers(1, 512), max_size=4).map(tuple),
        activation=st.sampled_from(["relu", "tanh"]),
    ),
)


@settings(deadline=None)
@given(configs)
def test_config_survives_json(config):
    text = json.dumps(config_lib.to_dict(config), allow_nan=False)
    again = config_lib.from_dict(Config, json.loads(text))
    assert again == config
    assert config_lib.config_hash(again) == config_lib.config_hash(config)
    assert config_lib.diff(again, config) == {}
    config_lib.validate(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.5}, "algo.gamma=1.5 is out of range: give a value in [0, 1]."),
        ({"gamma": float("nan")}, "algo.gamma=nan is not a number: give a float in [0, 1]."),
        ({"gamma": True}, "algo.gamma=True has the wrong type: give a float in [0, 1]."),
        ({"gamma": None}, "algo.gamma=None has the wrong type"),
        ({"warmup": False}, "algo.warmup=False has the wrong type: give an int >= 0 or none."),
        ({"warmup": 1.0}, "algo.warmup=1.0 has the wrong type"),
        ({"warmup": -1}, "algo.warmup=-1 is out of range: give a value in [0, inf]."),
        ({"compat": 1}, "algo.compat=1 has the wrong type: give true or false."),
        ({"bounds": (1.0,)}, "algo.bounds=(1.0,) has 1 values: give 2."),
        ({"bounds": (0.0, float("nan"))}, "algo.bounds[1]=nan is not a number"),
        ({"bounds": [0.0, 1.0]}, "has the wrong type: give a tuple of 2 floats."),
        ({"size": 29}, "algo.size='29' is unknown. Choose one of: 28, 84."),
        ({"net": Net(hidden=(8, 0))}, "algo.net.hidden[1]=0 is out of range"),
        ({"net": Net(width=64.0)}, "algo.net.width=64.0 has the wrong type"),
        ({"net": Net(activation="rely")}, "algo.net.activation='rely' is unknown. Did you mean"),
        ({"net": None}, "algo.net=None has the wrong type: give a Net."),
    ],
)
def test_validate_names_field_value_and_fix(changes, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        config_lib.validate(dataclasses.replace(Config(), **changes), "algo")
    assert "\n" not in str(caught.value)


def test_ints_stand_for_floats_and_hash_alike():
    one, same = Config(gamma=1), Config(gamma=1.0)
    config_lib.validate(one)
    assert config_lib.config_hash(one) == config_lib.config_hash(same)
    zero = Config(gamma=-0.0)
    assert config_lib.config_hash(zero) == config_lib.config_hash(Config(gamma=0.0))


def test_hash_is_short_stable_and_sees_nested_fields():
    text = '{"activation": "relu", "hidden": [64, 64], "width": 64}'
    assert config_lib.config_hash(Net()) == hashlib.sha256(text.encode()).hexdigest()[:12]
    changed = Config(net=Net(width=65))
    assert config_lib.config_hash(changed) != config_lib.config_hash(Config())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d | {"gama": 1.0}, "algo.gama is not a field of Config. Did you mean 'gamma'?"),
        (lambda d: {k: d[k] for k in d if k != "clip"}, "algo.clip is missing"),
        (lambda d: d | {"gamma": "abc"}, "algo.gamma='abc' has the wrong type"),
        (lambda d: d | {"gamma": 2}, "algo.gamma=2 is out of range"),
        (lambda d: d | {"bounds": 3}, "algo.bounds=3 has the wrong type"),
        (lambda d: d | {"bounds": [[1], 2]}, "algo.bounds[0]=[1] has the wrong type"),
        (lambda d: d | {"net": 3}, "algo.net=3 has the wrong type: give a mapping"),
        (lambda d: d | {"net": d["net"] | {"wide": 1}}, "algo.net.wide is not a field of Net"),
    ],
)
def test_from_dict_refuses(change, message):
    with pytest.raises(UserError, match=re.escape(message)):
        config_lib.from_dict(Config, change(config_lib.to_dict(Config())), "algo")


def test_presets_and_diff():
    presets = {"demo": Config(), "paper": Config(gamma=0.9, net=Net(width=256))}
    assert config_lib.get_preset(presets, "paper").gamma == 0.9
    with pytest.raises(UserError, match=r"Did you mean 'demo'\? Choose one of: demo, paper"):
        config_lib.get_preset(presets, "demp")
    found = config_lib.diff(presets["demo"], presets["paper"])
    assert found == {"gamma": (0.99, 0.9), "net.width": (64, 256)}
    with pytest.raises(TypeError, match="Net"):
        config_lib.diff(Config(), Net())


@pytest.mark.parametrize("hint", [dict, int | float, tuple[int, float], list[int], Net | None])
def test_an_unsupported_annotation_is_a_programming_error(hint):
    cls = dataclasses.make_dataclass("Bad", [("x", hint, None)], frozen=True)
    with pytest.raises(TypeError, match=r"Bad\.x: a config field cannot be"):
        config_lib.kinds(cls)


def test_text_forms_are_strict():
    for text in ("abc", "1.5", "1e400", "nan", ""):
        with pytest.raises(UserError, match=f"x={text} has the wrong type: give an int"):
            config_lib.from_text("x", text, config_lib.Kind(int), {})
    assert config_lib.from_text("x", "2e3", config_lib.Kind(int), {}) == 2000
