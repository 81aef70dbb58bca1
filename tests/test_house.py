# SPDX-License-Identifier: Apache-2.0
"""The house's rules: imports point one way, heavy ones are late, files and functions are small."""

import ast
import pathlib
import subprocess
import sys

import pytest

from jaxsafe.advantage_nas import METHODS, summaries

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = sorted(path.parent.name for path in ROOT.glob("jaxsafe/*/__init__.py"))
SHARED = {"lm", "gp", "envs", "data", "nn"}
SYSTEMS = set(PACKAGES) - SHARED - {"core"}
# What takes seconds to import, or may be absent.
HEAVY = {"transformers", "torch", "matplotlib", "mujoco", "brax", "gymnax", "gymnasium", "sklearn"}
# Sets of parameters, tasks and images of MuJoCo's models.
NEEDED = {
    "jaxsafe": {"m2td3": {"mujoco"}},
    "experiments": dict.fromkeys(
        ("m2td3", "pls", "image_to_semantics", "source_policy"), frozenset({"mujoco"})
    ),
}


def sources(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path):
    """Names of the jaxsafe packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith(("jaxsafe.", "experiments."))}
        found |= {"experiments" for n in names if n.startswith("experiments.")}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    allowed = {package, "core"} | (set() if package == "core" else SHARED)
    for path in sources(f"jaxsafe/{package}"):
        assert imported(path) <= allowed | {"__version__"}, path


def test_there_are_systems_to_check():
    """Each with its page; the contract and the tests of survival find them by it."""
    assert len(SYSTEMS) >= 6 and set(PACKAGES) > SHARED
    assert {path.parent.name for path in ROOT.glob("jaxsafe/*/README.md")} == SYSTEMS
    assert {path.stem for path in sources("experiments")} >= SYSTEMS


def test_the_package_is_imported_quickly_and_quietly():
    """By processor time, which other processes do not lengthen."""
    code = (
        "import time; start = time.process_time(); import jaxsafe\n"
        "assert time.process_time() - start < 2"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("folder", NEEDED)
def test_heavy_libraries_are_imported_where_they_are_used(folder):
    """One import after the other in a process: those that need a library come last."""
    needed = NEEDED[folder]
    names = PACKAGES if folder == "jaxsafe" else [path.stem for path in sources(folder)]
    code = f"""
import importlib, sys
for name in {sorted(names, key=lambda name: name in needed)!r}:
    importlib.import_module("{folder}." + name)
    print(name, *sorted({HEAVY!r} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == len(names)
    for name, *heavy in lines:
        assert set(heavy) <= needed.get(name, set()), name


def test_binaries_leave_devices_alone_until_flags_are_read():
    """An import that makes an array would fix the number of devices ahead of `--devices`."""
    names = [path.stem for path in sources("experiments")]
    code = f"""
import importlib
from jax._src import xla_bridge
for name in {names!r}:
    importlib.import_module("experiments." + name)
    assert not xla_bridge.backends_are_initialized(), name
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_estimator_has_a_name_for_tables():
    assert set(summaries.NAMES) >= set(METHODS)


@pytest.mark.parametrize("folder", ["jaxsafe", "experiments", "benchmarks", "tests"])
def test_files_and_functions_are_small(folder):
    """300 lines a file; a function, its docstring included, a screen of some 60."""
    paths = sources(folder)
    assert paths
    for path in paths:
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 63, f"{path}: {node.name}"
