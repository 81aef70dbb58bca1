# SPDX-License-Identifier: Apache-2.0
"""Two processes of one run, joined by `jax.distributed` on this machine's CPU."""

import json
import os
import re
import shutil
import socket
import subprocess

import numpy as np
import pytest

from tests.core import toy

COMMON = ["--num_seeds=4", "--steps=20", "--checkpoint_every=10"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def joined(command, timeout=100):
    """Runs a command as two processes of one run; returns `(exit code, stdout, stderr)` of each."""
    address = f"--coordinator=localhost:{free_port()}"
    # Devices that tests force on themselves are not these processes'.
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [*command, "--distributed", address, "--num_processes=2", f"--process_id={i}"],
            cwd=toy.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in range(2)
    ]
    try:
        ends = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(processes, ends, strict=True)]


def pair(*arguments):
    """Runs the toy as two processes."""
    return joined(toy.command(*arguments, "--distributed"))


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A finished run of two processes with two devices each, one seed per device."""

    def make(out):
        first, second = pair(*COMMON, "--devices=4", f"--out={out}")
        assert (first[0], second[0]) == (0, 0), first[2] + second[2]
        # Process 0 alone speaks, but for the library that joins them.
        assert "finished" in first[1]
        assert all(line.startswith("[Gloo]") for line in second[1].splitlines())

    return toy.once(tmp_path_factory, "two", make)


def test_rows_of_all_seeds_are_written_once(two):
    found = [(row["step"], row["seed"]) for row in rows(two)]
    assert found == [(step, seed) for step in (5, 10, 15, 20) for seed in range(4)]
    summary = json.loads((two / "summary.json").read_text())
    assert summary["status"] == "complete" and summary["device"].startswith("4 x cpu")


def test_two_processes_give_the_bits_of_one(two, tmp_path):
    """With one seed per device in both; rows, scores and checkpoints are then equal to the byte."""
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = toy.apart(*COMMON, "--devices=4", f"--out={tmp_path}/one", env=environment)
    assert done.returncode == 0, done.stderr
    for name in ("metrics.jsonl", "eval.jsonl"):
        assert (two / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_one_process_scores_what_two_have_trained(two, tmp_path):
    out = shutil.copytree(two, tmp_path / "run")
    (out / "eval.jsonl").unlink()
    done = toy.apart("--mode=eval", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "line: step 20 of 20" in done.stdout
    assert (out / "eval.jsonl").read_bytes() == (two / "eval.jsonl").read_bytes()


def test_two_processes_go_on_from_a_checkpoint(two, tmp_path):
    """Several seeds per device: numbers agree to rounding, 1e-5 of the value."""
    out = tmp_path / "run"
    for arguments in (COMMON, ["--resume", "--steps=30"]):
        ends = pair(*arguments, f"--out={out}")
        assert [end[0] for end in ends] == [0, 0], ends[0][2] + ends[1][2]
    found = rows(out)
    assert [(row["step"], row["seed"]) for row in found[-4:]] == [(30, i) for i in range(4)]
    assert len(found) == 6 * 4
    for row, other in zip(found, rows(two), strict=False):
        assert row.keys() == other.keys()
        np.testing.assert_allclose(row["loss/mean"], other["loss/mean"], rtol=1e-5)


def test_a_refusal_ends_both_processes(two):
    first, second = pair(*COMMON, "--devices=4", f"--out={two}")
    assert (first[0], second[0]) == (2, 2)
    assert re.search(r"^error: --out=.* is not empty", first[2], re.M)
    assert re.search(r"^error: --out=.* was refused by process 0: see there", second[2], re.M)


def test_a_failure_of_process_0_ends_the_other(two, tmp_path):
    """It would otherwise wait for minutes, and both be killed without a word."""
    out = shutil.copytree(two, tmp_path / "run")
    (out / "plots").write_text("no folder")
    first, second = pair("--mode=render", "--num_seeds=4", f"--out={out}")
    assert (first[0], second[0]) == (1, 2)
    assert "FileExistsError" in first[2]
    assert re.search(r"^error: process 0 failed: see there\.$", second[2], re.M)
