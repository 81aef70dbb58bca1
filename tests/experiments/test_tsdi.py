# SPDX-License-Identifier: Apache-2.0
"""The TSDI binary end to end: trained, killed, reused, on folders of one's own, and planted."""

import json
import random
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxsafe import tsdi
from jaxsafe.lm import hf, reference_cache
from tests import real_data

from . import binaries
from .binaries import assert_same_rows, json_rows, snapshot

MODULE = "experiments.tsdi"
RUN = ("--seed=0", "--num_seeds=2", "--devices=1", "--noprogress")
TINY = [
    *("--align.model.hidden_size=16", "--align.model.heads=2", "--align.model.kv_heads=2"),
    *("--align.model.layers=1", "--align.model.intermediate_size=24"),
    *("--align.model.vocab_size=300", "--align.task.prompts=60", "--align.task.held_out=6"),
    *("--align.task.demonstrations=320", "--align.task.pairs=320"),
    *(f"--align.{x}.epochs=1" for x in ("sft", "helpful", "safe")),
    *("--align.safe.batch_size=16", "--align.safe.optimiser.learning_rate=0.02"),
]
FEW = [
    *("--correct.bias.positions=4", "--correct.bias.draws=16", "--correct.bias.batch_size=4"),
    *("--correct.bias.prompt_length=4", "--correct.decoding.lengths=0,2"),
    *("--correct.decoding.length=4", "--correct.decoding.alpha=1"),
    *("--correct.decoding.alphas=0.5", "--correct.decoding.samples=2"),
    *("--correct.decoding.max_new=5", "--correct.baselines.temperatures=0.5"),
    *("--correct.baselines.interpolations=0.5", "--correct.baselines.penalties=4"),
    *("--correct.sensitivity.draws=8", "--correct.sensitivity.spaces="),
    *("--correct.sensitivity.shrinkages=", "--log_every=1", "--checkpoint_every=2"),
]
SMALL = [*TINY, *FEW, *RUN]
MAIN = "TSDI alpha 1"


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The small run, never stopped; tests that change it take a copy."""
    return binaries.unbroken(tmp_path_factory, "tsdi", MODULE, SMALL)


def results(out):
    return json.loads((out / "summary.json").read_text())["results"]


def test_models_are_trained_and_a_table_is_estimated_of_them(finished):
    rows = json_rows(finished / "metrics.jsonl")
    assert list(dict.fromkeys(row["stage"] for row in rows)) == [
        *("sft", "helpful", "over", "bias_over")
    ]
    assert rows[-1]["prompts"] == 16
    for seed in (0, 1):
        folder = finished / "models/over" / f"seed{seed}"
        table, made = tsdi.table_file.load(folder / "bias.safetensors")
        assert table.bias.shape[0] == 4 and np.abs(table.bias).max() > 1e-3
        safe = reference_cache.fingerprint_tree(hf.load(folder, dtype="float32")[1])
        assert (made["safe"], made["draws"], made["pool"]) == (safe, "16", "corpus")
        reference = hf.load(finished / "models/helpful" / f"seed{seed}", dtype="float32")[1]
        assert made["reference"] == reference_cache.fingerprint_tree(reference)


def test_the_summary_is_of_every_method(finished):
    rows, scores = results(finished), json_rows(finished / "eval.jsonl")
    names = [row["method"] for row in rows]
    assert {"safe", "reference", MAIN, "TSDI gated", "TSDI 0 positions", "weights 0.5"} <= set(
        names
    )
    assert {"TSDI K 8", "TSDI prefix safe", "TSDI pool vocabulary", "penalty 4"} <= set(names)
    for row in rows:
        mine = [s for s in scores if s["method"] == row["method"]]
        assert [s["seed"] for s in mine] == [0, 1]
        assert row["help"] == pytest.approx(np.mean([s["benign_compliance"] for s in mine]))
        assert row["safety"] == pytest.approx(np.mean([s["harmful_safety"] for s in mine]))
        assert row["help_low"] <= row["help"] <= row["help_high"] and row["benign_nll"] > 0
    by_name = {row["method"]: row for row in rows}
    # What takes nothing off is the safe model itself.
    for name in ("TSDI 0 positions",):
        same = {k: v for k, v in by_name[name].items() if k not in ("method", "family", "at")}
        assert same.items() <= by_name["safe"].items()
    assert by_name[MAIN]["benign_nll"] != by_name["safe"]["benign_nll"]
    for picture in ("pareto", "bias_over", "alpha_over", "positions_over"):
        assert (finished / f"plots/{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert "before" in (finished / "log.txt").read_text()
    assert len(json_rows(finished / "models/over/seed0/answers.jsonl")) == 6


@pytest.mark.slow
def test_killed_and_resumed_it_writes_the_same_rows(finished, tmp_path):
    out = tmp_path / "run"
    rows = len(json_rows(finished / "metrics.jsonl"))
    # In training, and while the bias is estimated.
    moments = [(3, rows // 2), (rows - 6, rows - 2)]
    binaries.kill_and_resume(MODULE, SMALL, out, moments, random.Random(3))
    assert_same_rows(out, finished)


def test_eval_scores_again_with_other_numbers(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    before = snapshot(out / "checkpoints")
    flags = ("--correct.decoding.alpha=0.5", "--correct.sensitivity.draws=", "--noprogress")
    done = binaries.run(MODULE, "--mode=eval", f"--out={out}", *flags)
    assert done.returncode == 0, done.stderr
    names = {row["method"] for row in json_rows(out / "eval.jsonl")}
    assert "TSDI alpha 0.5" in names and "TSDI K 8" not in names and MAIN not in names
    assert snapshot(out / "checkpoints") == before


@pytest.mark.slow
def test_an_earlier_runs_models_are_reused(finished, tmp_path):
    """Its helpful policies are not trained again, or none is where the safe one is there too."""
    out = tmp_path / "run"
    given = f"--correct.models={finished}/models"
    done = binaries.run(MODULE, *SMALL, given, f"--out={out}", "--num_seeds=1")
    assert done.returncode == 0, done.stderr
    stages = list(dict.fromkeys(row["stage"] for row in json_rows(out / "metrics.jsonl")))
    assert stages == ["over", "bias_over"]
    assert sorted(p.name for p in (out / "models").iterdir()) == ["over"]
    one, other = (
        next(r for r in json_rows(x / "metrics.jsonl") if r["stage"] == "over")
        for x in (finished, out)
    )
    assert one["seed"] == other["seed"] == 0
    assert one["policy/loss"] == pytest.approx(other["policy/loss"], rel=1e-4)


def folders(finished, prompts):
    return [
        *("--preset=folder", *FEW, *RUN, "--num_seeds=1", f"--correct.folders.prompts={prompts}"),
        f"--correct.folders.safe={finished}/models/over/seed0",
        f"--correct.folders.reference={finished}/models/helpful/seed0",
        "--correct.folders.template=USER: {input} ASSISTANT:",
        *("--correct.sensitivity.pools=", "--correct.decoding.samples=1"),
    ]


@pytest.mark.slow
def test_folders_and_prompts_of_ones_own(finished, tmp_path):
    """XSTest's prompts to a model that knows none of their words: the pipeline, not a result."""
    out = tmp_path / "run"
    xstest = real_data.file("xstest/xstest_prompts.csv")
    few = ("--correct.folders.max_prompts=40", "--correct.sensitivity.prefixes=reference")
    done = binaries.run(MODULE, *folders(finished, xstest), *few, f"--out={out}")
    assert done.returncode == 0, done.stderr
    log = (out / "log.txt").read_text()
    assert "homonyms" in log and "contrast_homonyms" in log and "40 prompts" in log
    rows = {row["method"]: row for row in results(out)}
    assert {"help", "safety", "harmful_refusal"} <= set(rows[MAIN])
    assert "TSDI prefix reference" in rows


@pytest.mark.slow
def test_a_planted_bias_is_measured(tmp_path):
    out = tmp_path / "run"
    small = ("--correct.planted.vocab_size=64", "--correct.planted.hidden_size=16")
    few = ("--correct.planted.draws=64,1024", "--correct.bias.positions=2", "--num_seeds=1")
    done = binaries.run(MODULE, "--preset=planted", *small, *RUN, *few, f"--out={out}")
    assert done.returncode == 0, done.stderr
    rows = results(out)
    exact = [r for r in rows if r["noise"] == 0 and "after" in r and r["space"] != "prob"]
    assert len(exact) == 2 and all(r["after"] < 1e-5 < r["before"] for r in exact)
    few, many = (r for r in rows if r["noise"] and r["space"] == "logprob")
    assert many["rmse"] < 0.5 * few["rmse"] and many["rmse"] == pytest.approx(
        many["stated"], rel=0.3
    )
    hot = rows[-1]
    assert hot["after_cold"] > 0.05 > hot["gated_hot"] and hot["gated_cold"] < 1e-5


BAD_INPUT = [
    (["--preset=folders"], r"'folders' is unknown\. Did you mean 'folder'\?"),
    (["--correct.bias.positions=4"], r"lengths holds 16, beyond correct\.bias\.positions=4"),
    (["--correct.bias.batch_size=7"], r"batch_size=7 does not divide correct\.bias\.draws=512"),
    (["--correct.sensitivity.draws=40"], r"draws holds 40, no multiple of correct\.bias\.batch"),
    (["--correct.pool=file"], r"correct\.pool_file is empty: name a text file"),
    (["--correct.safe=over,over"], r"correct\.safe='over,over' is empty or repeats one"),
    (["--preset=planted", "--correct.planted.vocab_size=100"], r"is no multiple of 64"),
    (["--correct.safe=other"], r"holds 'other', which is not trained here: choose of base"),
    (["--align.source=files"], r"align\.source='files' has no scores of its own"),
    (["--variants.ratio=0"], r"--variants\.ratio=0\.0 is out of range"),
    (["--variants.prompts=tunning"], r"'tunning' is unknown\. Did you mean 'tuning'\?"),
    (["--variants.refusals=2"], r"--variants\.refusals=2\.0 is out of range"),
    (["--correct.decoding.raised_counts=0"], r"raised_counts=0 is out of range|raised_counts"),
]


def test_bad_input_is_one_line_and_exit_code_2_and_touches_nothing(finished, tmp_path):
    before = snapshot(finished)
    cases = [[*given, f"--out={finished}", "--only_check_args"] for given, _ in BAD_INPUT]
    binaries.assert_refused(MODULE, cases, [pattern for _, pattern in BAD_INPUT], tmp_path)
    assert snapshot(finished) == before


def refused(*arguments):
    done = binaries.run(MODULE, *arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.slow
def test_models_that_do_not_fit_and_prompts_that_are_none_are_named(finished, tmp_path):
    out, prompts = f"--out={tmp_path}/run", tmp_path / "prompts.csv"
    assert "folders.safe is empty: name two" in refused("--preset=folder", out)
    prompts.write_text("prompt,label\nlist red,safe\nlist fire,unsafe\n")
    flags = folders(finished, prompts)
    other = shutil.copytree(finished / "models/helpful/seed0", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 7}))
    told = refused(*flags, f"--correct.folders.reference={other}", out)
    assert "tokens and the reference 7: name the model that safety training started" in told
    (other / "config.json").write_text(json.dumps(config))
    words = json.loads((other / "tokenizer.json").read_text())
    words["model"]["merges"] = words["model"]["merges"][:-1]
    (other / "tokenizer.json").write_text(json.dumps(words))
    told = refused(*flags, f"--correct.folders.reference={other}", out)
    assert "the tokenizers of the two models differ" in told
    prompts.write_text("prompt,label\nlist red,harmless\n")
    assert "field 'label'='harmless' is unknown" in refused(*flags, out)
    assert f"{tmp_path}/none.csv cannot be read" in refused(
        *flags, f"--correct.folders.prompts={tmp_path}/none.csv", out
    )
    assert "has no helpful/seedN" in refused(*SMALL, f"--correct.models={tmp_path}", out)


@pytest.mark.slow
def test_what_a_table_is_made_of_is_looked_at(finished, tmp_path):
    """A table of other models, a short one, an empty pool, weights that are no numbers."""
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt,label\nlist red,safe\nlist fire,unsafe\n")
    own, other = (finished / f"models/over/seed{seed}/bias.safetensors" for seed in (0, 1))
    flags = folders(finished, prompts)
    few = ("--correct.sensitivity.draws=", "--correct.sensitivity.prefixes=")

    def out(name):
        return f"--out={tmp_path}/{name}"

    told = refused(*flags, f"--correct.table={other}", out("a"))
    assert f"{other} was made with safe=" in told and "estimate a table for these models" in told
    told = refused(*flags, "--correct.table=none", out("b"))
    assert "none is no bias table" in told
    longer = ("--correct.bias.positions=8", "--correct.decoding.lengths=8")
    told = refused(*flags, f"--correct.table={own}", *longer, out("c"))
    assert f"{own} has 4 positions, and decoding.length or lengths has 8: give 4 at most" in told
    blank = tmp_path / "blank.txt"
    blank.write_text("")
    told = refused(*flags, "--correct.pool=file", f"--correct.pool_file={blank}", out("d"))
    assert f"{blank} holds no token to draw: name a pool with words in it" in told
    broken = shutil.copytree(finished / "models/over/seed0", tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors").items()
    save_file({k: np.full_like(x, np.nan) for k, x in tensors}, broken / "model.safetensors")
    told = refused(*flags, f"--correct.folders.safe={broken}", out("e"))
    assert "the safe model's logits are not finite on random prompts: check its weights" in told
    done = binaries.run(MODULE, *flags, *few, f"--correct.table={own}", out("f"))
    assert done.returncode == 0, done.stderr
    assert MAIN in {row["method"] for row in results(tmp_path / "f")}


def test_a_dry_run_compiles_and_writes_nothing(tmp_path):
    done = binaries.run(MODULE, *SMALL, "--dry_run", f"--out={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "bias_over" in done.stdout and not (tmp_path / "run").exists()
