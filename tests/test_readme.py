# SPDX-License-Identifier: Apache-2.0
"""The READMEs are true: examples run, pictures exist, numbers are the committed ones."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks import (
    advantage_nas_tables,
    image_to_semantics_tables,
    m2td3_tables,
    pls_tables,
    sacpo_tables,
    tsdi_tables,
)
from benchmarks.kernels import KERNELS, setting

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FOLDERS = {p.parent.name: p.read_text(encoding="utf-8") for p in ROOT.glob("jaxsafe/*/README.md")}
RESULTS = ROOT / "benchmarks" / "results"
# In the order of the tour.
SYSTEMS = ("m2td3", "pls", "sacpo", "tsdi", "advantage_nas", "image_to_semantics")


FORM = ["Usage", "Methods", "Metrics", "Differences from the paper", "Results", "Speed"]


def examples(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.S)


# What must hold after each example, in the order of the pages.
CHECKS = {
    "advantage_nas-0": (
        "assert abs(report.truth[0, 0] + 0.0525) < 1e-6 and abs(report.mean[0, 0] - 0.245) < 1e-6\n"
        "assert gradient.shape == (1, 2)"
    ),
    "advantage_nas-1": "assert state.step == 10 and metrics['weights/loss'] < 1",
    # A body of mass m keeps 1 - 1/m of its distance at every step, and all have the same starts.
    "contributing": (
        "kept = 1 - 1 / np.arange(1, 5)\n"
        "far = (kept[:, None] ** np.arange(1, 21)).sum(1)\n"
        "np.testing.assert_allclose(found.values / found.values[3], far / far[3], rtol=1e-5)\n"
        "assert found.worst_omega.tolist() == [4.0] and -far[3] < found.worst < 0"
    ),
    "tour-m2td3": (
        "assert metrics['critic/loss'].shape == (64,) and bool((states.step == 2).all())"
    ),
    "tour-pls": (
        "z = grid[trace.point[:, 0]]\n"
        "assert (z[:, 1] ** 2 + 0.5 * z[:, 0] <= 1).all() and best.sum() > 1.3"
    ),
    "tour-sacpo": (
        "assert abs(optimum.safety - 0.6) < 1e-9 and optimum.divergence == 0\n"
        "assert two_stages.divergence < 1e-12\n"
        "assert solution.outcomes['wrong reference'].divergence > 0.1"
    ),
    "tour-tsdi": (
        "softmax = jax.nn.softmax\n"
        "assert abs(softmax(first) - softmax(reference)).max() < 1e-6\n"
        "assert bool((later == safe).all())\n"
        "assert abs(softmax(safe) - softmax(reference)).max() > 0.1"
    ),
    "tour-advantage_nas": (
        "assert abs(report.truth[0, 0] + 0.0525) < 1e-6 and gradient.shape == (1, 2)\n"
        "assert abs(report.mean - report.truth).max() < 1e-6"
    ),
    "tour-image_to_semantics": (
        "assert labels.semantics[0, :3, 0].tolist() == [1, 3, 7]\n"
        "assert labels.mask[0].tolist() == [True, True, True, False]"
    ),
    "image_to_semantics-0": (
        "assert labels.semantics[0, :3, 0].tolist() == [1, 3, 7]\n"
        "assert labels.mask[0].tolist() == [True, True, True, False]"
    ),
    "m2td3-0": "assert metrics['critic/loss'].shape == (2,)",
    "m2td3-1": "assert found.worst == 1000 and found.values.shape == (25,)",
    "tsdi-0": (
        "assert state.count == 8 and table.bias.shape == (4, 4096)\n"
        "assert out.tokens.shape == (1, 8) and abs(table.bias).max() > 2 * table.error.mean() > 0"
    ),
    "pls-0": (
        "z = grid[trace.point[:, 0]]\n"
        "assert (z[:, 1] ** 2 + 0.5 * z[:, 0] <= 1).all() and best.sum() > 1.2"
    ),
    "sacpo-0": "assert reached.divergence < 1e-12 and abs(reached.safety - 0.6) < 1e-6",
    "sacpo-1": "assert abs(metrics['policy/loss'] - 0.693147) < 1e-5 and safe.step == 0",
    "sacpo-2": "assert choice.multiplier > 0 and choice.point.safety >= 0.8",
}


def all_examples() -> dict[str, str]:
    tour = {f"tour-{name}": block for name, block in zip(SYSTEMS, examples(TEXT), strict=True)}
    of_folders = {f"{n}-{i}": b for n, t in FOLDERS.items() for i, b in enumerate(examples(t))}
    (task,) = examples((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))[1:]
    return tour | of_folders | {"contributing": task}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_stop_of_the_tour_is_ten_lines_of_its_system(name):
    block = all_examples()[f"tour-{name}"]
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    assert re.search(rf"^from jaxsafe(\.| import ){name}\b", block, flags=re.M)


# Picture of each system, in the order of the tour.
GALLERY = {
    "m2td3": "m2td3_worst_case.png",
    "pls": "pls_circle.png",
    "sacpo": "sacpo_pareto.png",
    "tsdi": "tsdi_demo.png",
    "advantage_nas": "advantage_nas_demo.png",
    "image_to_semantics": "image_to_semantics_demo.png",
}


def test_the_gallery_has_the_picture_and_the_command_of_each_system():
    section = TEXT.partition("## Gallery")[2].partition("\n## ")[0]
    rows = re.findall(r"`python -m experiments\.(\w+)` \| !\[.+\]\(docs/(\S+)\) \|", section)
    assert rows == [(name, GALLERY[name]) for name in SYSTEMS]


def test_no_demos_picture_is_left_out():
    for path in ROOT.glob("docs/*_demo.png"):
        assert f"](docs/{path.name})" in TEXT, f"the gallery lacks {path.name}"


def test_results_quoted_in_bold_stand_in_their_systems_folder():
    section = TEXT.partition("## Results beside")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| [")]
    assert len(rows) == len(SYSTEMS)
    for row in rows:
        folder, quoted = re.search(r"jaxsafe/(\w+)/", row)[1], re.findall(r"\*\*(.+?)\*\*", row)
        assert quoted, folder
        for number in quoted:
            assert number in FOLDERS[folder].replace("**", ""), (folder, number)


def test_the_map_of_the_house_is_the_house():
    section = TEXT.partition("## The house")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `([\w/]+)` \| \S", section, flags=re.M)
    packages = {f"jaxsafe/{path.parent.name}" for path in ROOT.glob("jaxsafe/*/__init__.py")}
    assert packages <= set(told) and len(set(told)) == len(told)
    assert all((ROOT / path).is_dir() for path in told)
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        folders = {path.split("/")[0] for path in listed.splitlines() if "/" in path}
        there = {name for name in folders if not name.startswith(".")} - {"jaxsafe"}
        assert there == set(told) - packages


def test_every_example_is_run():
    assert set(all_examples()) == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_examples_run(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", f"{all_examples()[name]}\n{CHECKS[name]}\n"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def headings(text: str) -> list[tuple[int, str]]:
    """Level and title of each heading of a page, code left out."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return [(len(m[1]), m[2]) for m in re.finditer(r"^(#+) (.+)$", plain, flags=re.M)]


@pytest.mark.parametrize("folder", SYSTEMS)
def test_the_folders_pages_have_one_form(folder):
    """An opening with the paper, then the same sections in the same order."""
    text = FOLDERS[folder]
    assert [title for level, title in headings(text) if level == 2] == FORM
    assert [level for level, _ in headings(text)][:2] == [1, 2]
    assert max(level for level, _ in headings(text)) == 3
    assert "https://arxiv.org/abs/" in text.partition("\n## ")[0]


def test_links_between_pages_lead_somewhere():
    pages = {ROOT / name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
    pages |= {ROOT / "jaxsafe" / name / "README.md": text for name, text in FOLDERS.items()}

    def anchors(path):
        titles = [title.lower() for _, title in headings(path.read_text())]
        return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}

    links = [(p, x) for p, text in pages.items() for x in re.findall(r"\]\(([^)\s]+)\)", text)]
    assert len(links) > 20
    for page, link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), (page, link)
        assert not anchor or anchor in anchors(path), (page, link)


def test_pictures_are_in_the_tree():
    pages = {ROOT: TEXT} | {ROOT / "jaxsafe" / name: text for name, text in FOLDERS.items()}
    paths = [f / p for f, text in pages.items() for p in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)]
    assert len(paths) >= 2
    for path in paths:
        assert path.stat().st_size > 1000, path


def test_the_demo_table_is_the_committed_result():
    summary = json.loads((RESULTS / "m2td3_demo.json").read_text())
    assert {row["method"] for row in summary["results"]} == {"m2td3_plus", "dr_td3", "td3"}
    for row in summary["results"]:
        worst = " ".join(f"{x:.0f}" for x in row["worst_per_seed"])
        assert re.search(rf"\b{re.escape(worst)}\b", TEXT), (row["method"], worst)


def test_every_speed_in_the_table_is_a_committed_measurement():
    section = TEXT.partition("## Speed")[2].partition("\n## ")[0]
    quoted = {int(x.replace(",", "")) for x in re.findall(r"\*\*([\d,]+)\*\*", section)}
    measured = set()
    for path in RESULTS.glob("*.json"):
        rows = json.loads(path.read_text()).get("rows", [])
        measured |= {round(row["rate"]) for row in rows if "rate" in row}
    assert quoted and quoted <= measured, quoted - measured


@pytest.mark.parametrize(
    ("name", "ours", "peers", "what"),
    [
        ("m2td3_updates", "jaxsafe", ("authors' code",), "times the updates of M2TD3's own code"),
        ("sacpo_dpo", "jaxsafe", ("TRL",), "times TRL's DPO updates"),
        ("lm_generate", "jaxsafe", ("transformers",), "times the tokens"),
        (
            *("advantage_nas_step", "jaxsafe, scan", ("PyTorch GDAS", "PyTorch GDAS, lean")),
            "times the rate of PyTorch's",
        ),
    ],
)
def test_ratios_of_rates_are_the_committed_ones(name, ours, peers, what):
    kernel = KERNELS[name]
    rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    ratios = [
        mine["rate"] / row["rate"]
        for mine in rows
        for row in rows
        if mine[kernel.by] == ours
        and row[kernel.by] in peers
        and setting(mine, kernel) == setting(row, kernel)
    ]
    assert f"{min(ratios):.1f} to {max(ratios):.1f} {what}" in " ".join(TEXT.split())


def test_commands_name_modules_and_targets_that_exist():
    targets = (ROOT / "Makefile").read_text()
    for text in (TEXT, *FOLDERS.values()):
        for target in re.findall(r"\bmake ([a-z-]+)", text):
            assert f"\n{target}:" in targets, target
        for module in re.findall(r"python -m ([\w.]+)", text):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


@pytest.mark.parametrize(
    ("folder", "made"),
    [
        ("m2td3", m2td3_tables),
        ("pls", pls_tables),
        ("sacpo", sacpo_tables),
        ("tsdi", tsdi_tables),
        ("advantage_nas", advantage_nas_tables),
        ("image_to_semantics", image_to_semantics_tables),
    ],
)
def test_the_folders_tables_are_the_committed_results(folder, made):
    tables = made.tables()
    assert tables
    for title, table in tables.items():
        assert table in FOLDERS[folder], title
