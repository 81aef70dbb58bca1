# SPDX-License-Identifier: Apache-2.0
"""Flags: config -> flags -> config, precedence, one-line errors."""

import dataclasses

import pytest
from absl import flags as absl_flags
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsafe.core import config as config_lib
from jaxsafe.core import flags
from jaxsafe.core.config import field


@dataclasses.dataclass(frozen=True)
class Actor:
    hidden: tuple[int, ...] = field((64, 64), "Layers.", low=1)
    activation: str = field("relu", "Nonlinearity.", choices=("relu", "tanh"))


@dataclasses.dataclass(frozen=True)
class Algo:
    gamma: float = field(0.99, "Discount factor.", low=0, high=1)
    steps: int = field(1000, "Updates.", low=1)
    compat: bool = field(False, "The literal version.")
    name: str = field("a", "Name.")
    warmup: int | None = field(None, "Warm-up.", low=0)
    fast: bool | None = field(None, "Fast path.")
    box: tuple[float, float] | None = field((-1.0, 1.0), "Box.", low=-10, high=10)
    tags: tuple[str, ...] = field((), "Tags.", choices=("a", "b"))
    actor: Actor = Actor()


PRESETS = {"demo": Algo(), "paper": Algo(gamma=0.9, warmup=5, actor=Actor(hidden=(256,)))}

algos = st.builds(
    Algo,
    gamma=st.floats(0, 1),
    steps=st.integers(1, 10**12),
    compat=st.booleans(),
    name=st.text().filter(lambda s: "\0" not in s),
    warmup=st.none() | st.integers(0),
    fast=st.none() | st.booleans(),
    box=st.none() | st.tuples(*[st.floats(-10, 10)] * 2),
    tags=st.lists(st.sampled_from("ab")).map(tuple),
    actor=st.builds(
        Actor,
        hidden=st.lists(st.integers(1, 512)).map(tuple),
        activation=st.sampled_from(["relu", "tanh"]),
    ),
)


def _define():
    values = absl_flags.FlagValues()
    flags.define_run_flags(values, PRESETS, "demo")
    flags.define_config_flags(Algo, "algo", values)
    return values


def _flags(*args):
    values = _define()
    flags.parse_command_line(["prog", *args], values)
    return values


def _error(capsys, *args, check=None):
    """Returns the one line on stderr with which `args` are refused."""
    with pytest.raises(SystemExit) as caught:
        flags.parse_command_line(["prog", *args], _define(), check)
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and out == "" and err.endswith("\n") and err.count("\n") == 1
    return err[:-1]


@settings(deadline=None)
@given(algos, st.sampled_from(sorted(PRESETS)))
def test_identity_through_flags(config, preset):
    every = _flags(*flags.flag_args(config, "algo"))
    assert flags.overlay(PRESETS[preset], "algo", every) == config
    some = _flags(*flags.flag_args(config, "algo", base=PRESETS[preset]))
    assert flags.overlay(PRESETS[preset], "algo", some) == config


def test_only_given_flags_change_the_preset():
    values = _flags("--preset=paper", "--algo.gamma=0.99", "--algo.actor.activation", "tanh")
    preset = config_lib.get_preset(PRESETS, flags.run_options(values).preset)
    config = flags.overlay(preset, "algo", values)
    # 0.99 is the default, and yet it wins over the preset, as the user gave it.
    actor = Actor(hidden=(256,), activation="tanh")
    assert config == dataclasses.replace(preset, gamma=0.99, actor=actor)
    assert flags.overlay(PRESETS["paper"], "algo", _flags()) == PRESETS["paper"]


def test_resumed_config_stands_between_preset_and_flag():
    resumed = config_lib.from_dict(Algo, config_lib.to_dict(Algo(gamma=0.5, steps=7)))
    config = flags.overlay(resumed, "algo", _flags("--algo.steps=8"))
    assert (config.gamma, config.steps) == (0.5, 8)


@pytest.mark.parametrize(
    ("args", "name", "value"),
    [
        (["--algo.compat"], "compat", True),
        (["--algo.compat", "--noalgo.compat"], "compat", False),
        (["--algo.compat=false"], "compat", False),
        (["--algo.fast=true"], "fast", True),
        (["--algo.warmup=3", "--algo.warmup=none"], "warmup", None),
        (["--algo.steps=1e6"], "steps", 1_000_000),
        (["--algo.box= 0, 2.5"], "box", (0.0, 2.5)),
        (["--algo.box", "-1,1"], "box", (-1.0, 1.0)),
        (["--algo.tags="], "tags", ()),
        (["--algo.name=none"], "name", "none"),
    ],
)
def test_ways_to_write_a_value(args, name, value):
    start = dataclasses.replace(PRESETS["paper"], tags=("a",), box=None)
    got = getattr(flags.overlay(start, "algo", _flags(*args)), name)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--algo.gama=0.9"], "Unknown flag --algo.gama. Did you mean --algo.gamma?"),
        (["--algo.gama", "0.9"], "Unknown flag --algo.gama. Did you mean --algo.gamma?"),
        (["--gamma=0.9"], "Unknown flag --gamma. Did you mean --algo.gamma?"),
        (["--num-seeds=3"], "Unknown flag --num-seeds. Did you mean --num_seeds?"),
        (["--qqq=3"], "Unknown flag --qqq. See --help."),
        (["--algo.gamma=1.5"], "--algo.gamma=1.5 is out of range: give a value in [0, 1]."),
        (["--algo.gamma=abc"], "--algo.gamma=abc has the wrong type: give a float in [0, 1]."),
        (["--algo.gamma=nan"], "--algo.gamma=nan is not a number: give a float in [0, 1]."),
        (["--algo.gamma"], "Missing value for flag --algo.gamma"),
        (["--algo.steps=1.5"], "--algo.steps=1.5 has the wrong type: give an int >= 1."),
        (["--algo.steps=inf"], "--algo.steps=inf has the wrong type: give an int >= 1."),
        (["--algo.compat=maybe"], "--algo.compat=maybe has the wrong type: give true or false."),
        (["--noalgo.compat=1"], "--noalgo.compat=1 does not take an argument"),
        (
            ["--algo.actor.hidden=8,0"],
            "--algo.actor.hidden[1]=0 is out of range: give a value in [1, inf].",
        ),
        (["--algo.box=1"], "--algo.box=(1.0,) has 1 values: give 2."),
        (
            ["--preset=demp"],
            "--preset='demp' is unknown. Did you mean 'demo'? Choose one of: demo, paper.",
        ),
        (["--seed=-1"], "--seed=-1 is out of range: give a value in [0, 4e+09]."),
        (["--num_seeds=0"], "--num_seeds=0 is out of range: give a value in [1, inf]."),
        (
            ["--check_nans=of"],
            "--check_nans='of' is unknown. Did you mean 'off'? Choose one of: off, stop, debug.",
        ),
        (
            ["--resume", "true"],
            "Unexpected argument 'true': write --name=value, and --name or --noname.",
        ),
        (["--flagfile=/no/such"], "Unable to open flagfile: [Errno 2]"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, args, message):
    assert _error(capsys, *args).startswith(message)


def test_check_may_refuse(capsys):
    line = _error(capsys, "--resume", "--overwrite", check=flags.run_options)
    assert line == "error: --resume and --overwrite exclude each other: give one of them."


def test_run_options_have_the_defaults_of_the_binary():
    values = absl_flags.FlagValues()
    defaults = flags.RunOptions(log_every=5, out="runs/x")
    flags.define_run_flags(values, PRESETS, "paper", defaults)
    flags.parse_command_line(["prog", "--noprogress", "--out=none"], values)
    expected = dataclasses.replace(defaults, preset="paper", progress=False, out=None)
    assert flags.run_options(values) == expected
    config_lib.validate(flags.RunOptions())


def test_flagfile_and_override_order(tmp_path):
    file = tmp_path / "x.flags"
    file.write_text("# a comment\n\n--algo.gamma=0.5\n--algo.steps=3\n--algo.compat\n")
    read = f"--flagfile={file}"
    before = flags.overlay(Algo(), "algo", _flags(read, "--algo.gamma=0.6"))
    assert (before.gamma, before.steps, before.compat) == (0.6, 3, True)
    # The value after a space must not hide the file that follows it.
    after = flags.overlay(Algo(), "algo", _flags("--algo.gamma", "0.6", read))
    assert (after.gamma, after.steps) == (0.5, 3)


def test_a_name_taken_is_refused():
    with pytest.raises(absl_flags.DuplicateFlagError):
        flags.define_config_flags(Algo, "algo", _define())


def test_defining_flags_touches_nothing_global():
    before = set(absl_flags.FLAGS)
    _flags("--algo.gamma=0.5")
    assert set(absl_flags.FLAGS) == before
