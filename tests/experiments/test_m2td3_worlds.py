# SPDX-License-Identifier: Apache-2.0
"""The M2TD3 binary on what is not MuJoCo: games with known answers, and gymnax's pendulum."""

import json

import pytest

from .test_m2td3 import ALGO, binary


def results(out):
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "complete"
    return summary["results"]


@pytest.mark.slow
def test_games_are_compared_with_their_closed_forms(tmp_path):
    out = tmp_path / "games"
    arguments = [*ALGO, "--methods=m2td3_plus,rarl", "--num_seeds=2", "--log_every=20"]
    flags = [f"--out={out}", "--noprogress", "--quadratic.slope=3", "--algo.check_interval=20"]
    done = binary("--preset=known_answers", *arguments, *flags)
    assert done.returncode == 0, done.stderr
    rows = results(out)
    found = [(row["game"], row["method"]) for row in rows]
    assert found == [(g, m) for g in ("quadratic", "regulator") for m in ("m2td3_plus", "rarl")]
    # With slope 3 in place of 8, the best worst case is another one.
    assert "quadratic: best worst return" in done.stdout and rows[0]["minimax"] != 23 / 32
    assert all(gap >= 0 for gap in map(float, rows[0]["gap_per_seed"]))
    assert (out / "plots" / "known_answers.png").stat().st_size > 10_000
    again = binary(f"--out={out}", "--mode=eval", "--noprogress")
    assert again.returncode == 0 and results(out) == rows
    film = binary(f"--out={out}", "--mode=render", "--noprogress")
    assert film.returncode == 2 and "games have no picture" in film.stderr


def test_gymnaxs_pendulum_is_scored_in_the_engine_that_trains(tmp_path):
    out = tmp_path / "pendulum"
    arguments = [*ALGO, "--methods=dr_td3", "--num_seeds=2", "--log_every=20", f"--out={out}"]
    small = ["--eval.grid=2", "--eval.episodes=1", "--noprogress", "--eval.search.random=2"]
    done = binary("--preset=pendulum", *arguments, *small, "--eval.search.rounds=1")
    assert done.returncode == 0, done.stderr
    (row,) = results(out)
    assert row["engine"] == "jax" and row["parameters"] == ["mass", "length", "gravity"]
    assert all(value < 0 for value in row["worst_per_seed"])
    assert "MuJoCo" not in done.stdout.partition("return in ")[2]
    film = binary(f"--out={out}", "--mode=render", "--noprogress")
    assert film.returncode == 2 and "draws MuJoCo models" in film.stderr


def test_what_a_scenario_lacks_is_one_line(tmp_path):
    done = binary("--scenario=Hopper-1", "--engine=analytic", f"--out={tmp_path / 'x'}")
    assert done.returncode == 2 and "engine='analytic' has no Hopper" in done.stderr
    assert not (tmp_path / "x").exists()
