# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a search step runs, at a size that measures nothing."""

import pytest

from tests.test_benchmarks import worker


@pytest.mark.slow
def test_it_times_every_engine_there_is_on_the_same_architectures():
    small = ("--sizes=2x1x2", "--image=4", "--repeats=1", "--chunk=2", "--forms=scan", "--dense=")
    rows = worker("advantage_nas_step", *small)
    assert [row["edges"] for row in rows] == sorted((row["edges"] for row in rows), reverse=True)
    names = [row["what"] for row in rows if row["edges"] == "3x3"]
    assert names[0] == "jaxsafe, scan"
    assert names[1:] in ([], ["PyTorch GDAS", "PyTorch GDAS, lean"])
    for row in rows:
        assert row["rate"] > 0 and row["low"] <= row["high"]
        assert (row["size"], row["batch"], row["cores"]) == ("2x1", 2, 1)
        ours = row["what"].startswith("jaxsafe")
        assert (row["compile_s"] > 0) == ours and ("temporary_mb" in row) == ours
