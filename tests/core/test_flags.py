# SPDX-License-Identifier: Apache-2.0
"""Flags: config -> flags -> config, precedence, one-line errors, and a binary end to end."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags as absl_flags
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxsafe
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


DEMO = '''
"""Demonstrates the flags."""
import signal
import sys
import time
from absl import flags as absl_flags
sys.path.insert(0, {tests!r})
from test_flags import Algo, PRESETS
from jaxsafe.core import config, flags
from jaxsafe.core.checks import UserError

ACTION = absl_flags.DEFINE_string("action", "print", "What to do.")

def resolve(values):
    options = flags.run_options(values)
    result = flags.overlay(config.get_preset(PRESETS, options.preset), "algo", values)
    if result.gamma == 0.123:
        raise UserError("algo.gamma=0.123 is\\nrefused.")
    return options, result

def main(argv):
    options, result = resolve(absl_flags.FLAGS)
    if ACTION.value == "user_error":
        raise UserError("out='x' is taken: give --resume.")
    if ACTION.value == "interrupt":
        raise KeyboardInterrupt
    if ACTION.value == "dropped interrupt":
        type("Gone", (), dict(__del__=lambda self: signal.raise_signal(signal.SIGINT)))()
        time.sleep(20)
    if ACTION.value == "bug":
        raise RuntimeError("a bug")
    if ACTION.value == "code":
        return 3
    print(options.preset, result.gamma, len(argv))
    return dict(summary=1)

if __name__ == "__main__":
    flags.define_run_flags(absl_flags.FLAGS, PRESETS, "demo")
    flags.define_config_flags(PRESETS["demo"], "algo")
    flags.parse_and_run(main, check=resolve)
'''


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "demo.py"
    path.write_text(DEMO.format(tests=os.path.dirname(__file__)))
    root = str(Path(jaxsafe.__file__).parents[1])

    def call(*args):
        command, env = [sys.executable, str(path), *args], {**os.environ, "PYTHONPATH": root}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.mark.parametrize(
    ("args", "code", "out", "err"),
    [
        (["--preset=paper"], 0, "paper 0.9 1\n", ""),
        (["--preset=paper", "--algo.gamma=0.5"], 0, "paper 0.5 1\n", ""),
        (["--only_check_args"], 0, "", ""),
        (["--only_check_args", "--algo.gamma=0.123"], 2, "", "error: algo.gamma=0.123 is refused."),
        (["--only_check_args", "--algo.gamma=7"], 2, "", "--algo.gamma=7.0 is out of range"),
        (["--algo.gama=1"], 2, "", "Unknown flag --algo.gama. Did you mean --algo.gamma?"),
        (["--action=user_error"], 2, "", "error: out='x' is taken: give --resume."),
        (["--action=interrupt"], 130, "", "interrupted"),
        (["--action=dropped interrupt"], 130, "", "interrupted"),
        (["--action=code"], 3, "", ""),
    ],
)
def test_binary_exit_codes_and_lines(demo, args, code, out, err):
    got = demo(*args)
    assert got[:2] == (code, out)
    assert got[2].startswith(err) and got[2].count("\n") == bool(err)


def test_other_errors_keep_their_traceback(demo):
    code, _, err = demo("--action=bug")
    assert code == 1 and "Traceback" in err and "RuntimeError: a bug" in err


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_every_field_in_its_group(demo, flag):
    code, out, err = demo("--algo.gamma=0.5", flag)
    assert code == 0 and err == ""
    assert out.startswith("usage: python ") and "Demonstrates the flags." in out
    for leaf in config_lib.leaves(Algo(), "algo"):
        assert leaf.path in out and leaf.meta["help"] in out
    for text in ("\nrun\n", "\nalgo\n", "\nalgo.actor\n", "--[no]algo.compat", "--action"):
        assert text in out
    assert all(f"--{name}" in out for name in ("flagfile", "only_check_args", "helpfull"))
    flat = " ".join(out.split())
    assert "--algo.gamma Discount factor. [a float in [0, 1]; default 0.99]" in flat
    assert "[one of demo, paper; default demo]" in flat
    assert "[one of off, stop, debug; default stop]" in flat
    assert "The literal version. [default false]" in flat
    assert "Fast path. [true or false or none; default none]" in flat
    assert max(map(len, out.splitlines())) <= 98
