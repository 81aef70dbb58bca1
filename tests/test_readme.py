# SPDX-License-Identifier: Apache-2.0
"""The README is true: its example runs, its pictures exist, its numbers are the committed ones."""

import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def test_the_kernel_example_runs_and_is_ten_lines(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    check = (
        "\nassert metrics['critic/loss'].shape == (64,)\nassert bool((states.step == 2).all())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", block + check],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_pictures_are_in_the_tree():
    paths = re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT)
    assert paths
    for path in paths:
        assert (ROOT / path).stat().st_size > 1000, path


def test_the_demo_table_is_the_committed_result():
    summary = json.loads((RESULTS / "m2td3_demo.json").read_text())
    assert {row["method"] for row in summary["results"]} == {"m2td3", "dr_td3", "td3"}
    for row in summary["results"]:
        worst = " ".join(f"{x:.0f}" for x in row["worst_per_seed"])
        assert re.search(rf"\b{re.escape(worst)}\b", TEXT), (row["method"], worst)


def test_every_speed_in_the_table_is_a_committed_measurement():
    section = TEXT.partition("## Speed")[2].partition("\n## ")[0]
    quoted = {int(x.replace(",", "")) for x in re.findall(r"\*\*([\d,]+)\*\*", section)}
    measured = set()
    for path in RESULTS.glob("*.json"):
        rows = json.loads(path.read_text()).get("rows", [])
        measured |= {round(row["rate"]) for row in rows}
    assert quoted and quoted <= measured, quoted - measured


def test_commands_name_modules_and_targets_that_exist():
    targets = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)", TEXT):
        assert f"\n{target}:" in targets, target
    for module in re.findall(r"python -m ([\w.]+)", TEXT):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
