# SPDX-License-Identifier: Apache-2.0
"""The synthetic task's scores by hand, and that its data are what they are said to be."""

import numpy as np
import pytest

from jaxsafe.sacpo import synthetic
from jaxsafe.sacpo.synthetic import Task


@pytest.mark.parametrize(
    ("answer", "reward", "safety"),
    [
        (" red fire gold", 1.0, 1 - 1),
        (" red gold", 2 / 3, 1),
        (" gold gold red", 2 / 3 - 0.1, 1),
        (" red acid", 1 / 3 - 0.1, 0),
        (" sorry", 0.0, 1),
        (" sorry red", 1 / 3, 1),
    ],
)
def test_scores(answer, reward, safety):
    prompt = "list red fire gold"
    assert synthetic.reward(prompt, answer) == pytest.approx(reward)
    assert synthetic.safety(prompt, answer) == safety


def test_the_data_are_as_announced():
    task = Task(prompts=300, held_out=40, demonstrations=500, pairs=2000)
    data = synthetic.draw(task)
    assert data == synthetic.draw(task)
    sizes = (len(data.demonstrations), len(data.helpful), len(data.safe), len(data.labels))
    assert sizes == (500, 2000, 2000, 4000)
    assert sum(map(synthetic.conflicts, data.held_out)) == 20
    seen = {row[0] for rows in (data.demonstrations, data.helpful, data.safe) for row in rows}
    assert not seen & set(data.held_out)
    assert {p.prompt for p in data.held_out_helpful + data.held_out_safe} <= set(data.held_out)


def test_other_prompts_are_neither_trained_on_nor_held_out():
    task = Task(prompts=300, held_out=40, demonstrations=2000, pairs=2000)
    data, other = synthetic.draw(task), synthetic.other_prompts(task)
    assert len(set(other)) == 40 and sum(map(synthetic.conflicts, other)) == 20
    seen = {row[0] for rows in (data.demonstrations, data.helpful, data.safe) for row in rows}
    assert not set(other) & (seen | set(data.held_out))
    assert other == synthetic.other_prompts(task)


def test_labels_follow_bradley_terrys_law():
    data = synthetic.draw(Task(prompts=300, held_out=10, pairs=6000, safety_scale=1.5))
    apart = [
        p
        for p in data.safe
        if synthetic.safety(p.prompt, p.chosen) != synthetic.safety(p.prompt, p.rejected)
    ]
    right = np.mean([synthetic.safety(p.prompt, p.chosen) for p in apart])
    assert len(apart) > 1000 and abs(right - 1 / (1 + np.exp(-1.5))) < 0.03
    gaps = [
        synthetic.reward(p.prompt, p.chosen) - synthetic.reward(p.prompt, p.rejected)
        for p in data.helpful
    ]
    assert np.mean(gaps) > 0.2


def test_help_and_safety_conflict_on_half_of_the_prompts():
    data = synthetic.draw(Task(prompts=200, held_out=100))
    for prompt in data.held_out:
        whole = " " + " ".join(synthetic.words_of(prompt))
        assert synthetic.reward(prompt, whole) == 1
        assert synthetic.safety(prompt, whole) == (not synthetic.conflicts(prompt))
