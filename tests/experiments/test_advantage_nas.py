# SPDX-License-Identifier: Apache-2.0
"""The AdvantageNAS binary from end to end: a small toy, a small table, a small supernet."""

import dataclasses
import json
import random
import re
import shutil

import numpy as np
import pytest

from experiments import advantage_nas
from jaxsafe.advantage_nas import enumeration, oracle, stages, strings, tables
from jaxsafe.advantage_nas import experiment as experiments
from jaxsafe.core import parallel, program
from jaxsafe.core.flags import RunOptions

from . import binaries
from .binaries import assert_same_rows, json_rows, snapshot

MODULE = "experiments.advantage_nas"
RUN = ("--seed=0", "--num_seeds=2", "--devices=1", "--noprogress")
TOY = [
    *("--preset=toy", "--methods=advantage,rloo", "--toy.steps=400", "--toy.positions=3"),
    *("--toy.channels=3", "--toy.lr=0.02", "--log_every=20", "--checkpoint_every=20", *RUN),
]
TABULAR = [
    *("--preset=tabular", "--tabular.queries=40", "--tabular.searches=50"),
    *("--log_every=10", "--seed=0", "--num_seeds=2", "--devices=2", "--noprogress"),
]
IMAGES = [
    *("--methods=advantage,random", "--images.channels=2", "--images.batch_size=16"),
    *("--search.epochs=4", "--search.freeze_epochs=1", "--search.steps_per_epoch=10"),
    *("--scoring.candidates=3", "--scoring.retrain.steps=5", "--scoring.retrain_seeds=2"),
    *("--scoring.ranked=4", "--log_every=5", "--checkpoint_every=5", *RUN),
]
TEXT = [
    *("--preset=text", "--methods=advantage", "--text.streams=2", "--text.length=4"),
    *("--text.units=4", "--search.epochs=2", "--search.steps_per_epoch=10", "--search.weight_lr=1"),
    *("--scoring.retrain.steps=20", "--scoring.retrain_seeds=1", "--scoring.retrain.rate=1"),
    *("--log_every=10", *RUN),
]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The small toy, never stopped; tests that change it take a copy."""
    return binaries.unbroken(tmp_path_factory, "advantage_nas", MODULE, TOY)


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """A table of every cell of six edges: the worth of its edges, and noise."""
    rng = np.random.default_rng(0)
    choice = enumeration.architectures(6, 5)
    valid = 70 + 3 * rng.normal(size=(6, 5))[np.arange(6), choice].sum(axis=1)
    columns = {"cifar10_valid": valid, "cifar10_test": valid + rng.normal(size=len(choice))}
    path = tmp_path_factory.mktemp("table") / "cells.csv"
    tables.save(path, tables.Table(strings.NB201_OPS, choice, columns))
    return path


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """Seven words, one sentence."""
    folder = tmp_path_factory.mktemp("text")
    for name, lines in (("train", 60), ("valid", 20), ("test", 20)):
        (folder / f"ptb.{name}.txt").write_text("the cat sat on the mat\n" * lines)
    return folder


def test_a_run_of_the_toy_leaves_what_the_readme_promises(finished):
    assert {p.name for p in finished.iterdir()} == {
        *("config.json", "metrics.jsonl", "eval.jsonl", "timing.json", "log.txt"),
        *("summary.json", "checkpoints", "plots"),
    }
    rows = json_rows(finished / "metrics.jsonl")
    assert [(r["stage"], r["step"], r["seed"]) for r in rows] == [
        (method, step, seed)
        for method in ("advantage", "rloo")
        for step in range(20, 401, 20)
        for seed in (0, 1)
    ]
    assert (finished / "plots/toy.png").read_bytes().startswith(b"\x89PNG")
    mine = [r for r in rows if r["stage"] == "advantage"]
    assert mine[-1]["toy/entropy"] < mine[0]["toy/entropy"]


def test_the_summary_of_the_toy_is_what_its_rows_say(finished):
    summary = json.loads((finished / "summary.json").read_text())["results"]
    rows = json_rows(finished / "metrics.jsonl")
    assert [r["method"] for r in summary] == ["advantage", "rloo"]
    for told in summary:
        for step, name in ((300, "loss_at_300_per_seed"), (400, "loss_per_seed")):
            expected = [
                100 * r["toy/loss"]
                for r in rows
                if (r["stage"], r["step"]) == (told["method"], step)
            ]
            np.testing.assert_allclose(told[name], expected)
        assert told["median"] == pytest.approx(np.median(told["loss_per_seed"]))
        assert told["low"] <= told["median"] <= told["high"]


def test_eval_tells_the_same_again(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    (out / "eval.jsonl").unlink()
    before = snapshot(out / "checkpoints")
    done = binaries.run(MODULE, "--mode=eval", f"--out={out}", "--noprogress")
    assert done.returncode == 0, done.stderr
    assert "AdvantageNAS" in done.stdout and "picture:" in done.stdout
    assert_same_rows(out, finished)
    assert snapshot(out / "checkpoints") == before


def test_searches_of_a_table_are_told_beside_the_exact_one(table, tmp_path):
    out = tmp_path / "run"
    done = binaries.run(MODULE, *TABULAR, f"--table={table}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "summary.json").read_text())["results"]
    cells = tables.load(table)
    exact = oracle.random_search(
        cells.columns["cifar10_valid"], cells.columns["cifar10_test"], [40]
    )
    by = {row["method"]: row for row in results}
    assert list(by) == ["random", "evolution", "reinforce", "rloo"]
    for row in results:
        assert row["oracle"] == pytest.approx(exact.mean[0]) and row["searches"] == 100
        assert row["low"] < row["score"] < row["high"]
        assert row["score"] == pytest.approx(np.mean(row["score_per_seed"]))
        assert row["agrees"] == (row["low"] <= row["oracle"] <= row["high"])
        assert 0 <= row["curve_agrees"] <= 1
    assert abs(by["random"]["score"] - exact.mean[0]) < 4 * exact.sd[0] / 10
    queries = {r["stage"]: r["queries"] for r in json_rows(out / "metrics.jsonl")}
    assert set(queries.values()) == {40}
    assert (out / "plots/tabular.png").exists()


def test_a_dry_run_tells_what_a_search_on_a_table_holds(table, tmp_path):
    out = tmp_path / "run"
    asked = [*TABULAR, "--methods=random,rloo", f"--table={table}", f"--out={out}", "--dry_run"]
    done = binaries.run(MODULE, *asked)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^random +40 +30 ", done.stdout, re.MULTILINE)  # steps, six edges of five
    assert re.search(r"^rloo +20 +30 ", done.stdout, re.MULTILINE)
    assert "nothing was trained" in done.stdout and not out.exists()


@pytest.mark.parametrize("preset", experiments.PRESETS)
def test_every_preset_can_be_described(preset, table, text_folder):
    """What --dry_run prints of each, with the numbers that make it large cut down."""
    given = experiments.PRESETS[preset]
    images = dataclasses.replace(given.images, folder="digits", channels=1, cells=1, batch_size=2)
    text = dataclasses.replace(given.text, folder=str(text_folder), units=2, streams=2)
    small = dataclasses.replace(
        given,
        methods=given.methods[:1],
        table=str(table) if given.task == "tabular" else None,
        images=images,
        text=text,
    )
    experiments.validate_experiment(small)
    (stage,) = stages.stages(small)
    options = RunOptions(num_seeds=1, log_every=1)
    told = program.build(stage, options, parallel.seed_mesh(1)).describe()
    assert stage.num_steps > 0 and told["parameters"] > 0 and told["compile_s"] >= 0


BAD_INPUT = [
    (["--methods=advantag"], r"'advantag' is unknown\. Did you mean 'advantage'\?"),
    (["--methods=rloo,rloo"], r"methods='rloo,rloo' is empty or repeats one"),
    (["--methods=evolution"], r"'evolution', which cannot run on task='images'"),
    (["--task=tabular", "--methods=advantage"], r"cannot run on task='tabular': choose from"),
    (["--search.freeze_epochs=400"], r"leaves theta nothing"),
    (["--search.estimator.zero_rule=worst"], r"zero_op=None leaves .*zero_rule='worst'"),
    (["--search.theta_lr=-1"], r"--search\.theta_lr=-1\.0 is out of range"),
    (["--search.teta_lr=1"], r"Unknown flag --search\.teta_lr\. Did you mean --search\.theta_lr"),
    (["--preset=tabular", "--tabular.queries=3"], r"tabular\.queries=3 is odd"),
    (["--toy.channels=1"], r"--toy\.channels=1 is out of range"),
    (["--search.estimator.method=gdas"], r"method=gdas has no effect: give --methods=gdas"),
    (["--preset=text", "--table=cells.csv"], r"task=text has others: drop it"),
    (["--preset=tabular", "--tabular.method=rloo"], r"no effect: give --methods=rloo"),
]


def test_bad_input_is_one_line_and_exit_code_2_and_touches_nothing(finished, tmp_path):
    before = snapshot(finished)
    cases = [[*given, f"--out={finished}", "--only_check_args"] for given, _ in BAD_INPUT]
    binaries.assert_refused(MODULE, cases, [pattern for _, pattern in BAD_INPUT], tmp_path)
    assert snapshot(finished) == before


def test_files_that_are_absent_are_named(tmp_path):
    cases = [
        ["--preset=tabular", f"--out={tmp_path / 'run'}"],
        ["--preset=tabular", "--table=absent.csv", f"--out={tmp_path / 'run'}"],
        [f"--images.folder={tmp_path / 'absent'}", f"--out={tmp_path / 'run'}"],
        ["--preset=text", f"--out={tmp_path / 'run'}"],
        ["--preset=paper", f"--out={tmp_path / 'run'}"],
    ]
    patterns = [
        r"--table is not given: name a \.csv or \.json file",
        r"absent\.csv cannot be read",
        r"absent: there is no such folder",
        r"--text\.folder is not given: name a folder",
        r"--images\.folder is not given: name a folder with CIFAR's archive",
    ]
    binaries.assert_refused(MODULE, cases, patterns, tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_supernet_is_searched_killed_and_scored(table, tmp_path):
    whole = tmp_path / "whole"
    done = binaries.run(MODULE, *IMAGES, f"--table={table}", f"--out={whole}")
    assert done.returncode == 0, done.stderr
    results = json.loads((whole / "summary.json").read_text())["results"]
    cells = tables.load(table)
    for row in results:
        for seed, text in enumerate(row["architecture_per_seed"]):
            place = cells.place(strings.decode(text))
            assert row["cifar10_test_per_seed"][seed] == cells.columns["cifar10_test"][place]
            assert 0 <= row["accuracy_per_seed"][seed] <= 1
        assert np.shape(row["retrained_per_seed"]) == (2, 2)
        assert row["retrained_mean"] == pytest.approx(np.mean(row["retrained_per_seed"]))
        assert len(row["rank_correlation_per_seed"]) == 2
        assert all(-1 <= x <= 1 for x in (*row["rank_correlation_per_seed"], row["rank_ceiling"]))
    assert results[1]["confidence_per_seed"] == pytest.approx([0.25, 0.25], abs=1e-5)
    rows = json_rows(whole / "metrics.jsonl")
    edge = [v for name, v in rows[-1].items() if name.startswith("p/2-3/")]
    assert len(edge) == 4 and sum(edge) == pytest.approx(1, abs=1e-5)
    assert rows[0]["theta/loss"] == 0 and rows[-1]["weights/loss"] < rows[0]["weights/loss"]
    for name in ("training_loss", "theta_advantage", "theta_random"):
        assert (whole / f"plots/{name}.png").read_bytes().startswith(b"\x89PNG")
    cut = tmp_path / "cut"
    arguments = [*IMAGES, f"--table={table}"]
    binaries.kill_and_resume(MODULE, arguments, cut, [(3, 12)], random.Random(9))
    assert_same_rows(cut, whole)


@pytest.mark.slow
def test_a_recurrent_cell_is_searched_retrained_and_drawn(text_folder, tmp_path):
    out = tmp_path / "run"
    done = binaries.run(MODULE, *TEXT, f"--text.folder={text_folder}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((out / "summary.json").read_text())["results"]
    rows = json_rows(out / "metrics.jsonl")
    first = [r["weights/perplexity"] for r in rows if r["step"] == 10]
    assert max(row["perplexity_per_seed"]) < min(first)  # seven words, one sentence
    assert np.shape(row["retrained_per_seed"]) == (2, 1)
    assert len(row["parameters_per_seed"]) == 2
    film = binaries.run(MODULE, "--mode=render", f"--out={out}")
    assert film.returncode == 0, film.stderr
    assert (out / "plots/cell_advantage.png").read_bytes().startswith(b"\x89PNG")


def test_help_lists_the_searchs_fields():
    done = binaries.run(MODULE, "--help")
    assert done.returncode == 0 and done.stderr == ""
    text = " ".join(done.stdout.split())
    rate = advantage_nas.BINARY.presets["demo"].search.theta_lr
    assert f"--search.theta_lr Adam's learning rate, theta. [a float >= 0; default {rate}]" in text
