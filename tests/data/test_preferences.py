# SPDX-License-Identifier: Apache-2.0
"""Preference files of every format, made here and real, and what is said of damaged ones."""

import gzip
import json

import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import preferences
from jaxsafe.data.preferences import Labelled, Pair
from tests import real_data

PKU = {
    "prompt": "p",
    "response_0": "a",
    "response_1": "b",
    "better_response_id": 0,
    "safer_response_id": 1,
    "is_response_0_safe": False,
    "is_response_1_safe": True,
}
JUDGED = {"instruction": "p", "output_1": "a", "output_2": "b", "preference": 2}
HH = {
    "chosen": "\n\nHuman: p\n\nAssistant: q\n\nHuman: r\n\nAssistant: a",
    "rejected": "\n\nHuman: p\n\nAssistant: q\n\nHuman: r\n\nAssistant: b",
}
LABEL = {"prompt": "p", "completion": "a", "label": True}


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("record", "which", "expected"),
    [
        (PKU, "helpful", Pair("p", "a", "b")),
        (PKU, "safe", Pair("p", "b", "a")),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "helpful", Pair("p", "a", "b")),
        ({"prompt": "p", "response": ["a", "b"]}, "safe", Pair("p", "a", "b")),
        (JUDGED, "helpful", Pair("p", "b", "a")),
        (HH, "safe", Pair("p\n\nAssistant: q\n\nHuman: r", "a", "b")),
    ],
)
def test_pairs_of_every_format(tmp_path, record, which, expected):
    read = preferences.read_pairs(lines(tmp_path / "x.jsonl", record), which)
    assert read.rows == [expected]
    assert (read.report.records, read.report.rows) == (1, 1)


def test_labels_of_every_format(tmp_path):
    def read(record, which):
        return preferences.read_labelled(lines(tmp_path / "x.jsonl", record), which).rows

    assert read(PKU, "safe") == [Labelled("p", "a", False), Labelled("p", "b", True)]
    assert read(PKU, "helpful") == [Labelled("p", "a", True), Labelled("p", "b", False)]
    assert read(LABEL, "safe") == [Labelled("p", "a", True)]
    assert read(JUDGED, "safe") == [Labelled("p", "b", True), Labelled("p", "a", False)]


def test_gzip_and_json_lists_read_alike(tmp_path):
    rows = [{"prompt": f"p{i}\u2028", "chosen": "a", "rejected": "b"} for i in range(3)]
    plain = lines(tmp_path / "x.jsonl", *rows)
    zipped, listed = tmp_path / "x.jsonl.gz", tmp_path / "x.json"
    zipped.write_bytes(gzip.compress(json.dumps(rows[0], ensure_ascii=False).encode() + b"\n"))
    listed.write_text(json.dumps(rows, indent=2))
    expected = preferences.read_pairs(plain).rows
    assert preferences.read_pairs(listed).rows == expected
    assert preferences.read_pairs(zipped).rows == expected[:1]


def test_nothing_is_left_out_in_silence(tmp_path):
    rows = [
        {"prompt": " ", "chosen": "a", "rejected": "b"},
        {"prompt": "long", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "a"},
        {"prompt": "p", "chosen": "a", "rejected": "b"},
    ]
    path = lines(tmp_path / "x.jsonl", *rows)
    dropped = preferences.read_pairs(path, max_prompt=3).report
    kept = preferences.read_pairs(path, max_prompt=3, over_long="keep").report
    for report, number in ((dropped, 1), (kept, 2)):
        counts = (report.records, report.rows, report.empty, report.over_long, report.undecided)
        assert counts == (4, number, 1, 1, 1)
    assert "1 rows kept; 1 with an empty prompt and 1 undecided left out" in str(dropped)
    words = preferences.read_pairs(path, max_prompt=1, length=lambda text: len(text.split()))
    assert words.report.over_long == 0


def test_a_dialogue_that_parts_early_is_undecided(tmp_path):
    other = HH | {"rejected": "\n\nHuman: else\n\nAssistant: b"}
    report = preferences.read_pairs(lines(tmp_path / "x.jsonl", HH, other)).report
    assert (report.rows, report.undecided) == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "p"', r"x\.jsonl, line 2 is no JSON \(Expecting"),
        ("[1]", r"x\.jsonl, line 2 is a list: give a JSON object"),
        ('{"prompt": "p", "chosen": "a"}', r"line 2, field 'rejected' is missing"),
        ('{"prompt": 3, "chosen": "a", "rejected": "b"}', r"line 2, field 'prompt' is 3: give a t"),
        ('{"prompt": "p", "chosen": "", "rejected": "b"}', r"line 2, field 'chosen' is '': give"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, text, message):
    path = lines(tmp_path / "x.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"})
    path.write_text(path.read_text() + text + "\n")
    with pytest.raises(UserError, match=message):
        preferences.read_pairs(path)


@pytest.mark.parametrize(
    ("record", "which", "message"),
    [
        (PKU | {"safer_response_id": 2}, "safe", r"line 1, field 'safer_response_id' is 2: give t"),
        (PKU | {"response_1": None}, "safe", r"field 'response_1' is None: give a text"),
        ({"prompt": "p", "response": ["a"]}, "safe", r"field 'response' is \['a'\]: give \[bett"),
        (JUDGED | {"preference": 3}, "safe", r"field 'preference' is 3: give 1 or 2"),
        (HH | {"chosen": "hello"}, "safe", r"field 'chosen' is 'hello': give a dialogue"),
        ({"a": 1}, "safe", r"line 1 has the fields a, of no known format \(pku: prompt, resp"),
    ],
)
def test_a_malformed_field_is_named(tmp_path, record, which, message):
    with pytest.raises(UserError, match=message):
        preferences.read_pairs(lines(tmp_path / "x.jsonl", record), which)


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl cannot be read \(No such file"):
        preferences.read_pairs(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="holds no record"):
        preferences.read_pairs(lines(tmp_path / "x.jsonl"))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:-20])
    with pytest.raises(UserError, match=r"cut\.gz cannot be read \("):
        preferences.read_pairs(tmp_path / "cut.gz")
    with pytest.raises(UserError, match="Did you mean 'pairs'"):
        preferences.read_pairs(tmp_path / "x.jsonl", format="pair")


def test_a_prompt_is_on_one_side_of_the_split_whatever_its_row():
    rows = [Pair(f"p{i % 200}", str(i), "b") for i in range(1000)]
    train, held_out = preferences.split(rows, 0.2)
    assert len(train) + len(held_out) == 1000
    assert not {row.prompt for row in train} & {row.prompt for row in held_out}
    assert 0.1 < len(held_out) / 1000 < 0.3
    assert preferences.split(rows[::-1], 0.2)[1] == held_out[::-1]
    assert preferences.split(rows, 0.2, salt="b")[1] != held_out


def test_pku_5k():
    read = preferences.read_pairs(real_data.file("pku_saferlhf/pku_5k.json"), "safe")
    report = read.report
    assert report.format == "ranked" and report.records == 5135
    assert report.rows + report.empty + report.undecided == 5135 and report.rows > 5000


def test_hh_harmless_test():
    read = preferences.read_pairs(real_data.file("hh_rlhf/harmless-base-test.jsonl.gz"), "safe")
    assert read.report.format == "hh" and read.report.records == 2312
    assert read.report.rows + read.report.undecided + read.report.empty == 2312
    assert read.report.rows > 2200
    assert all(not row.prompt.startswith("\n\nHuman:") for row in read.rows)


def test_alpaca_eval():
    read = preferences.read_pairs(real_data.file("alpaca_eval/gpt4_preferences.jsonl"))
    assert read.report.format == "judged" and read.report.records == 5583
    assert read.report.rows + read.report.undecided == 5583
