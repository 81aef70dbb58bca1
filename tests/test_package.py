# SPDX-License-Identifier: Apache-2.0
"""The wheel holds jaxsafe whole and nothing else, and works far from the source tree."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
_LEFT_OUT = (".*", "__pycache__", "*.egg-info", "runs", "build", "dist")

# Runs where only the installed wheel has a jaxsafe to offer first.
_IMPORT_ALL = """
import importlib, pathlib, pkgutil, sys
import jaxsafe

home = pathlib.Path(sys.argv[1]).resolve()
names = [m.name for m in pkgutil.walk_packages(jaxsafe.__path__, "jaxsafe.")]
for name in ["jaxsafe", *names]:
    file = pathlib.Path(importlib.import_module(name).__file__).resolve()
    assert file.is_relative_to(home), f"{name} came from {file}"
    print(file.relative_to(home).as_posix())

from jaxsafe.envs.mujoco_tasks import make
assert make("InvertedPendulum-v5").obs_size == 4
"""


def _run(*command, **kwargs):
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _sources():
    """Files below jaxsafe/, relative to the root."""
    files = (p for p in (ROOT / "jaxsafe").rglob("*") if p.is_file())
    return {p.relative_to(ROOT).as_posix() for p in files if "__pycache__" not in p.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tree without build products."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    assert (tree / "tests" / "test_package.py").exists()  # what must stay out is there to be taken
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    _run(*build, folder, tree, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_jaxsafe_only(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = {n for n in names if n.split("/")[0].endswith(".dist-info")}
        (licence,) = (n for n in info if n.endswith("/LICENSE"))
        text = archive.read(licence).decode()
    assert names - info == _sources()
    assert "jaxsafe/py.typed" in names
    assert any(n.startswith("jaxsafe/envs/assets/") and n.endswith(".xml") for n in names)
    assert "Apache License" in text and text == (ROOT / "LICENSE").read_text()


def test_wheel_works_elsewhere(wheel, tmp_path, monkeypatch):
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run(*pip, "--no-index", "--no-deps", "--target", target, wheel)
    monkeypatch.setenv("PYTHONPATH", str(target))
    out = _run(sys.executable, "-W", "error", "-c", _IMPORT_ALL, target, cwd=elsewhere)
    assert set(out.split()) == {n for n in _sources() if n.endswith(".py")}
