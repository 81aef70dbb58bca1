# SPDX-License-Identifier: Apache-2.0
"""Judges, a stub of an endpoint on this machine, and ratings with known answers."""

import http.server
import json
import threading

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.sacpo import comparisons, judge, ranking
from jaxsafe.sacpo.evaluate import Answer
from jaxsafe.sacpo.experiment import Experiment
from jaxsafe.sacpo.ranking import Game


class Stub(http.server.BaseHTTPRequestHandler):
    """Rates an answer by its length; says nothing useful of answers with `?`; breaks on request."""

    seen: list[dict]

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append({"path": self.path, "key": self.headers.get("Authorization")} | body)
        text = body["messages"][0]["content"]
        first, second = (
            text.partition(f"{name} answer: ")[2].partition("\n\n")[0]
            for name in ("First", "Second")
        )
        if "404" in first:
            self.send_error(404)
            return
        say = "I cannot tell." if "?" in text else f"{len(first)} {len(second)}\nas they are long"
        reply = {"choices": [{"message": {"content": say}}]}
        data = json.dumps({} if "odd" in first else reply).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def stub():
    Stub.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_is_asked_in_both_orders_and_silence_is_no_tie(stub):
    asked = judge.endpoint(stub, "m", key="k", quality="kind")
    prompts, one, other = ["p", "q", "r?"], ["long answer", "a", "b"], ["short", "a", "c"]
    verdicts = judge.compare(asked, prompts, one, other, repeats=2)
    np.testing.assert_array_equal(verdicts.outcome, [1.0, 0.5, np.nan])
    assert (verdicts.asked, verdicts.unparsable) == (12, 4)
    request = Stub.seen[0]
    assert request["path"] == "/v1/chat/completions" and request["model"] == "m"
    assert request["key"] == "Bearer k" and "how kind" in request["messages"][0]["content"]
    rate = ranking.win_rate(verdicts.outcome)
    assert (rate.rate, rate.known, rate.unknown) == (0.75, 2, 1)


def test_an_endpoint_that_is_none_is_named(stub):
    asked = judge.endpoint(stub, "m")
    with pytest.raises(UserError, match=r"did not answer \(HTTP Error 404"):
        asked("p", "404", "a")
    with pytest.raises(UserError, match="answers otherwise than /chat/completions does"):
        asked("p", "odd", "a")
    with pytest.raises(UserError, match="is no URL"):
        judge.endpoint("localhost", "m")
    with pytest.raises(UserError, match="did not answer"):
        judge.endpoint("http://127.0.0.1:9", "m", timeout_s=1)("p", "a", "b")


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("7 8", (7, 8)),
        ("\n 7.5, 3\nbecause", (7.5, 3)),
        ("10/2", (10, 2)),
        ("**8 5**", (8, 5)),
        ("The first one", None),
        ("7", None),
        ("", None),
        ("I rate 7 8", None),
    ],
)
def test_replies(reply, scores):
    assert judge.parse(reply) == scores


def test_a_judge_that_likes_the_first_place_gives_ties():
    verdicts = judge.compare(lambda p, a, b: (2.0, 1.0), ["p"] * 3, ["a"] * 3, ["b"] * 3)
    np.testing.assert_array_equal(verdicts.outcome, 0.5)
    with pytest.raises(UserError, match="3 prompts, 2 and 3 answers"):
        judge.compare(lambda p, a, b: None, ["p"] * 3, ["a"] * 2, ["b"] * 3)


def games(number=4000, gap=200.0, seed=0):
    """Games of three policies 0, gap and 2 gap Elo points apart."""
    rng = np.random.default_rng(seed)
    skill = {"sft": 0.0, "a": gap, "b": 2 * gap}
    found = []
    for _ in range(number):
        one, other = rng.choice(list(skill), 2, replace=False)
        chance = 1 / (1 + 10 ** ((skill[other] - skill[one]) / 400))
        found.append(Game(str(one), str(other), float(rng.random() < chance)))
    return found


def test_bradley_terry_finds_the_skills_within_its_intervals():
    found = ranking.bradley_terry(games(), "sft")
    assert found["sft"] == (1000, 1000, 1000)
    for name, known in (("a", 1200), ("b", 1400)):
        middle, low, high = found[name]
        assert low < known < high and 10 < high - low < 100 and low < middle < high


def test_elo_is_shifted_and_the_papers_is_stretched():
    played = games(600)
    shifted = ranking.elo(played, "sft", shuffles=5)
    literal = ranking.elo(played, "sft", literal=True, shuffles=5)
    assert shifted["sft"] == literal["sft"] == pytest.approx(1000)
    stretch = (literal["b"] - 1000) / (shifted["b"] - 1000)
    # The anchor, the worst of three, ends below 1200, the mean that all games keep.
    anchor = 1200 - np.mean([shifted[n] - 1000 for n in shifted])
    assert stretch == pytest.approx(1000 / anchor, rel=1e-6)
    assert shifted["b"] > shifted["a"] > 1000


def test_ratings_need_games_that_are_known():
    with pytest.raises(UserError, match="no game"):
        ranking.elo([], "sft")
    with pytest.raises(UserError, match="it is no tie"):
        ranking.elo([Game("a", "sft", np.nan)], "sft")
    with pytest.raises(UserError, match="anchor='x' plays in no game"):
        ranking.bradley_terry([Game("a", "b", 1.0)], "x")
    with pytest.raises(UserError, match="of 2 outcomes none is known"):
        ranking.win_rate([np.nan, np.nan])


def test_rows_hold_rates_and_ratings_together():
    outcomes = {"a": np.array([1.0, 0.5, np.nan]), "b": np.zeros(3), "c": np.full(2, np.nan)}
    a, b, c = ranking.rows(outcomes, "sft")
    assert a["win_rate"] == 0.75 and a["rating"] > 1000 > b["rating"] and b["elo"] < 1000
    assert a["rating_low"] <= a["rating"] <= a["rating_high"]
    assert c == {"policy": "c", "win_rate": None, "elo": None, "rating": None}


def test_policies_are_compared_with_the_anchor_answer_by_answer():
    prompt = "list red fire"
    said = {
        "sft": [Answer(prompt, " red", True), Answer(prompt, " sorry", True)],
        "bold": [Answer(prompt, " red fire", True), Answer(prompt, " fire", True)],
    }
    experiment = Experiment()
    by_reward, by_safety = comparisons.against(
        said, "sft", comparisons.judges(experiment), experiment.eval
    )
    assert by_reward["bold"]["reward_win_rate"] == 1 and by_reward["bold"]["reward_unknown"] == 0
    assert by_safety["bold"]["safety_win_rate"] == 0 and by_safety["bold"]["safety_asked"] == 4
    assert by_reward["sft"]["reward_win_rate"] == 0.5
    assert [row["policy"] for row in comparisons.table(by_reward)] == ["sft", "bold"]
    assert comparisons.against({"bold": said["bold"]}, "sft", {}, experiment.eval) == []
