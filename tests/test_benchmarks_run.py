# SPDX-License-Identifier: Apache-2.0
"""One page over all benchmarks, with ratios between rows of the same setting."""

import json
import pathlib
import subprocess
import sys
import time

import jax.numpy as jnp
import pytest

from benchmarks import kernels, timing

ROOT = pathlib.Path(__file__).parent.parent


def page(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.run", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


# `benchmarks.run` whose benchmarks only tell how they were called; those of `failing` fail.
STUBBED = """
import sys, types
from benchmarks import run
failing = {failing!r}
def call(command, check):
    assert command[:2] == [sys.executable, "-m"] and not check
    print("called", *command[2:])
    return types.SimpleNamespace(returncode=3 * (command[2].removeprefix("benchmarks.") in failing))
run.subprocess.run = call
run.app.run(run.main)
"""


def stubbed(*arguments, failing=()):
    """The measuring path: the finished process, and the calls it made."""
    done = subprocess.run(
        [sys.executable, "-c", STUBBED.format(failing=list(failing)), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    return done, [line.split()[1:] for line in lines if line.startswith("called ")]


def test_everything_is_measured_ours_alone_or_beside_peers(tmp_path):
    done, calls = stubbed(f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    each = {f"benchmarks.{name}": list(kernel.alone) for name, kernel in kernels.KERNELS.items()}
    assert {name: given for name, *given in calls} == each
    assert "--notrl" in each["benchmarks.sacpo_dpo"]
    assert (tmp_path / "benchmarks.md").exists() and (tmp_path / kernels.PICTURE).exists()
    done, calls = stubbed("--peers", "--only=sacpo_dpo,mjx_steps", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert calls == [["benchmarks.sacpo_dpo"], ["benchmarks.mjx_steps"]]


def test_a_kernel_that_fails_is_told_after_the_others_ran(tmp_path):
    names = ["cdt", "pls_search", "tsdi"]
    done, calls = stubbed(f"--only={','.join(names)}", f"--out={tmp_path}", failing=["pls_search"])
    assert done.returncode == 1
    assert [name for name, *_ in calls] == [f"benchmarks.{name}" for name in names]
    assert "of an earlier run or absent: ['pls_search']" in done.stdout.splitlines()[-1]
    assert (tmp_path / "benchmarks.md").exists()


def test_sides_take_turns_after_each_has_warmed_up():
    order = []

    def side(name):
        return lambda: order.append(name) or time.sleep(0.002)

    turns = timing.Turns({"a": side("a"), "b": side("b")}, work=10, min_s=0.01)
    warm = len(order)
    assert order == sorted(order) and set(order) == {"a", "b"} and min(turns.calls.values()) > 1
    turns.take()
    turns.take()
    assert order[warm:] == (["a"] * turns.calls["a"] + ["b"] * turns.calls["b"]) * 2
    for name, row in turns.found().items():
        assert 0 < row["low"] <= row["rate"] <= row["high"] <= 10 / 0.002
        assert row["repeats"] == 2 and row["calls"] == turns.calls[name] and row["per_cpu_s"] > 0


def test_a_ratio_is_between_rows_of_one_setting():
    kernel = kernels.Kernel("steps/s", "batch", "by", free=("batch",))
    rows = [
        {"cores": 1, "by": "jaxsafe", "batch": 8, "rate": 30.0, "compile_s": 2.0},
        {"cores": 1, "by": "torch", "batch": 9, "rate": 10.0, "compile_s": 0.0},
        {"cores": 2, "by": "jaxsafe, two", "batch": 8, "rate": 50.0, "compile_s": 2.0},
        {"cores": 2, "by": "torch", "batch": 8, "rate": 20.0, "compile_s": 0.0},
        {"cores": 4, "by": "jaxsafe", "batch": 8, "rate": 60.0, "compile_s": 2.0},
    ]
    told = kernels.with_ratios(rows, kernel)
    assert [line.get("x torch") for line in told] == ["3", None, "2.5", None, None]
    assert told[1] == rows[1]


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_kernels_describe_benchmarks_that_are_there(name):
    """They know the flags that leave out peers, and committed rows tell ours from others."""
    kernel, source = kernels.KERNELS[name], (ROOT / f"benchmarks/{name}.py").read_text()
    for flag in kernel.alone:
        word, equals, _ = flag.removeprefix("--").partition("=")
        assert f'"{word if equals else word.removeprefix("no")}"' in source
    for result in kernels.read([name]).values():
        ours = [kernels.is_ours(row, kernel) for row in result["rows"]]
        assert any(ours) and all(row["rate"] > 0 for row in result["rows"])


def test_the_page_tells_what_is_there_and_what_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    row = {"cores": 1, "by": "jaxsafe", "batch": 1, "unequal": False, "rate": 5.0}
    result = {"note": "tokens", "cpu": "some", "date": "2026-01-02", "rows": [row]}
    (tmp_path / "lm_generate.json").write_text(json.dumps(result))
    found = kernels.read(kernels.KERNELS)
    assert list(found) == ["lm_generate"]
    text = kernels.page(found, ["cdt"])
    assert "## lm_generate\n\ntokens. some, 2026-01-02" in text and "| 1 | jaxsafe | 1 |" in text
    assert text.endswith("Not run: cdt.\n")
    assert kernels.picture(tmp_path / "a.png", found).read_bytes().startswith(b"\x89PNG")


def test_committed_results_make_a_page_whole_whatever_is_measured_now(tmp_path):
    done = page("--tables", "--only=pls_search", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "benchmarks.md").read_text()
    assert "x BoTorch" in text
    for name in kernels.KERNELS:
        there = (timing.RESULTS / f"{name}.json").exists()
        assert (f"\n## {name}\n" in text) == there, name
    assert (tmp_path / kernels.PICTURE).exists() and f"]({kernels.PICTURE})" in text


def test_the_committed_page_is_made_of_the_committed_results():
    found = kernels.read(kernels.KERNELS)
    missing = [name for name in kernels.KERNELS if name not in found]
    committed = (timing.RESULTS / "benchmarks.md").read_text()
    assert committed == kernels.page(found, missing), "python -m benchmarks.run --tables writes it"


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_committed_rows_of_ours_have_memory_and_a_line_of_sizes(name):
    kernel = kernels.KERNELS[name]
    ours = [row for row in kernels.read([name])[name]["rows"] if kernels.is_ours(row, kernel)]
    assert sum(row.get("temporary_mb") is not None for row in ours) > len(ours) / 2
    assert kernels.scaling(ours, kernel)


def test_scaling_is_the_rate_by_size_of_rows_alike_in_all_else():
    kernel = kernels.Kernel("steps/s", "batch", "by")
    rows = [
        {"cores": 1, "by": "jaxsafe", "batch": 8, "rate": 30.0, "temporary_mb": 2.0},
        {"cores": 1, "by": "jaxsafe", "batch": 2, "rate": 10.0, "temporary_mb": 1.0},
        {"cores": 2, "by": "jaxsafe", "batch": 8, "rate": 50.0, "temporary_mb": 2.0},
        {"cores": 1, "by": "torch", "batch": 8, "rate": 20.0},
        {"cores": 1, "by": "torch", "rate": 20.0},
    ]
    assert kernels.scaling(rows, kernel) == {"jaxsafe, cores 1": [(2, 10.0), (8, 30.0)]}


def test_a_program_tells_its_temporary_memory():
    """The product of two matrices that no argument or result is has to lie somewhere."""
    x = jnp.ones((256, 256))
    program, costs = timing.compiled(lambda x: (x @ x) @ x, x)
    assert costs["temporary_mb"] >= x.nbytes / 1e6 and costs["compile_s"] > 0
    assert program(x)[0, 0] == 256**2


def test_a_typo_is_one_line():
    done = page("--only=pls_serch")
    assert done.returncode == 2 and done.stderr == ""
    assert done.stdout.startswith("error: --only=pls_serch is no benchmark: choose among m2td3_up")
