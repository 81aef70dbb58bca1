# SPDX-License-Identifier: Apache-2.0
"""The preset of DSRL's tasks, on files and environments of our own in their places."""

import dataclasses
import json
import subprocess

import jax
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.core.config import to_text
from jaxsafe.core.run import Folder
from jaxsafe.data import dsrl
from jaxsafe.pls import dsrl_published, dsrl_report, dsrl_search, dsrl_study
from jaxsafe.pls import stages as stages_lib
from jaxsafe.pls.dsrl_search import Done
from jaxsafe.pls.experiment import PRESETS, validate_experiment
from tests.core import toy
from tests.experiments import binaries
from tests.pls import dsrl_worlds
from tests.pls.dsrl_worlds import POLICY, SEARCH, STUDY, experiment, untrained

MODULE = "experiments.pls"
WORLDS = "tests.pls.dsrl_worlds:"
FLAGS = [
    *("--preset=dsrl", "--policy.model=rvs", "--policy.loss=mse", "--policy.augment=0"),
    *("--policy.steps=1500", "--policy.hidden=64", "--policy.batch_size=64"),
    *("--policy.learning_rate=1e-3", "--policy.warmup_steps=50"),
    *("--search.explore_steps=3", "--search.reward_steps=5", "--search.episodes=4"),
    *("--search.zeta=0.5", "--operation.draws=60"),
    *(f"--dsrl.tasks={to_text(STUDY.tasks)}", f"--dsrl.environment={STUDY.environment}"),
    *("--dsrl.thresholds=20", "--dsrl.num_envs=3", "--dsrl.final_episodes=4", "--dsrl.side=9"),
    "--targets.seed_episodes=300",
    # Costs here do not depend on R and grow evenly with G.
    *("--dsrl.belief.cost_lengthscale=1,40", "--dsrl.belief.reward_lengthscale=1,80"),
    *("--seed=0", "--num_seeds=2", "--devices=1", "--noprogress", "--log_every=500"),
]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Files of two tasks; of the third there is none."""

    def make(folder):
        folder.mkdir()
        dsrl_worlds.write(folder)
        dsrl_worlds.write(folder, "DroneRun")

    return toy.once(tmp_path_factory, "dsrl_files", make)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, files):
    """The run, never stopped; tests that change it take a copy."""

    def make(out):
        done = binaries.run(MODULE, *FLAGS, f"--dsrl.folder={files}", f"--out={out}")
        assert done.returncode == 0, done.stderr

    return toy.once(tmp_path_factory, "dsrl", make)


def test_the_search_finds_a_safe_target_where_the_naive_rule_does_not(finished):
    """What is asked to cost b costs b + 5; the best that is safe returns the greatest there is."""
    rows = json.loads((finished / "summary.json").read_text())["results"]
    assert [(r["task"], r["method"]) for r in rows] == [
        (task, method) for task in STUDY.tasks for method in ("naive", "pls")
    ]
    naive, pls = rows[:2]
    assert naive["status"] == pls["status"] == "run"
    assert naive["policies"] == pls["policies"] == len(pls["cost_per_seed"]) == 2
    assert naive["cost"] == pytest.approx(25 / 20, abs=0.1)
    assert naive["reward"] == pytest.approx(1, abs=0.05)
    assert pls["reward"] > 0.9 and max(pls["cost_per_seed"]) <= 1
    assert pls["unsafe_per_seed"] == [0, 0] and pls["evaluations"] == 8
    assert pls["alpha"] > 0 and naive["alpha"] is None and naive["evaluations"] == 0
    # The paper's CDT and PLS, AntRun at b = 20.
    assert [(r["paper_reward"], r["paper_cost"]) for r in rows[:2]] == [(0.72, 0.9), (0.78, 0.77)]
    assert pls["paper_cost_sd"] == 0.1 and "2505.21852" in pls["paper_source"]
    for r in rows[2:]:
        lacks = "environment SafetyDroneRun-v0" if r["task"] == "DroneRun" else "file SafetyCarCi"
        assert r["status"].startswith(f"not run here: no {lacks}") and r["reward"] is None
        assert r["paper_reward"] is not None


def test_the_rows_are_what_the_logs_hold(finished):
    """Scores and counts again from the sessions' own files, by DSRL's formulas written out."""
    results = json.loads((finished / "summary.json").read_text())["results"]
    rows = binaries.json_rows(finished / "eval.jsonl")
    assert [(r["method"], r["seed"]) for r in rows] == [
        (method, seed) for method in ("naive", "pls") for seed in (0, 1)
    ]
    checked = (finished / "checkpoints/searches").glob("AntRun_seeds_*/seeds.csv")
    assert [len(path.read_text().splitlines()) for path in checked] == [1 + 3 * 300] * 2
    low, high = 0.001767391717990563, 955.4818725585938
    for r in rows:
        folders = (finished / "checkpoints/searches").glob(
            f"AntRun_b20_{r['method']}_{r['seed']}_*"
        )
        (folder,) = folders
        final = np.array(json.loads((folder / "done.json").read_text())["final"])
        assert final.shape == (4, 2)
        assert np.allclose(final.mean(0), (r["return"], r["cost"]))
        (row,) = (x for x in results if (x["task"], x["method"]) == ("AntRun", r["method"]))
        reward = (final[:, 0].mean() - low) / (high - low)
        assert row["reward_per_seed"][r["seed"]] == pytest.approx(reward)
        assert row["cost_per_seed"][r["seed"]] == pytest.approx(final[:, 1].mean() / 20)
        if r["method"] == "pls":
            log = np.genfromtxt(folder / "evaluations.csv", delimiter=",", names=True)
            assert len(log) == 8 * 4
            means = log["cost0"].reshape(8, 4).mean(1)
            assert r["unsafe_evaluations"] == (means > 20).sum()
            # What is asked for is what comes, but for the surprise at the end.
            assert np.abs(log["cost0"] - log["z1"] - dsrl_worlds.SURPRISE).max() < 2
            assert np.std(log["reward"]) > 0 and len(np.unique(log["reward"])) == len(log)


def test_the_tables_are_printed_beside_the_papers(finished):
    text = (finished / "log.txt").read_text()
    (line,) = (x for x in text.splitlines() if " AntRun  " in x and "/" in x)
    assert ".79 / 5.52" in line and ".78±.06 / .77±.10" in line and line.count("±") == 8
    (line,) = (x for x in text.splitlines() if " CarCircle  " in x and "/" in x)
    assert line.endswith("  not run here") and line.count("not run here") == 2
    assert "3±2" in text and "0.0 of 8" in text
    assert "DroneRun was not run here: no environment SafetyDroneRun-v0" in text
    assert f"no file {dsrl.file_name('CarCircle')}" in text


def run_until(resets, *arguments):
    """Runs the binary, which dies in its environment once that was reset so often."""
    return subprocess.run(
        binaries.command(MODULE, *arguments),
        cwd=toy.ROOT,
        env=binaries.ENVIRONMENT | {"TEST_DIE_AFTER": str(resets)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_killed_in_its_searches_and_resumed_it_writes_the_same_rows(finished, files, tmp_path):
    """The naive rule takes 8 episodes, the seeds 900, each search 32 and 4, and the look 1."""
    out = f"--out={tmp_path / 'run'}"
    killed = run_until(1 + 8 + 900 + 14, *FLAGS, f"--dsrl.folder={files}", out)
    assert killed.returncode == -9, killed.stderr
    logs = list((tmp_path / "run/checkpoints/searches").glob("*/evaluations.csv"))
    assert len(logs) == 1 and len(logs[0].read_text().splitlines()) == 1 + 3 * 4
    # 20 episodes are left of the first search, and the second one is cut short.
    killed = run_until(1 + 20 + 4 + 900 + 17, "--resume", out)
    assert killed.returncode == -9, killed.stderr
    done = run_until(1 + 16 + 4, "--resume", out)
    assert done.returncode == 0, done.stderr
    binaries.assert_same_rows(tmp_path / "run", finished)
    # Scored again, nothing is run; with another search, it is.
    again = run_until(1, "--mode=eval", out)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run/eval.jsonl").read_bytes() == (finished / "eval.jsonl").read_bytes()
    assert run_until(1, "--mode=eval", out, "--search.delta=0.2").returncode == -9


BAD_INPUT = [
    (
        ["--dsrl.folder=/nowhere"],
        r"dsrl\.folder=/nowhere is no folder; it should hold .*AntRun-v0-",
    ),
    (["--dsrl.tasks=AntRunn"], r"'AntRunn' is unknown\. Did you mean 'AntRun'\?"),
    (["--dsrl.tasks=AntRun,AntRun"], r"dsrl\.tasks='AntRun,AntRun' is empty or repeats one"),
    (["--dsrl.thresholds=0"], r"dsrl\.thresholds holds 0: give costs above it"),
    (["--dsrl.environment=robots"], r"'robots' is no module:function: give one"),
]


def test_bad_input_is_one_line_and_exit_code_2_before_anything_is_trained(files, tmp_path):
    common = [*FLAGS, f"--dsrl.folder={files}", f"--out={tmp_path / 'run'}"]
    cases = [[*common, *given] for given, _ in BAD_INPUT]
    binaries.assert_refused(MODULE, cases, [pattern for _, pattern in BAD_INPUT], tmp_path)
    done = binaries.run(MODULE, *common, f"--dsrl.environment={WORLDS}costless")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "holds ['goal', 'speed'] and no 'cost': put" in done.stderr
    assert not (tmp_path / "run").exists()


def test_with_no_file_at_all_it_says_which_and_where_from(tmp_path, monkeypatch):
    monkeypatch.setenv("DSRL_DATASET_DIR", str(tmp_path))
    validate_experiment(PRESETS["dsrl"])  # of the preset itself nothing is wrong
    with pytest.raises(UserError) as error:
        stages_lib.stages(PRESETS["dsrl"])
    text = str(error.value)
    assert all(dsrl.file_name(task) in text for task in dsrl.PLS_TASKS) and "\n" not in text
    assert str(tmp_path) in text and "package dsrl" in text and "set dsrl.folder" in text
    dsrl_worlds.write(tmp_path, "HopperVelocity", 4)
    assert list(dsrl_study.files(PRESETS["dsrl"].dsrl)) == ["HopperVelocity"]


def test_a_damaged_file_is_told_before_training(tmp_path):
    path = dsrl_worlds.write(tmp_path, episodes=5)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="SafetyAntRun-v0-150-1816"):
        stages_lib.stages(experiment(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed_returns": (300.0, 200.0)}, "falls: give the least first"),
        ({"seed_cost": 50.0}, r"dsrl\.seed_cost=50\.0 is out of range: give a value in \[0, 40\]"),
        ({"filters": dsrl_study.Preparation(inpaint=(0.0, 1.0))}, "has 2 values: give four"),
        ({"methods": ()}, r"dsrl\.methods='' is empty"),
    ],
)
def test_fields_that_do_not_fit(files, changes, message):
    with pytest.raises(UserError, match=message):
        validate_experiment(experiment(files, **changes))


def test_filters_reach_the_data(files):
    path = dsrl_study.files(dataclasses.replace(STUDY, folder=str(files)))["AntRun"]
    whole = dsrl_study.load("AntRun", path, dsrl_study.Preparation(), POLICY)
    assert len(whole.length) == 400 and int(whole.length.min()) == dsrl_worlds.STEPS
    how = dsrl_study.Preparation(inpaint=(0.0, 0.5, 0.0, 1.0))
    costly = dsrl_study.load("AntRun", path, how, POLICY)
    first = np.asarray(costly.cost_to_go)[np.asarray(costly.start)]
    assert 0 < len(costly.length) < 400 and first.min() > 39


def test_augmentation_is_osrls_own_for_each_task(files):
    cdt = PRESETS["dsrl"].policy
    own = dsrl_study.policy_config("AntRun", cdt, STUDY)
    assert (own.augment_degree, own.augment_decrease) == (3, 150) and own.augment > 0
    plain = dataclasses.replace(STUDY, augmentation=False)
    assert dsrl_study.policy_config("AntRun", cdt, plain) == cdt


@pytest.mark.parametrize("task", dsrl.PLS_TASKS)
def test_every_task_has_a_sound_problem(task):
    z, seed = dsrl_study.grid(task, PRESETS["dsrl"].dsrl)
    low, high = dsrl_published.SETTINGS[task].seed_returns
    assert z[seed].tolist() == [[low, 0], [(low + high) / 2, 0], [high, 0]]
    assert dsrl.reference(task).reward_max in z[:, 0]
    told = dsrl_study.problem(task, PRESETS["dsrl"].dsrl, SEARCH, 40.0)
    assert told.thresholds[0, 0] == told.prior_mean[1].max() == 40
    assert set(dsrl_published.published(20.0)[task]) == set(dsrl_published.METHODS)
    assert task in dsrl_published.published(40.0) and task in dsrl_published.VIOLATIONS


def test_a_row_by_hand():
    """Two policies of CarCircle at b = 40, whose scores are (R - 3.484..) / 530.8.. and C / 40."""
    done = [
        Done(np.zeros(2), np.array([[3.484419822692871, 30.0], [534.3060913085938, 50.0]]),
             np.array([[1.0, 39.0], [1.0, 41.0], [1.0, 40.0]]), 3.0),
        Done(np.zeros(2), np.array([[534.3060913085938, 0.0]]), np.full((3, 2), 41.0), 3.0),
    ]  # fmt: skip
    row = dsrl_report.row("CarCircle", 40.0, "pls", done)
    np.testing.assert_allclose(row["reward_per_seed"], [0.5, 1.0])
    np.testing.assert_allclose(row["cost_per_seed"], [1.0, 0.0])
    assert row["reward"] == pytest.approx(0.75) and row["cost_sd"] == pytest.approx(0.5**0.5)
    assert row["unsafe_per_seed"] == [1, 3] and row["unsafe_evaluations"] == 2
    assert row["unsafe_starts"] == 1
    assert (row["paper_reward"], row["paper_cost"]) == (0.8, 0.93)
    (line,) = dsrl_report.table([row], 40.0)
    assert line["PLS here"] == "0.75±0.35 / 0.50±0.71" and line["COptiDICE"] == ".49 / 1.44"
    (line,) = dsrl_report.unsafe_table([row])
    assert line == {"task": "CarCircle", "paper, of about 20": "4±2", "here, b = 40": "2.0 of 3"}


def test_a_seed_set_that_was_not_safe_is_told(files, tmp_path, monkeypatch, capsys):
    costly = Done(np.zeros(2), np.zeros((1, 2)), np.array([[700.0, 30.0], [700.0, 10.0]]), 3.0)
    done = {("AntRun", 20.0, "naive"): [costly._replace(evaluated=np.zeros((0, 2)))]}
    done |= {("AntRun", 20.0, "pls"): [costly]}
    monkeypatch.setattr(dsrl_search, "run_all", lambda *_: done)
    study = experiment(files, tasks=("AntRun",))
    rows = dsrl_report.finish(Folder(tmp_path), [4], study, {"AntRun": None}, lambda fraction: None)
    assert [r["unsafe_starts"] for r in rows] == [0, 1]
    assert (
        "AntRun, b = 20: the seed set was not safe for 1 of 1 policies" in capsys.readouterr().out
    )


def test_a_threshold_that_the_paper_does_not_have():
    row = dsrl_report.row("AntRun", 30.0, "naive", None, "no file")
    assert row["paper_reward"] is row["paper_source"] is None and row["policies"] == 0
    assert dsrl_report.table([row], 30.0) == [{"task": "AntRun", "naive here": "not run here"}]


def test_what_a_search_is_made_from_names_its_folder(tmp_path, files):
    policy, _ = untrained(files, "rvs")
    policies = jax.tree.map(lambda x: np.stack([x, x + 0.001]), policy)
    one = dsrl_search.Runner(tmp_path, experiment(files), "AntRun", policies)
    names = {one._made_from(jax.tree.map(lambda x, i=i: x[i], policies), "pls") for i in (0, 1)}
    for changes in ({"seed_cost": 1.0}, {"environment": "a:b"}, {"thresholds": (50.0,)}):
        other = dsrl_search.Runner(tmp_path, experiment(files, **changes), "AntRun", policies)
        names.add(other._made_from(policy, "pls"))
    assert len(names) == 5
    same = dsrl_search.Runner(tmp_path, experiment(files, tasks=("AntRun",)), "AntRun", policies)
    assert same._made_from(policy, "pls") in names
