# SPDX-License-Identifier: Apache-2.0
"""Preference files as a run's data: what is learnt, what is held out, what is answered."""

import json

import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.sacpo import sources
from jaxsafe.sacpo.experiment import Experiment, Files, Text


def write(path, rows):
    names = ("prompt", "chosen", "rejected")
    path.write_text("".join(json.dumps(dict(zip(names, r, strict=True))) + "\n" for r in rows))
    return str(path)


def rows(kind, prompts):
    """Two pairs to each prompt."""
    return [(f"{kind} {n}", f"good {n} {k}", f"bad {k}") for n in prompts for k in range(2)]


@pytest.fixture
def opened(tmp_path):
    def open_files(test=(), **changes):
        names = {
            "helpful": write(tmp_path / "h.jsonl", rows("tell", range(40))),
            "safe": write(tmp_path / "s.jsonl", rows("do", range(40))),
        }
        if test:
            names["test"] = write(tmp_path / "t.jsonl", test)
        files = Files(**{"held_out": 0.25, **names, **changes})
        return sources.open_source(
            Experiment(source="files", files=files, text=Text(max_prompt=20, max_length=60))
        )

    return open_files


def test_prompts_are_held_out_whole_and_answered_once(opened):
    source = opened()
    learnt, held = (len(x["helpful"].ids) for x in (source.data, source.held_out))
    assert learnt + held == 80 and 0 < held < 40 and held % 2 == 0
    assert len(source.prompts) == len(set(source.prompts)) == held // 2
    assert len(source.data["sft"].ids) == learnt + len(source.data["safe"].ids)
    assert set(source.held_out) == {"helpful", "safe"}


def test_a_file_of_its_own_is_scored_but_for_prompts_that_are_learnt(opened):
    other = rows("other", range(3))
    source = opened([*other, *rows("tell", range(40)), *rows("do", range(40))])
    kept = sum(len(source.held_out[x].ids) for x in ("helpful", "safe"))
    assert len(source.held_out["test"].ids) == len(other) + kept
    left_out = 160 - kept
    assert f"test: {left_out} pairs with prompts that are learnt left out" in source.told
    alone = opened()
    assert len(source.data["sft"].ids) == len(alone.data["sft"].ids)
    assert len(source.tokenizer) == len(alone.tokenizer)


def test_a_file_with_nothing_new_is_refused(opened):
    seen = [(f" {p} ", *answers) for p, *answers in rows("tell", range(40))]
    with pytest.raises(UserError, match=r"files\.test has no prompt that is not learnt"):
        opened(seen, held_out=0.0)


def test_every_file_is_read_from_its_start_as_far_as_asked(opened, tmp_path):
    shown = tmp_path / "shown.jsonl"
    labels = [{"prompt": f"p{n}", "completion": "yes", "label": True} for n in range(30)]
    shown.write_text("".join(json.dumps(row) + "\n" for row in labels))
    source = opened(rows("other", range(30)), max_rows=10, held_out=0.2, sft=str(shown))
    assert len(source.held_out["test"].ids) == 10
    assert 0 < len(source.data["sft"].ids) <= 10
    assert len(source.data["safe"].ids) + len(source.held_out["safe"].ids) == 10
