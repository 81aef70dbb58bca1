# SPDX-License-Identifier: Apache-2.0
"""The image-to-semantics binary from end to end, small."""

import json
import random
import shutil

import pytest

from experiments import image_to_semantics as binary
from jaxsafe.data import image_episodes
from jaxsafe.image_to_semantics import collect

from . import binaries
from .binaries import assert_same_rows, json_rows, snapshot

MODULE = "experiments.image_to_semantics"
METHODS = ("paired", "augmented", "active", "auto", "ceiling", "unpaired")
SMALL = [
    *("--data.episodes=6", "--data.held_out=2", "--data.source_episodes=8"),
    *("--algo.widths=4,4,4,4,4,4", "--algo.decoder_widths=4,4,4,4", "--algo.latent=4"),
    *("--algo.head_width=8", "--algo.vae_steps=12", "--algo.head_steps=36"),
    *(f"--study.methods={','.join(METHODS)}", "--study.budgets=2,3", "--eval.episodes=2"),
    *("--unpaired.discriminator=8", "--unpaired.dynamics=8", "--unpaired.dynamics_epochs=1"),
    *("--log_every=4", "--checkpoint_every=4", "--seed=0", "--num_seeds=2", "--devices=1"),
    "--noprogress",
]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The small run, never stopped; tests that change it take a copy."""
    return binaries.unbroken(tmp_path_factory, "image_to_semantics", MODULE, SMALL)


def test_a_run_leaves_what_the_readme_promises(finished):
    assert {p.name for p in finished.iterdir()} == {
        *("config.json", "metrics.jsonl", "eval.jsonl", "summary.json", "timing.json", "log.txt"),
        *("checkpoints", "plots"),
    }
    rows = json_rows(finished / "metrics.jsonl")
    assert [(r["step"], r["seed"]) for r in rows] == [
        (step, seed) for step in range(4, 49, 4) for seed in (0, 1)
    ]
    assert rows[0]["heads/loss"] == 0 < rows[-1]["heads/loss"]
    for name in ("returns", "semantics"):
        assert (finished / f"plots/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "plots/transfer.gif").read_bytes().startswith(b"GIF89a")


def test_the_summary_is_the_mean_of_the_rows(finished):
    summary = json.loads((finished / "summary.json").read_text())["results"]
    rows = json_rows(finished / "eval.jsonl")
    wanted = [(m, b) for b in (2, 3) for m in METHODS[:-2]]
    wanted += [("ceiling", 300), ("unpaired", 0)]
    assert [(r["method"], r["annotations"]) for r in summary] == wanted
    labels = {"paired": lambda b: b, "augmented": lambda b: 50 * b, "active": lambda b: 50 * b}
    for row in summary:
        mine = [
            r
            for r in rows
            if (r["method"], r["annotations"]) == (row["method"], row["annotations"])
        ]
        assert len(mine) == row["seeds"] == 2
        for name in ("distance", "on_policy_distance", "return", "normalised"):
            assert row[name] == pytest.approx(sum(r[name] for r in mine) / 2, abs=1e-6)
        for r in mine:
            assert sum(r["errors"].values()) == pytest.approx(r["distance"], rel=1e-4)
            span = r["return_true_state"] - r["return_behaviour"]
            expected = (r["return"] - r["return_behaviour"]) / span
            assert r["normalised"] == pytest.approx(expected, abs=1e-4) and span > 0
        if row["method"] in labels:
            assert row["labels"] == labels[row["method"]](row["annotations"])


@pytest.mark.slow
def test_killed_and_resumed_it_writes_the_same_rows(finished, tmp_path):
    out = tmp_path / "run"
    binaries.kill_and_resume(MODULE, SMALL, out, [(3, 9), (12, 20)], random.Random(3))
    assert_same_rows(out, finished)


@pytest.mark.slow
def test_eval_scores_again_and_render_films(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    before = snapshot(out / "checkpoints")
    fused = binaries.run(MODULE, "--mode=eval", f"--out={out}", "--eval.gain=0.5", "--noprogress")
    assert fused.returncode == 0, fused.stderr
    old, new = json_rows(finished / "eval.jsonl"), json_rows(out / "eval.jsonl")
    assert [r["distance"] for r in old] == [r["distance"] for r in new]
    assert [r["return"] for r in old] != [r["return"] for r in new]
    (out / "plots/transfer.gif").unlink()
    film = binaries.run(MODULE, "--mode=render", f"--out={out}", "--noprogress")
    assert film.returncode == 0, film.stderr
    assert (out / "plots/transfer.gif").exists() and snapshot(out / "checkpoints") == before


BAD_INPUT = [
    (["--data.world=recher"], r"'recher' is unknown\. Did you mean 'reacher'\?"),
    (["--data.level=4"], r"--data\.level=4 is out of range"),
    (["--study.budgets=201"], r"budgets=201 annotates more episodes than the 200"),
    (["--study.budgets="], r"study\.budgets='' is empty"),
    (["--study.methods=augmentd"], r"'augmentd' is unknown\. Did you mean 'augmented'\?"),
    (["--algo.widths=4,4"], r"algo\.widths=4,4 has 2 values: give 6"),
    (["--source.policy=file"], r"source.policy=file and source.file='' do not fit"),
    (["--data.renderer=opengl"], r"data.renderer.*'opengl' is unknown"),
    (["--eval.gain=0"], r"--eval\.gain=0\.0 is out of range"),
    (["--algo.latents=3"], r"Unknown flag --algo\.latents\. Did you mean --algo\.latent"),
]


def test_bad_input_is_one_line_and_exit_code_2_and_touches_nothing(finished, tmp_path):
    before = snapshot(finished)
    cases = [[*given, f"--out={finished}", "--only_check_args"] for given, _ in BAD_INPUT]
    binaries.assert_refused(MODULE, cases, [pattern for _, pattern in BAD_INPUT], tmp_path)
    assert snapshot(finished) == before


@pytest.mark.slow
def test_a_file_of_another_task_is_refused(tmp_path):
    data = collect.collect(collect.Recipe("reacher", 0, 0), 1)
    path = image_episodes.save(tmp_path / "arm.hdf5", data)
    arguments = ("--data.world=hopper", f"--data.file={path}", f"--out={tmp_path / 'run'}")
    done = binaries.run(MODULE, *arguments, "--study.budgets=1")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "key 'actions' has 2 columns and the task 3 actions" in done.stderr
    assert binary.BINARY.system == "image_to_semantics" and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_policy_is_trained_in_the_source_and_serves_again_from_its_file(tmp_path):
    few = [flag for flag in SMALL if not flag.startswith("--study.methods")]
    few += ["--study.methods=paired,augmented,identified"]
    trained = ("--source.policy=trained", "--source.steps=100", f"--out={tmp_path / 'trained'}")
    done = binaries.run(MODULE, *few, *trained)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "trained" / "policy.hdf5"
    given = ("--source.policy=file", f"--source.file={file}", f"--out={tmp_path / 'given'}")
    done = binaries.run(MODULE, *few, *given)
    assert done.returncode == 0, done.stderr
    first, again = (json_rows(tmp_path / name / "eval.jsonl") for name in ("trained", "given"))
    # The file is that of seed 0; data, encoder and predictors do not depend on it.
    assert [r for r in first if r["seed"] == 0] == [r for r in again if r["seed"] == 0]
    assert {"damping", "mass", "gear"} == set(
        next(r["factors"] for r in first if r["method"] == "identified")
    )
    sources = {r["seed"]: r["return_source"] for r in first}
    assert sources[0] != sources[1] and {r["return_source"] for r in again} == {sources[0]}
