# SPDX-License-Identifier: Apache-2.0
"""The SACPO binary from end to end, in stages, killed, on files, and on tables."""

import json
import shutil

import jax
import numpy as np
import pytest

from experiments import sacpo
from jaxsafe.lm import hf, lora

from . import binaries
from .binaries import assert_same_rows, json_rows, snapshot

MODULE = "experiments.sacpo"
RUN = ("--seed=0", "--num_seeds=2", "--devices=1", "--noprogress")
TINY = [
    *("--model.hidden_size=16", "--model.heads=2", "--model.kv_heads=2"),
    *("--model.layers=1", "--model.intermediate_size=24", "--model.vocab_size=300"),
    *("--sft.epochs=1", "--helpful.epochs=1", "--safe.epochs=1"),
]
SMALL = [
    *("--task.prompts=60", "--task.held_out=6", "--task.demonstrations=320", "--task.pairs=320"),
    *TINY,
    *("--merges=0.5", "--eval.samples=2", "--eval.max_new=6"),
    *("--log_every=1", "--checkpoint_every=2", *RUN),
]
MEMBERS = ("sft", "helpful", "safe@0.25", "mixed", "helpful_safe@0.25", "safe_helpful@0.25")
MERGED = ("p_sacpo@0.25:0.5", "naive@0.25:0.5")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The small run, never stopped; tests that change it take a copy."""
    return binaries.unbroken(tmp_path_factory, "sacpo", MODULE, SMALL)


def test_every_stage_leaves_rows_and_a_hugging_face_folder(finished):
    rows = json_rows(finished / "metrics.jsonl")
    assert list(dict.fromkeys(row["stage"] for row in rows)) == list(MEMBERS)
    assert rows[-1]["rows"] == 5 * 64
    for name in (*MEMBERS, *MERGED):
        for seed in (0, 1):
            folder = finished / "models" / name / f"seed{seed}"
            hf.load(folder)
            assert (folder / "tokenizer.json").is_file()
            assert len(json_rows(folder / "answers.jsonl")) == 12
    assert (finished / "plots/pareto.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_is_of_every_policy(finished):
    summary = json.loads((finished / "summary.json").read_text())["results"]
    names = [row["policy"] for row in summary]
    assert sorted(names) == sorted((*MEMBERS, *MERGED, "geometric@0.25:0.5"))
    scores = json_rows(finished / "eval.jsonl")
    for row in summary:
        mine = [s for s in scores if s["policy"] == row["policy"]]
        assert [s["seed"] for s in mine] == [0, 1]
        assert row["reward"] == pytest.approx(np.mean([s["reward"] for s in mine]))
        assert row["reward_low"] <= row["reward"] <= row["reward_high"]
        assert row["meets_bound"] == sum(s["safety"] >= 0.9 for s in mine)
    helpful = next(row for row in summary if row["policy"] == "helpful")
    assert 0 < helpful["helpful_accuracy"] < 1 and helpful["helpful_nll"] > 0


@pytest.mark.slow
def test_stage_by_stage_gives_what_one_run_gives(finished, tmp_path):
    out = tmp_path / "run"
    first = binaries.run(MODULE, *SMALL, "--stage=sft", f"--out={out}")
    assert first.returncode == 0, first.stderr
    assert sorted(p.name for p in (out / "models").iterdir()) == ["sft"]
    for stage in ("helpful", "all"):
        done = binaries.run(MODULE, "--resume", f"--stage={stage}", f"--out={out}")
        assert done.returncode == 0, done.stderr
    assert_same_rows(out, finished)


@pytest.mark.slow
def test_eval_scores_again(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    before = snapshot(out / "checkpoints")
    done = binaries.run(MODULE, "--mode=eval", f"--out={out}", "--eval.samples=1", "--noprogress")
    assert done.returncode == 0, done.stderr
    assert len(json_rows(out / "models/sft/seed0/answers.jsonl")) == 6
    assert snapshot(out / "checkpoints") == before


@pytest.mark.slow
def test_a_finished_run_takes_further_ratios(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    before = snapshot(out / "checkpoints")
    done = binaries.run(MODULE, "--resume", f"--out={out}", "--ratios=0.5,0.25", "--noprogress")
    assert done.returncode == 0, done.stderr
    after = snapshot(out / "checkpoints")
    assert {name: after[name] for name in before} == before
    summary = json.loads((out / "summary.json").read_text())["results"]
    names = {row["policy"] for row in summary}
    assert {"safe@0.5", "safe_helpful@0.5", "p_sacpo@0.5:0.5", "p_sacpo@0.25:0.5"} <= names


@pytest.mark.slow
def test_files_of_pairs_train_too(finished, tmp_path):
    """From a folder that a run left; its pairs are of the synthetic task."""
    from jaxsafe.sacpo import synthetic

    data = synthetic.draw(synthetic.Task(prompts=40, held_out=2, pairs=300))
    files = {"helpful": data.helpful, "safe": data.safe, "test": data.held_out_helpful}
    for name, rows in files.items():
        text = "".join(json.dumps(row._asdict()) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    out = tmp_path / "run"
    flags = [
        *("--preset=real", *TINY, "--log_every=2", *RUN, "--num_seeds=1"),
        *(f"--files.{x}={tmp_path}/{x}.jsonl" for x in files),
        *("--policies=helpful,helpful_safe", f"--text.template={synthetic.TEMPLATE}"),
        *(f"--model.folder={finished}/models/sft/seed0", "--merges=0.5"),
        *("--eval.samples=1", "--eval.max_new=4", f"--out={out}"),
    ]
    done = binaries.run(MODULE, *flags)
    assert done.returncode == 0, done.stderr
    assert "300 records (pairs)" in (out / "log.txt").read_text()
    summary = json.loads((out / "summary.json").read_text())["results"]
    assert {"sft", "helpful", "helpful_safe@0.1"} <= {row["policy"] for row in summary}
    assert all("reward" not in row and row["helpful_nll"] != 0 for row in summary)
    shares = {row["policy"]: row["test_accuracy"] for row in summary}
    assert all(0 < shares[name] < 1 for name in ("helpful", "helpful_safe@0.1"))


@pytest.mark.slow
@pytest.mark.parametrize("losses", [("dpo", "kto"), ("kto", "dpo")], ids="-".join)
def test_a_stage_may_be_kto(losses, tmp_path):
    """Each loss in its order, on pairs and on labels of single answers; KTO's rows tell of z0."""
    out = tmp_path / "run"
    chosen = (
        f"--{stage}.loss={loss}" for stage, loss in zip(("helpful", "safe"), losses, strict=True)
    )
    flags = (*SMALL, *chosen, "--policies=helpful_safe", "--safe.kto_balance=interleave")
    done = binaries.run(MODULE, *flags, f"--out={out}")
    assert done.returncode == 0, done.stderr
    rows = json_rows(out / "metrics.jsonl")
    for name, loss in zip(("helpful", "helpful_safe@0.25"), losses, strict=True):
        mine = [row for row in rows if row["stage"] == name]
        assert mine and all(("policy/baseline" in row) == (loss == "kto") for row in mine)
        assert all(row.get("policy/baseline", 0) >= 0 for row in mine)
        # At the start a policy is its own reference.
        first = mine[0]["policy/loss"]
        assert first == pytest.approx(0.5 if loss == "kto" else np.log(2), abs=0.05)
    summary = json.loads((out / "summary.json").read_text())["results"]
    assert {"sft", "helpful", "helpful_safe@0.25"} <= {row["policy"] for row in summary}


@pytest.mark.slow
def test_a_stage_that_trains_adapters_goes_on_where_it_was_stopped(finished, tmp_path):
    """It writes the merged model and the adapter; what it started from is as it was."""
    out = tmp_path / "run"
    adapted = ("--helpful.lora.rank=2", "--helpful.lora.targets=q,v", "--policies=helpful")
    begin = (*SMALL, *adapted, f"--model.folder={finished}/models/sft/seed0", "--stage=helpful")
    before = snapshot(finished / "models/sft/seed0")
    done = binaries.run(MODULE, *begin, f"--out={tmp_path}/whole")
    assert done.returncode == 0, done.stderr
    binaries.kill(MODULE, [*begin, f"--out={out}"], out, 6, 0.0)
    done = binaries.run(MODULE, "--resume", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert_same_rows(out, tmp_path / "whole", ("metrics.jsonl",))
    for seed in (0, 1):
        policy = out / "models/helpful" / f"seed{seed}"
        config, merged = hf.load(policy)
        options, adapters = lora.load(policy / "adapter", config)
        assert (options.rank, options.targets) == (2, ("q", "v"))
        base = hf.load(finished / "models/sft/seed0")[1]
        for x, y in zip(
            jax.tree.leaves(lora.merge(base, adapters, options)),
            jax.tree.leaves(merged),
            strict=True,
        ):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)
        assert np.abs(adapters["q"]["b"]).max() > 0
    assert snapshot(finished / "models/sft/seed0") == before


def test_tables_are_solved(tmp_path):
    out = tmp_path / "run"
    small = ("--tables.pairs=50,2000", "--tables.prompts=2", "--tables.responses=3")
    done = binaries.run(MODULE, "--preset=known_answers", *small, *RUN, f"--out={out}")
    assert done.returncode == 0, done.stderr
    few, many = (
        [r for r in json.loads((out / "summary.json").read_text())["results"] if r["pairs"] == n]
        for n in (50, 2000)
    )
    assert len(few) == len(many) == 2
    assert max(r["divergence"] for r in many) < min(r["divergence"] for r in few)
    assert "wrong reference" in (out / "log.txt").read_text()


BAD_INPUT = [
    (["--stage=helpfull"], r"'helpfull' is unknown\. Did you mean 'helpful'\?"),
    (["--ratios=0.1,0.1"], r"ratios='0\.1,0\.1' is empty or repeats one"),
    (["--helpful.temperature=0"], r"--helpful\.temperature=0\.0 is out of range"),
    (["--model.heads=3"], r"hidden_size=64 does not give 3 heads an even width"),
    (["--safe.loss=kto", "--safe.kto_balance=both", "--safe.batch_size=5"], r"give an even one"),
    (["--helpful.accumulation=3"], r"batch_size=64 is no multiple of helpful\.accumulation=3"),
    (["--sft.loss=dpo"], r"sft\.loss='dpo' is no likelihood"),
    (["--text.template=USER"], r"template='USER' must be 'chat', or hold \{input\} once"),
]


def test_bad_input_is_one_line_and_exit_code_2_and_touches_nothing(finished, tmp_path):
    before = snapshot(finished)
    cases = [[*given, f"--out={finished}", "--only_check_args"] for given, _ in BAD_INPUT]
    binaries.assert_refused(MODULE, cases, [pattern for _, pattern in BAD_INPUT], tmp_path)
    assert snapshot(finished) == before


def test_files_that_are_absent_are_named_before_anything_is_made(tmp_path):
    out = tmp_path / "run"
    done = binaries.run(MODULE, "--preset=real", f"--out={out}")
    assert done.returncode == 2 and "files.helpful is empty" in done.stderr
    done = binaries.run(MODULE, "--preset=real", "--files.helpful=/none", f"--out={out}")
    assert done.returncode == 2 and "/none cannot be read" in done.stderr
    done = binaries.run(MODULE, "--preset=paper", "--num_seeds=1", f"--out={out}")
    assert done.returncode == 2 and "divide over" not in done.stderr
    assert "name --model.folder and --files.helpful" in done.stderr and not out.exists()


def test_the_presets_are_the_published_recipe():
    paper = sacpo.BINARY.presets["paper"]
    assert (paper.helpful.temperature, paper.ratios) == (0.1, (0.1, 0.05, 0.025, 0.01))
    assert (paper.helpful.batch_size, paper.safe.batch_size) == (256, 64)
    assert paper.helpful.optimiser.learning_rate == 2e-5 and paper.helpful.epochs == 3
