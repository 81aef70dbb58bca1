# SPDX-License-Identifier: Apache-2.0
"""How the models that refuse too much come about."""

import dataclasses

import numpy as np
import pytest

from experiments import over_refusal, tsdi_presets
from jaxsafe.core.checks import UserError
from jaxsafe.data.preferences import Pair
from jaxsafe.sacpo import synthetic, variants
from jaxsafe.tsdi.sources import refuses

DEMO = tsdi_presets.PRESETS["demo"]
ALIGN = dataclasses.replace(
    DEMO.align,
    task=synthetic.Task(prompts=80, held_out=10, demonstrations=200, pairs=400),
    safe=dataclasses.replace(DEMO.align.safe, batch_size=16),
)


def test_cleansing_leaves_hazardous_prompts_only():
    same, other = Pair("list red fire", " red", " sorry"), Pair("list red fire", " red", " fire")
    assert variants.cleanse([same, other], 0.25) == ([other], [same])
    drawn = synthetic.draw(ALIGN.task).safe
    kept, others = variants.cleanse(drawn, 0.25)
    assert 30 < len(kept) < len(drawn) / 2 and len(kept) + len(others) == len(drawn)
    assert all(synthetic.conflicts(pair.prompt) for pair in kept)
    assert variants.cleanse(drawn, 0.0) == (drawn, [])


def test_variants_differ_in_what_they_are_named_after():
    data, model = over_refusal.data_of(ALIGN, "")

    def plan(name, **change):
        how = dataclasses.replace(DEMO.variants, **change)
        return variants.plan(name, ALIGN, data, model, how)

    plans = {name: plan(name) for name in variants.NAMES}
    base = plans["base"].config
    changed = {name: plan.config for name, plan in plans.items()}
    assert changed["low_kl"].stage == dataclasses.replace(base.stage, temperature=0.3)
    assert changed["long"].steps == 3 * base.steps
    rows = {name: plan.data.ids.shape[0] for name, plan in plans.items()}
    assert rows["base"] == rows["low_kl"] == rows["long"] == 400
    assert rows["cleansed"] < 200 and rows["over"] == 400
    assert changed["over"].stage.temperature == 0.3
    assert changed["over"].stage.epochs == 3 * base.stage.epochs
    # The same prompts, other labels.
    one, other = (plans[name].data.ids for name in ("base", "over"))
    assert (one.sum((1, 2)) == other.sum((1, 2))).all() and (one != other).any()


def test_labellers_may_like_refusals_whatever_was_asked():
    """Of pairs with two safe answers and one refusal alone; a share of them, and no other pair."""
    drawn = synthetic.draw(ALIGN.task).safe
    for share, expected in ((1.0, 1.0), (0.8, 0.8), (0.0, 0.0)):
        pairs = variants.prefer_refusals(drawn, share, 0)
        assert [p.prompt for p in pairs] == [p.prompt for p in drawn]
        chosen = []
        for before, after in zip(drawn, pairs, strict=True):
            answers = [before.chosen, before.rejected]
            safe = [synthetic.safety("", x) for x in answers]
            if safe[0] == safe[1] and " sorry" in answers:
                assert sorted(answers) == sorted([after.chosen, after.rejected])
                chosen.append(after.chosen == " sorry")
            else:
                assert after == before
        assert len(chosen) > 60 and np.mean(chosen) == pytest.approx(expected, abs=0.12)


def test_a_threshold_beyond_every_pair_is_refused():
    how = dataclasses.replace(DEMO.variants, threshold=1.0)
    tasks = (dataclasses.replace(ALIGN.task, pairs=1, seed=seed) for seed in range(50))
    task = next(t for t in tasks if not variants.cleanse(synthetic.draw(t).safe, 1.0)[0])
    data, model = over_refusal.data_of(ALIGN, "")
    with pytest.raises(UserError, match=r"threshold=1\.0 leaves no pair: lower it"):
        variants.plan("cleansed", dataclasses.replace(ALIGN, task=task), data, model, how)


def test_prompts_to_choose_by_are_others_than_those_reported():
    reported, tuning = (over_refusal.source(ALIGN, "", x).prompts for x in variants.PROMPTS)
    assert len(reported) == len(tuning) == 10
    assert not {p.text for p in reported} & {p.text for p in tuning}
    assert [p.text for p in reported] == synthetic.draw(ALIGN.task).held_out


def test_categories_are_hazards_and_lengths():
    assert over_refusal.category("list red gold blue") == "harmless, 3 words"
    assert over_refusal.category("list red acid") == "hazard, acid"
    assert over_refusal.category("list fire red acid") == "hazard, several"


def test_prompts_and_scores_are_the_tasks_own():
    source = over_refusal.source(ALIGN, "")
    assert sum(p.harmful for p in source.prompts) == 5 and len(source.prompts) == 10
    for prompt in source.prompts:
        assert prompt.harmful == synthetic.conflicts(prompt.text) == bool(prompt.score)
    asked = source.prompts[0].text
    first = synthetic.words_of(asked)[0]
    scores = source.scorers
    assert scores["compliance"](asked, f" {first}") == 1 == scores["safety"](asked, " sorry")
    assert scores["compliance"](asked, " sorry") == 0 == scores["safety"](asked, " fire")
    assert refuses(synthetic.REFUSAL) and not any(map(refuses, synthetic.WORDS))
