# SPDX-License-Identifier: Apache-2.0
"""A binary's command line end to end: exit codes, one line on stderr, --help."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import jaxsafe
from jaxsafe.core import config as config_lib
from tests.core.test_flags import Algo

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

LEFT = []
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
        LEFT.append(type("Left", (), dict(__del__=lambda self: 1 / 0))())  # told at the very end
        raise UserError("out='x' is taken: give --resume.")
    if ACTION.value == "interrupt":
        raise KeyboardInterrupt
    if ACTION.value == "dropped interrupt":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below nohup
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


ENV = {**os.environ, "PYTHONPATH": str(Path(jaxsafe.__file__).parents[1])}


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "demo.py"
    path.write_text(DEMO.format(tests=os.path.dirname(__file__)))
    return [sys.executable, str(path)]


@pytest.fixture(scope="module")
def demo(command):
    def call(*args):
        done = subprocess.run([*command, *args], capture_output=True, text=True, env=ENV)
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


def test_help_of_which_nobody_reads_the_end_is_no_error(command):
    """As `--help | head` has it: the reader is gone before anything is written."""
    read, write = os.pipe()
    os.close(read)
    call = [*command, "--help"]
    done = subprocess.run(call, stdout=write, stderr=subprocess.PIPE, text=True, env=ENV)
    os.close(write)
    assert done.returncode == 0 and done.stderr == ""
