# SPDX-License-Identifier: Apache-2.0
"""Each binary, killed, stopped, poisoned and out of disk, writes the rows of an unbroken run.

One run of each goes through all of it, a start after the other, so that each start costs what it
traces, and no more than one of them trains to the end.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import pytest

from jaxsafe.core import checkpoint
from jaxsafe.lm import tiny
from tests.core import toy

from . import (
    binaries,
    test_advantage_nas,
    test_image_to_semantics,
    test_m2td3,
    test_pls,
    test_sacpo,
    test_tsdi,
)
from .binaries import assert_same_rows, json_rows, snapshot


class Case(NamedTuple):
    """A binary and the run that is to survive.

    Attributes:
      name: of the system.
      unbroken: of the run never stopped, by which other tests share it.
      arguments: of both.
      scored: whether scoring is compared too, not the training alone.
      slow: all but one, whose seven starts take half a minute of a core.
      more: makes what it reads, once for all tests; returns arguments that name it.
    """

    name: str
    unbroken: str
    arguments: list[str]
    scored: bool = True
    slow: bool = False
    more: Callable[[pytest.TempPathFactory], list[str]] | None = None

    def given(self, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
        """All of its arguments, once what they name is made."""
        return [*self.arguments, *(self.more(tmp_path_factory) if self.more else [])]


def two_models(tmp_path_factory) -> list[str]:
    """Folders of two random models with one tokenizer, and a file of prompts."""
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "head_dim": 8}
    config = dataclasses.replace(tiny.CONFIG, vocab_size=280, intermediate_size=24, **sizes)

    def make(folder):
        texts = ["how do I bake bread", "tell me how to pick a lock"]
        for number, name in enumerate(("safe", "reference")):
            tiny.make(folder / name, texts, jax.random.key(number), config)
        (folder / "prompts.csv").write_text("prompt,label\nbread?,safe\nlock?,unsafe\n")

    folder = toy.once(tmp_path_factory, "two_models", make)
    given = [f"--correct.folders.{name}={folder / name}" for name in ("safe", "reference")]
    return [*given, f"--correct.folders.prompts={folder / 'prompts.csv'}"]


# The engine that compiles in a moment; MJX's is killed by its own tests.
ANALYTIC = [*test_m2td3.SMALL, "--engine=analytic"]
ONE_METHOD = [
    *(*test_image_to_semantics.SMALL, "--study.methods=paired", "--study.budgets=2"),
    *("--algo.vae_steps=8", "--algo.head_steps=8", "--log_every=1", "--checkpoint_every=1"),
]
# The estimate alone; models that the run itself trains are the slow case's.
TABLE = [
    *(*test_tsdi.FEW, *test_tsdi.RUN, "--preset=folder", "--correct.bias.draws=64"),
    "--correct.folders.template=USER: {input}",
    *("--correct.decoding.lengths=", "--correct.decoding.alphas=", "--correct.decoding.samples=1"),
    *("--correct.decoding.raised=0", "--correct.decoding.gate=false"),
    *(f"--correct.baselines.{x}=" for x in ("temperatures", "interpolations", "penalties")),
    *("--correct.baselines.contrasts=", "--correct.sensitivity.draws="),
    *("--correct.sensitivity.prefixes=", "--correct.sensitivity.pools="),
]
CASES = [
    Case("m2td3", "m2td3_analytic", ANALYTIC, slow=True),
    Case("pls", "pls", test_pls.SMALL),
    Case("sacpo", "sacpo", test_sacpo.SMALL, slow=True),
    Case("tsdi", "tsdi_folders", TABLE, slow=True, more=two_models),
    Case("tsdi", "tsdi", test_tsdi.SMALL, scored=False, slow=True),
    Case("advantage_nas", "advantage_nas", test_advantage_nas.TOY, slow=True),
    Case("image_to_semantics", "i2s_one_method", ONE_METHOD, slow=True),
]
PARAMETERS = [
    pytest.param(case, id=case.unbroken, marks=[pytest.mark.slow] * case.slow) for case in CASES
]


class Ended(NamedTuple):
    """Exit code, standard output and standard error of a start."""

    code: int
    out: str
    err: str


class Nursery:
    """Starts of one binary, one at a time."""

    def __init__(self, module: str, folder: pathlib.Path):
        self.log = str(folder / "start")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.experiments.nursery", module],
            cwd=toy.ROOT,
            env=binaries.ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def begin(self, *arguments, **trouble) -> int:
        """Starts the binary; returns its process id."""
        given = [str(argument) for argument in arguments]
        asked = {"arguments": given, "log": self.log, "trouble": trouble}
        self.process.stdin.write(json.dumps(asked) + "\n")
        return int(self.process.stdout.readline())

    def running(self) -> bool:
        return not select.select([self.process.stdout], [], [], 0)[0]

    def end(self) -> Ended:
        """Waits for the last start."""
        code = int(self.process.stdout.readline())
        texts = (pathlib.Path(f"{self.log}.{kind}").read_text() for kind in ("out", "err"))
        return Ended(code, *texts)

    def run(self, *arguments, **trouble) -> Ended:
        self.begin(*arguments, **trouble)
        return self.end()

    def signalled(self, signum, out, num_rows, delay, *arguments) -> Ended:
        """Starts it, and sends a signal once metrics.jsonl has so many rows."""
        child, path = self.begin(*arguments), out / "metrics.jsonl"
        while self.running():
            if path.exists() and path.read_bytes().count(b"\n") >= num_rows:
                time.sleep(delay)
                os.kill(child, signum)
                break
            time.sleep(0.002)
        return self.end()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def read_only(folder):
    """Takes the permission to write from a folder and all in it."""
    paths = [folder, *folder.rglob("*")]
    modes = [path.stat().st_mode for path in paths]
    try:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode & ~0o222)
        yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


def last_step(out, stage):
    return checkpoint.steps(out / "checkpoints" / stage)[-1]


def assert_stopped(ended, out):
    """After SIGTERM: the exit code, one line, and a checkpoint of the step it names."""
    assert ended.code == 128 + signal.SIGTERM and ended.err == "", ended
    line = ended.out.splitlines()[-1]
    told = re.fullmatch(r"SIGTERM: stopped (\S+) at step (\d+); --resume goes on .*", line)
    assert told and last_step(out, told[1]) == int(told[2]), line
    assert (out / "log.txt").read_text().endswith(line + "\n")


def assert_poisoned(ended, out, bad, good):
    """After a NaN: step, seed and metric in one line, and the state of the row before."""
    assert ended.code == 1 and ended.err.count("\n") == 1, ended
    assert re.match(
        rf"error: {re.escape(bad['stage'])}: [\w/.-]+ of seed 1 is nan at step {bad['step']}\. "
        rf"The last good state, of step {good}, is in ",
        ended.err,
    ), ended.err
    assert last_step(out, bad["stage"]) == good
    rows = [row["step"] for row in json_rows(out / "metrics.jsonl") if same_stage(row, bad)]
    assert max(rows, default=0) == good


def same_stage(row, other):
    return row["stage"] == other["stage"]


def assert_out_of_disk(ended, out, before):
    """One line, exit code 2, and every row and checkpoint from before is still there."""
    assert ended.code == 2 and ended.err.count("\n") == 1, ended
    assert re.match(r"error: .*(cannot be written|cannot write) .*File too large", ended.err), ended
    rows, steps, stage = before
    assert (out / "metrics.jsonl").read_bytes().startswith(rows)
    assert last_step(out, stage) >= steps


def count_rows(out):
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill(nursery, out, most, chance, delay, *arguments):
    """SIGKILL at a row drawn from those that are not there yet, the first `most` if possible."""
    low = count_rows(out) + 2
    row = chance.randint(low, max(low, most))
    killed = nursery.signalled(signal.SIGKILL, out, row, delay, *arguments)
    assert killed.code == -signal.SIGKILL and not (out / "summary.json").exists(), killed


def test_every_binary_is_put_through_it():
    folders = toy.ROOT.glob("jaxsafe/*/README.md")
    assert {case.name for case in CASES} == {path.parent.name for path in folders}


@pytest.mark.parametrize("case", PARAMETERS)
def test_a_run_survives_whatever_happens_to_it(case, tmp_path_factory, tmp_path):
    module = f"experiments.{case.name}"
    arguments = case.given(tmp_path_factory)
    whole = binaries.unbroken(tmp_path_factory, case.unbroken, module, arguments)
    rows, out, chance = json_rows(whole / "metrics.jsonl"), tmp_path / "run", random.Random(8)
    given, resume = [*arguments, f"--out={out}"], ["--resume", f"--out={out}"]
    # About three quarters on; the row before it has the last good state.
    bad = rows[3 * len(rows) // 4]
    good = max(
        (r["step"] for r in rows if same_stage(r, bad) and r["step"] < bad["step"]), default=0
    )
    nursery = Nursery(module, tmp_path)
    with contextlib.closing(nursery):
        kill(nursery, out, len(rows) // 4, chance, chance.random() / 20, *given)

        before = snapshot(out)
        with read_only(out):
            refused = nursery.run(*resume, humble=True)
        assert refused.code == 2 and refused.err.count("\n") == 1, refused
        assert re.match(rf"error: {out}/\S+ cannot be written \(Permission den", refused.err)
        assert snapshot(out) == before

        low = count_rows(out) + 2
        row = chance.randint(low, max(low, 5 * len(rows) // 8))
        assert_stopped(nursery.signalled(signal.SIGTERM, out, row, 0, *resume), out)

        poisoned = nursery.run(*resume, poison=[bad["stage"], bad["step"], 1])
        assert_poisoned(poisoned, out, bad, good)

        files = [path for path in out.iterdir() if path.is_file()]
        before = (out / "metrics.jsonl").read_bytes(), good, bad["stage"]
        largest = max(path.stat().st_size for path in files)
        assert_out_of_disk(nursery.run(*resume, limit=largest + 20), out, before)

        kill(nursery, out, len(rows) - 2, chance, chance.random() / 20, *resume)
        if case.scored:
            done = nursery.run(*resume)
            assert done.code == 0, done
            assert_same_rows(out, whole)
        else:
            nursery.signalled(signal.SIGKILL, out, len(rows), 0, *resume)
            assert_same_rows(out, whole, ["metrics.jsonl"])
