# SPDX-License-Identifier: Apache-2.0
"""The Makefile in a copy of its own, with programs that only pretend."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGETS = [
    *("help", "venv", "demo", "test", "test-slow", "test-gpu"),
    *("lint", "format", "bench", "wheel", "clean"),
]
DEMO = "python -m experiments.m2td3 {} --out=runs/m2td3-demo\n"

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


@pytest.fixture
def tree(tmp_path):
    """A folder, with a space in its name, that has what the Makefile looks at."""
    folder = tmp_path / "a copy"
    (folder / "constraints").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints/py311.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


OUTER = ("MAKE", "MFLAGS", "PYTHON", "JAX_")


def make(tree, *arguments, **env):
    """Runs make as a user would: from elsewhere, without what an outer make left behind."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(OUTER)}
    command = ["make", "--no-print-directory", "-C", str(tree), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=ours | env, cwd=tree.parent)


def program(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def set_up(tree, body="exit 0"):
    """A .venv that counts as finished; its Python runs `body`."""
    program(tree / ".venv" / "bin" / "python", body)
    for stamp in (".created", ".runtime", ".test", ".gpu", ".peers"):
        (tree / ".venv" / stamp).touch()


def test_help_describes_every_target(tree):
    for done in (make(tree), make(tree, "help")):
        assert done.returncode == 0
        described = dict(re.findall(r"^  ([a-z-]+) +(\S.+)$", done.stdout, re.M))
        assert list(described) == TARGETS
    phony = re.search(r"^\.PHONY: (.*)$", (tree / "Makefile").read_text(), re.M)
    assert phony[1].split() == TARGETS


def test_demo_runs_the_promised_command(tree):
    done = make(tree, "-n", "demo")
    assert done.returncode == 0
    assert done.stdout.endswith(DEMO.format("--preset=demo"))
    assert "-m venv .venv" in done.stdout and "test,parity" not in done.stdout


@pytest.mark.parametrize(
    ("files", "flag"),
    [
        ([], "--preset=demo"),
        (["config.json"], "--resume"),
        (["config.json", "summary.json"], "--mode=eval"),
    ],
)
def test_demo_again_does_what_is_left(tree, files, flag):
    set_up(tree)
    for name in files:
        path = tree / "runs" / "m2td3-demo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert make(tree, "-n", "demo").stdout == ".venv/bin/" + DEMO.format(flag)


def test_set_up_is_done_once_and_again_after_a_change(tree):
    set_up(tree)
    assert "pip" not in make(tree, "-n", "venv", "test").stdout
    later = (tree / ".venv" / ".gpu").stat().st_mtime + 10
    os.utime(tree / "constraints" / "py311.txt", (later, later))
    assert make(tree, "-n", "venv").stdout.count("pip install") == 1
    assert make(tree, "-n", "test").stdout.count("pip install") == 2


def test_bench_measures_beside_peers_that_it_installs(tree):
    set_up(tree)
    assert make(tree, "-n", "bench").stdout == ".venv/bin/python -m benchmarks.run --peers\n"
    (tree / ".venv" / ".peers").unlink()
    done = make(tree, "-n", "bench").stdout
    assert done.count("pip install") == 1 and "'.[test,parity,peers]'" in done
    assert "pip" not in make(tree, "-n", "test").stdout


@pytest.mark.parametrize("found", ["2.7", "3.9", "3.10", ""])
def test_old_or_missing_python_is_one_line_with_the_fix(tree, found):
    old = tree / "old python"
    if found:
        program(old, f"echo {found}")
    done = make(tree, "demo", f"PYTHON={old}")
    assert done.returncode != 0 and not (tree / ".venv").exists()
    lines = [x for x in done.stderr.splitlines() if not x.startswith("make")]
    assert len(lines) == 1 and done.stdout == ""
    assert (found or "no Python") in lines[0] and "make PYTHON=python3.12 demo" in lines[0]


@pytest.mark.parametrize("found", ["3.11", "3.12", "3.20"])
def test_new_python_makes_the_venv(tree, found):
    new = program(tree / "new python", f'case "$2" in venv) mkdir .venv;; *) echo {found};; esac')
    done = make(tree, ".venv/.created", f"PYTHON={new}")
    assert done.returncode == 0 and done.stdout == f"making .venv with Python {found}\n"


# pytest's exit status: 0 passed, 1 failed, 5 nothing selected.
@pytest.mark.parametrize("target", ["test", "test-slow"])
@pytest.mark.parametrize(
    ("main", "devices", "good"),
    [(0, 0, True), (0, 5, True), (1, 0, False), (5, 0, False), (0, 1, False), (1, 5, False)],
)
def test_tests_fail_where_either_process_fails(tree, target, main, devices, good):
    log = tree / "log"
    told = "${JAX_DISABLE_MOST_OPTIMIZATIONS:-0} $* $XLA_FLAGS"
    set_up(tree, f'echo "{told}" >> "{log}"\n')
    with (tree / ".venv" / "bin" / "python").open("a") as file:
        file.write(f'case "$*" in *"not device8"*) exit {main};; *) exit {devices};; esac\n')
    done = make(tree, target, XLA_FLAGS="--mine")
    assert (done.returncode == 0) == good
    first, second = log.read_text().splitlines()
    assert "-n 2" in first and first.endswith("not device8 --mine")
    assert second.endswith("and device8 --mine --xla_force_host_platform_device_count=8")
    assert ("not slow" in first) == ("not slow" in second) == (target == "test")
    # The slow ones are compiled as users have it.
    assert all(line[0] == ("1" if target == "test" else "0") for line in (first, second))
