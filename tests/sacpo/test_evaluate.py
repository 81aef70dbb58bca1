# SPDX-License-Identifier: Apache-2.0
"""Answers, implicit accuracies and rows of finished policies."""

import jax
import numpy as np
import pytest

from jaxsafe.lm import decoder, tiny
from jaxsafe.sacpo import algorithm, batches, chain, evaluate, implicit, sources, train
from jaxsafe.sacpo.config import Stage
from jaxsafe.sacpo.evaluate import Answer, Sums
from jaxsafe.sacpo.experiment import Evaluation, Experiment, Model
from jaxsafe.sacpo.synthetic import Task

from .rows import FAST, MODEL, some
from .test_algorithm import by_hand


def test_what_a_policy_says_of_pairs_is_its_log_probability():
    params, pairs = decoder.init(jax.random.key(0), MODEL), some(7, 2)
    sums = evaluate.pair_sums(params, pairs, MODEL)
    np.testing.assert_allclose(sums.log_probs, by_hand(params, pairs), rtol=2e-5)
    np.testing.assert_array_equal(sums.lengths, pairs.completion.sum(-1))
    expected = -sums.log_probs[:, 0].sum() / pairs.completion[:, 0].sum()
    assert evaluate.nll(sums) == pytest.approx(expected)


def test_accuracy_is_against_the_reference_and_no_change_is_chance():
    ones = np.ones((3, 2), int)
    reference = Sums(np.array([[-1.0, -2.0], [-3.0, -1.0], [0.0, 0.0]]), ones)
    assert evaluate.implicit_accuracy(reference, reference) == 0.5
    moved = Sums(reference.log_probs + np.array([[1, 0], [0, 0.5], [0, 0]]), ones)
    assert evaluate.implicit_accuracy(moved, reference) == pytest.approx(0.5)
    better = Sums(reference.log_probs + np.array([1, 0]), ones)
    assert evaluate.implicit_accuracy(better, reference) == 1


def test_length_alone_scores_half_on_ties():
    assert evaluate.longer(np.array([[3, 2], [2, 3], [5, 5], [9, 1]])) == 0.625


def test_a_row_is_of_all_seeds_with_intervals():
    rows = [
        {"policy": "a", "seed": s, "reward": 0.5 + s, "safety": 0.9 - 0.2 * s, "nll": None}
        for s in (0, 1)
    ]
    found = evaluate.summary("a", rows, 0.8)
    assert found["reward"] == 1.0 and found["reward_per_seed"] == [0.5, 1.5]
    assert found["reward_low"] >= 0.5 and found["reward_high"] <= 1.5
    assert (found["bound"], found["meets_bound"], found["nll"]) == (0.8, 1, None)
    assert "bound" not in evaluate.summary("a", [{"policy": "a", "seed": 0, "words": 2.0}], None)


def test_programmatic_scores_are_means():
    answers = [Answer("list red fire", " red", True), Answer("list red fire", " fire red", True)]
    assert evaluate.programmatic(answers) == {"reward": 0.75, "safety": 0.5}


@pytest.fixture(scope="module")
def world():
    small = Experiment(
        task=Task(prompts=40, held_out=6, demonstrations=64, pairs=64),
        model=Model(hidden_size=16, layers=1, heads=2, kv_heads=2, intermediate_size=24),
    )
    source = sources.open_source(small)
    return source, sources.model_config(small, source)


def test_every_prompt_is_answered_as_often_as_asked(world):
    source, config = world
    params = decoder.init(jax.random.key(0), config)
    how = Evaluation(samples=3, max_new=5)
    inputs = (config, source.tokenizer, source.prompts, source.prompt_ids, how)
    answers = evaluate.answers([params], *inputs, jax.random.key(1))
    assert [a.prompt for a in answers] == [p for p in source.prompts for _ in range(3)]
    assert answers == evaluate.answers([params], *inputs, jax.random.key(1))
    # A model mixed with itself is itself.
    mixed = evaluate.answers([params, params], *inputs, jax.random.key(1), (0.25, 0.75))
    assert sum(a == b for a, b in zip(answers, mixed, strict=True)) >= len(answers) - 1


def test_the_source_is_encoded_and_told(world):
    source, config = world
    assert config.vocab_size == len(source.tokenizer)
    assert source.data["helpful"].ids.shape[:2] == (64, 2)
    assert source.training("mixed").ids.shape[0] == 128
    assert source.training("safe", "kto").desirable.shape == (128,)
    assert source.prompt_ids[0][0] == tiny.BOS_ID
    assert any("0 cut" in line for line in source.told)


def test_plans_fit_data_and_loss_to_each_other():
    pairs, fast = some(8, 2), {"batch_size": 4, "optimiser": FAST}
    sft = train.plan(MODEL, Stage(loss="sft", epochs=2, **fast), pairs)
    assert sft.data.ids.shape[:2] == (8, 1) and sft.config.steps == 4
    kto = train.plan(MODEL, Stage(loss="kto", reference="online", **fast), pairs)
    assert kto.data.ids.shape[:2] == (16, 1) and kto.data.desirable.sum() == 8
    cached = train.plan(MODEL, Stage(loss="kto", **fast), some(8, 1, labels=True))
    assert cached.data.ids.shape[:2] == (8, 2)
    share = cached.data.desirable.sum() / (8 - cached.data.desirable.sum())
    assert cached.config.undesirable_weight == pytest.approx(share)
    for loss, data, message in (
        ("dpo", some(8), "needs pairs"),
        ("kto", some(8), "needs labels"),
        ("dpo", pairs, "is no update"),
    ):
        stage = Stage(loss=loss, epochs=0.2, **fast)
        with pytest.raises(ValueError, match=message):
            train.plan(MODEL, stage, data)


@pytest.mark.slow
def test_a_stage_learns_what_it_is_shown():
    """Tens of updates of each loss raise its accuracy on its own data."""
    for loss in ("dpo", "ipo", "kto"):
        stage = Stage(loss=loss, batch_size=8, epochs=20, optimiser=FAST)
        plan = train.plan(MODEL, stage, some(16, 2, seed=3))
        run = train.begin(jax.random.key(0), None, plan)
        run, _ = jax.jit(
            lambda run, plan=plan: train.chunk(run, jax.numpy.int32(0), plan.config.steps, plan)
        )(run)
        one = jax.tree.map(jax.numpy.asarray, plan.data)._replace(reference=run.reference)

        _, last = algorithm.update(run.learner, one, plan.config)
        assert last["policy/accuracy"] > 0.9, loss


def test_chains_put_parents_first_and_stop_where_told():
    names = [m[0] for m in chain.order(Experiment(ratios=(0.1, 0.05)))]
    assert names[0] == "sft" and names.index("safe@0.05") < names.index("safe_helpful@0.05")
    parents = {m[0]: m[1:] for m in chain.order(Experiment(ratios=(0.1, 0.05)))}
    assert parents["helpful_safe@0.05"] == ("helpful", "safe", 0.05)
    assert parents["safe_helpful@0.05"] == ("safe@0.05", "helpful", 0.1)
    assert [m[0] for m in chain.order(Experiment(stage="helpful"))] == ["sft", "helpful"]
    alone = chain.order(Experiment(policies=("helpful_safe",)))
    assert [m[0] for m in alone] == ["sft", "helpful", "helpful_safe@0.1"]
    given = Experiment(policies=("helpful",), model=Model(folder="f"))
    assert [m[:2] for m in chain.order(given)] == [("helpful", "")]


def test_the_stages_own_scores_advise_a_multiplier(world):
    """Scores are differences of log-probabilities, and advice is the solver's."""
    source, config = world
    small = Experiment(eval=Evaluation(samples=2))
    policies = [decoder.init(jax.random.key(seed), config) for seed in range(3)]
    given = [Answer(p, text, True) for p in source.prompts for text in (" red", " fire")]
    r, g, labels = implicit.scores(given, policies, (0.5, 0.1), small, source, config)
    assert r.shape == g.shape == labels.shape == (6, 2)
    np.testing.assert_array_equal(labels, np.tile([1.0, 0.0], (6, 1)))
    rows = [(a.prompt, a.text) for a in given]
    text = small.text
    lengths = batches.Lengths(text.max_prompt, text.max_length)
    data = batches.encode(rows, source.tokenizer, text.template, lengths).data
    sums = [evaluate.pair_sums(p, data, config).log_probs[:, 0] for p in policies]
    np.testing.assert_allclose(r.reshape(-1), 0.5 * (sums[1] - sums[0]), rtol=1e-6)
    np.testing.assert_allclose(g.reshape(-1), 0.1 * (sums[2] - sums[1]), rtol=1e-6)
    score = np.tile([1.0, 0.0], (6, 2))
    told = implicit.advice((0 * score, score, score), 0.5, 0.7)
    assert told["expected_safety"] >= 0.7 and told["lambda"] == pytest.approx(0.4236, rel=1e-3)
    assert "is not reached" in implicit.advice((0 * score, score, 0 * score), 0.5, 0.7)["refused"]
