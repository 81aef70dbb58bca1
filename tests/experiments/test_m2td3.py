# SPDX-License-Identifier: Apache-2.0
"""The M2TD3 binary from end to end, on a run of 60 iterations that all tests share."""

import json
import random
import re
import shutil

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments import m2td3
from jaxsafe.core import checkpoint

from . import binaries
from .binaries import assert_same_rows, snapshot

ALGO = [
    *("--algo.total_steps=60", "--algo.warmup_steps=10", "--algo.hidden=16,16"),
    *("--algo.num_envs=4", "--algo.batch_size=8", "--algo.replay_capacity=400"),
    *("--algo.updates_per_step=2", "--algo.policy_delay=2", "--algo.gamma=0.95"),
]
SMALL = [
    *(*ALGO, "--methods=m2td3", "--seed=0", "--num_seeds=2", "--devices=1"),
    *("--log_every=5", "--checkpoint_every=5"),
    *("--eval.grid=3", "--eval.episodes=1", "--noprogress"),
    *("--eval.search.random=2", "--eval.search.rounds=1", "--eval.search.proposals=3"),
]
MODULE = "experiments.m2td3"


def binary(*arguments):
    return binaries.run(MODULE, *arguments)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The small run, never stopped; tests that change it take a copy."""
    return binaries.unbroken(tmp_path_factory, "m2td3", MODULE, SMALL)


def test_a_run_leaves_what_the_readme_promises(finished):
    names = {p.name for p in finished.iterdir()}
    assert names == {
        *("config.json", "metrics.jsonl", "eval.jsonl", "timing.json", "log.txt"),
        *("summary.json", "checkpoints", "plots"),
    }
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["seed"]) for row in rows] == [
        (step, seed) for step in range(5, 61, 5) for seed in (0, 1)
    ]
    assert rows[-1]["env_steps"] == 240 and rows[-1]["critic/loss"] > 0
    scores = [json.loads(line) for line in (finished / "eval.jsonl").read_text().splitlines()]
    assert len(scores) == 2 * (9 + 1)
    names = {"method", "engine", "seed", "point", "pole_mass", "cart_mass", "return"}
    assert all(set(row) == names for row in scores)
    summary = json.loads((finished / "summary.json").read_text())
    result = summary["results"][0]
    for i, seed in enumerate((0, 1)):
        *grid, refined = [row for row in scores if row["seed"] == seed]
        returns = [row["return"] for row in grid]
        assert {row["point"] for row in grid} == {"grid"} and refined["point"] == "refined"
        assert result["worst_per_seed"][i] == min(returns)
        assert result["average_per_seed"][i] == pytest.approx(np.mean(returns))
        assert result["refined_per_seed"][i] == refined["return"] <= min(returns)
        assert result["gap_per_seed"][i] == min(returns) - refined["return"]
        omega = [refined[name] for name in result["parameters"]]
        assert result["refined_omega_per_seed"][i] == omega
    assert result["engine"] == "mujoco_c" and (result["grid"], result["episodes"]) == (3, 1)
    assert (finished / "plots/worst_case.png").read_bytes().startswith(b"\x89PNG")


def kill_and_resume(out, moments):
    binaries.kill_and_resume(MODULE, SMALL, out, moments, random.Random(11))


@pytest.mark.slow
def test_killed_once_and_resumed_it_writes_the_same_rows(finished, tmp_path):
    kill_and_resume(tmp_path / "run", [(4, 18)])
    assert_same_rows(tmp_path / "run", finished)


@pytest.mark.slow
def test_killed_three_times_and_resumed_it_writes_the_same_rows(finished, tmp_path):
    kill_and_resume(tmp_path / "run", [(2, 6), (8, 12), (14, 18)])
    assert_same_rows(tmp_path / "run", finished)


@pytest.mark.slow
def test_eval_scores_again_on_another_grid_and_in_both_engines(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    before = snapshot(out / "checkpoints") | {out: (out / "metrics.jsonl").read_bytes()}
    (out / "plots/worst_case.png").unlink()
    changed = ("--eval.grid=2", "--eval.engines=mujoco_c,jax")
    done = binary("--mode=eval", f"--out={out}", *changed, "--noprogress")
    assert done.returncode == 0, done.stderr
    assert "m2td3: step 60 of 60" in done.stdout and "2 points per parameter" in done.stdout
    scores = [json.loads(line) for line in (out / "eval.jsonl").read_text().splitlines()]
    engines = [row["engine"] for row in scores]
    assert engines == ["mujoco_c"] * 2 * 5 + ["jax"] * 2 * 5
    assert (
        "return in MuJoCo C over" in done.stdout
        and "return in the training engine (JAX) over" in done.stdout
    )
    assert (out / "plots/worst_case_jax.png").exists()
    scores = [row for row in scores if (row["engine"], row["point"]) == ("mujoco_c", "grid")]
    corners = {(m, c) for m in (1.0, 31.0) for c in (1.0, 11.0)}
    assert {(row["pole_mass"], row["cart_mass"]) for row in scores} == corners
    # The corners belong to both grids, and the policy is the same.
    old = [json.loads(line) for line in (finished / "eval.jsonl").read_text().splitlines()]
    assert all(row in old for row in scores)
    assert (out / "plots/worst_case.png").exists()
    assert before == snapshot(out / "checkpoints") | {out: (out / "metrics.jsonl").read_bytes()}


def test_render_draws_the_worst_case(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    done = binary("--mode=render", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"M2TD3, seed 0.*: .*worst_m2td3\.gif", done.stdout)
    assert (out / "plots/worst_m2td3.gif").read_bytes().startswith(b"GIF89a")


def test_a_dry_run_tells_sizes_and_writes_nothing(tmp_path):
    out = tmp_path / "run"
    done = binary(*SMALL, "--dry_run", f"--out={out}")
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout[: done.stdout.index("\n}") + 2])
    assert config["algo"]["hidden"] == [16, 16] and config["algo"]["gamma"] == 0.95
    names, row = (line.split() for line in done.stdout.splitlines()[-3:-1])
    told = dict(zip(names, row, strict=True))
    # Actor 4-16-16-1; two critics 7-16-16-1 with two LayerNorms each.
    actor = (4 + 1) * 16 + (16 + 1) * 16 + 17
    critic = (7 + 1) * 16 + (16 + 1) * 16 + 17 + 2 * 2 * 16
    assert told["parameters"].replace(",", "") == str(actor + 2 * critic)
    assert float(told["compile_s"].replace(",", "")) > 0 and float(told["state_mib"]) > 0
    assert list(tmp_path.iterdir()) == []


BAD_INPUT = [
    (["--scenario=Hopper-9"], r"scenario='Hopper-9' is unknown\..*Choose one of: InvertedPendulum"),
    (["--preset=dmo"], r"'dmo' is unknown\. Did you mean 'demo'\?"),
    (["--algo.gama=0.9"], r"Unknown flag --algo\.gama\. Did you mean --algo\.gamma"),
    (["--gamma=0.9"], r"Unknown flag --gamma\. Did you mean --algo\.gamma"),
    (["--algo.gamma=1.5"], r"--algo\.gamma=1\.5 is out of range: give a value in \[0, 1\]"),
    (["--algo.tau=nan"], r"--algo\.tau=nan is not a number"),
    (["--methods=m2td3,dr_tdd3"], r"'dr_tdd3' is unknown\. Did you mean 'dr_td3'\?"),
    (["--methods=td3,td3"], r"methods='td3,td3' is empty or repeats one: name each once"),
    (["--methods="], r"methods='' is empty or repeats one"),
    (
        ["--eval.engines=jax,jax"],
        r"eval\.engines='jax,jax' is empty or repeats one: name each once",
    ),
    (["--eval.engines=mujoco"], r"'mujoco' is unknown\. Did you mean 'mujoco_c'\?"),
    (["--eval.search.alpha=1.5"], r"--eval\.search\.alpha=1\.5 is out .* in \[0\.001, 1\]"),
    (["--eval.grid=100000"], r"eval\.grid=100000, .* needs .* GiB; .* Lower eval\.grid"),
    (["--algo.replay_capacity=401"], r"replay_capacity=401 is not a multiple of .*: set it to 400"),
    (["--algo.warmup_steps=60"], r"total_steps=60 leaves nothing .*: raise the first or lower"),
    (["--resume", "--algo.gamma=0.9"], r"--algo\.gamma=0\.9 differs .* has 0\.95: drop the flag"),
    (["--resume", "--seed=5"], r"--seed=5 differs .* which has 0: drop the flag"),
    (["--mode=eval", "--scenario=InvertedPendulum-1"], r"--scenario=.* has InvertedPendulum-2"),
    (["--resume", "--algo.total_steps=30"], r"reached step 60 in .*, past the 30 asked for"),
    (["--algo.replay_capacity=4000000000", "--overwrite"], r"needs .* GiB; .*Lower the replay cap"),
    ([], r"is not empty: add --resume to go on .* --overwrite to start it anew"),
]
PARSED = 15  # so many are refused by --only_check_args as well


def test_bad_input_is_one_line_and_exit_code_2_and_touches_nothing(finished, tmp_path):
    cases = []
    for number, (arguments, _) in enumerate(BAD_INPUT):
        cases.append([*([] if "--resume" in arguments else ALGO), *arguments])
        cases[-1] += [f"--out={finished}", *(["--only_check_args"] if number < PARSED else [])]
    before = snapshot(finished)
    binaries.assert_refused(MODULE, cases, [pattern for _, pattern in BAD_INPUT], tmp_path)
    assert snapshot(finished) == before


def test_a_nan_in_the_checkpoint_is_named(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    saved = out / "checkpoints" / "m2td3"
    with ocp.StandardCheckpointer() as reader:
        flat = reader.restore((saved / "60" / "default").absolute())
    del flat["_checksums"]
    name = "learner.actor.params.Dense_0.kernel"
    flat[name] = flat[name].at[1, 2, 3].set(jnp.nan)
    shutil.rmtree(saved / "60")
    checkpoint.save(saved, 60, flat)
    scores = (out / "eval.jsonl").read_bytes()
    done = binary("--mode=eval", f"--out={out}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert re.fullmatch(
        rf"error: checkpoint {saved}/60 holds a value that is not finite in {name}: delete .*\n",
        done.stderr,
    )
    assert (out / "eval.jsonl").read_bytes() == scores


def test_a_damaged_checkpoint_is_one_line(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    for path in (out / "checkpoints/m2td3/60/default").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-100])
    done = binary("--mode=eval", f"--out={out}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "m2td3/60 cannot be read (" in done.stderr and "delete that folder" in done.stderr


def test_help_lists_every_field_with_default_and_range():
    done = binary("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("usage: python -m experiments.m2td3 [--flag=value ...]\n")
    text = " ".join(done.stdout.split())
    gamma, seeds = m2td3.BINARY.presets["demo"].algo.gamma, m2td3.BINARY.options.num_seeds
    assert f"--algo.gamma Discount. [a float in [0, 1]; default {gamma}]" in text
    assert f"--num_seeds How many seeds to train together. [an int >= 1; default {seeds}]" in text
    for name in ("preset", "resume", "mode", "algo.method", "eval.grid", "scenario"):
        assert f"--{name} " in text or f"--[no]{name} " in text
