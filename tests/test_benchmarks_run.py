# SPDX-License-Identifier: Apache-2.0
"""One page over all benchmarks, with ratios between rows of the same setting."""

import json
import pathlib
import subprocess
import sys

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
