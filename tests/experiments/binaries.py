# SPDX-License-Identifier: Apache-2.0
"""How the tests of the binaries run, kill and misuse them."""

import json
import os
import re
import signal
import subprocess
import sys
import time

from tests.core import toy

# Fewer devices to force, and no accelerator to look for.
ENVIRONMENT = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}


def command(module, *arguments):
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(module, *arguments):
    return subprocess.run(
        command(module, *arguments), cwd=toy.ROOT, capture_output=True, text=True, env=ENVIRONMENT
    )


def unbroken(tmp_path_factory, name, module, arguments):
    """A run never stopped, made once for all tests of the session; change a copy of it alone."""

    def make(out):
        done = run(module, *arguments, f"--out={out}")
        assert done.returncode == 0, done.stderr

    return toy.once(tmp_path_factory, name, make)


def snapshot(path):
    """The bytes of every file below a folder."""
    return {p: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def json_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def kill(module, arguments, out, num_rows, delay):
    """Starts the binary and kills it once metrics.jsonl has `num_rows`."""
    process = subprocess.Popen(
        command(module, *arguments),
        cwd=toy.ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    path = out / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= num_rows:
            time.sleep(delay)
            process.kill()
            break
        time.sleep(0.002)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors


def kill_and_resume(module, arguments, out, moments, chance):
    """Kills a run once between each pair of `moments` in rows, resuming it after each."""
    arguments = [*arguments, f"--out={out}"]
    for low, high in moments:
        kill(module, arguments, out, chance.randint(low, high), chance.random() / 10)
        assert not (out / "summary.json").exists()
        arguments = ["--resume", f"--out={out}"]
    done = run(module, *arguments)
    assert done.returncode == 0, done.stderr


def assert_same_rows(out, finished, names=("metrics.jsonl", "eval.jsonl")):
    """Asserts that a run wrote what another one did."""
    for name in names:
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    if "eval.jsonl" in names:
        results = [json.loads((x / "summary.json").read_text())["results"] for x in (out, finished)]
        assert results[0] == results[1]


# Each child is a fresh start of the binary, without the seconds its imports take.
_FORKING = """
import importlib, json, os, sys
from jaxsafe.core import launch

name = sys.argv[2]
module = importlib.import_module(name)
for number, arguments in enumerate(json.loads(sys.argv[1])):
    if os.fork() == 0:
        for stream, kind in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{kind}", os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = [name.replace(".", "/") + ".py", *arguments]
        launch.main(module.BINARY)
    _, status = os.wait()
    with open(f"{number}.rc", "w") as file:
        file.write(str(os.waitstatus_to_exitcode(status)))
"""


def assert_refused(module, cases, patterns, folder):
    """Asserts that each command line is refused in one line that has its pattern, with code 2.

    Args:
      module: of the binary.
      cases: command lines.
      patterns: regular expressions, one for each.
      folder: where to leave what they print.
    """
    code = [sys.executable, "-c", _FORKING, json.dumps(cases), module]
    environment = ENVIRONMENT | {"PYTHONPATH": str(toy.ROOT)}
    subprocess.run(code, cwd=folder, env=environment, check=True, capture_output=True)
    for number, (arguments, pattern) in enumerate(zip(cases, patterns, strict=True)):
        code, out, err = ((folder / f"{number}.{x}").read_text() for x in ("rc", "out", "err"))
        assert code == "2" and out == "", (arguments, code, out, err)
        assert err.count("\n") == 1 and re.search(pattern, err), (arguments, err)
