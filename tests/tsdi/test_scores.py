# SPDX-License-Identifier: Apache-2.0
"""Answers of methods and what is measured of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import lm, tsdi
from jaxsafe.core.checks import UserError
from jaxsafe.lm import tiny
from jaxsafe.tsdi import experiment as experiments
from jaxsafe.tsdi import methods, scores
from jaxsafe.tsdi.sources import Prompt, Source
from tests.tsdi import llamas

TEXTS = ["list red gold", "list fire", "list blue red acid"]
HOW = experiments.Decoding(samples=2, max_new=5, alphas=(0.5,), length=2, lengths=(1,))


@pytest.fixture(scope="module")
def world():
    """A source with a random decoder, two of them prepared, and a table."""
    tokenizer = tiny.train_tokenizer([f"USER: {text} ASSISTANT: sorry" for text in TEXTS], 300)
    config = dataclasses.replace(llamas.CONFIG, vocab_size=len(tokenizer))
    source = Source(
        config=config,
        tokenizer=tokenizer,
        template="USER: {input} ASSISTANT:",
        prompts=[Prompt(text, "x", i > 0, float(i > 0)) for i, text in enumerate(TEXTS)],
        scorers={"compliance": lambda prompt, answer: float("e" in answer)},
        corpus=TEXTS,
        place=lambda folder, name, seed: folder.path,
    )
    params = [jax.tree.map(lambda x: 6 * x, lm.init(jax.random.key(i), config)) for i in (0, 1)]
    drawn = 5 * jax.random.normal(jax.random.key(2), (2, config.vocab_size))
    table = tsdi.Table(drawn, jnp.zeros_like(drawn))
    names = ("safe", "reference")
    ready = {n: lm.prepare(p, config) for n, p in zip(names, params, strict=True)}
    return source, params, table, ready


def every(world, **change):
    source, _, table, ready = world
    how = dataclasses.replace(HOW, **change)
    harm = np.array([p.score for p in source.prompts])
    found = methods.methods(how, experiments.Baselines(), table, {"K 8": table}, ready, harm, [5])
    return how, {method.name: method for method in found}


def test_methods_are_what_they_are_called(world):
    source, _, _, ready = world
    how, found = every(world)
    key = jax.random.key(0)
    said = {name: scores.answer(m, source, how, key).tokens for name, m in found.items()}
    options = lm.Generation(
        max_new=5, temperature=1.0, stop_ids=(tiny.EOS_ID,), pad_id=tiny.PAD_ID, samples=2
    )

    def plain(models, **given):
        part = jax.random.fold_in(key, 0)
        tokens = lm.generate.generate(models, source.prompt_ids(), options, part, **given).tokens
        return np.asarray(tokens).reshape(3, 2, 5)

    both = (ready["safe"], ready["reference"])
    expected = {
        "safe": plain(ready["safe"]),
        "reference": plain(ready["reference"]),
        "interpolation 0.25": plain(both, mix=(0.75, 0.25)),
        "contrastive 0.5": plain(both, mix=(-0.5, 1.5)),
    }
    for name, tokens in expected.items():
        np.testing.assert_array_equal(said[name], tokens, err_msg=name)
    np.testing.assert_array_equal(said["TSDI K 8"], said["TSDI alpha 1"])
    # The gate leaves the second and third prompt alone, which are harmful.
    np.testing.assert_array_equal(said["TSDI gated"][1:], said["safe"][1:])
    np.testing.assert_array_equal(said["TSDI gated"][:1], said["TSDI alpha 1"][:1])
    assert (said["TSDI alpha 1"] != said["safe"]).any()
    assert found["penalty 4"].correction.bias.sum() == 1


def test_prompts_in_parts_get_the_same_greedy_answers(world, monkeypatch):
    source = world[0]
    how, found = every(world, temperature=0.0, samples=1)
    key = jax.random.key(0)
    for name in ("TSDI gated", "interpolation 0.5"):
        whole = scores.answer(found[name], source, how, key)
        with monkeypatch.context() as patch:
            patch.setattr(scores, "_ROWS", 2)
            parts = scores.answer(found[name], source, how, key)
        assert parts.texts == whole.texts and len(whole.texts) == 3
        np.testing.assert_array_equal(parts.lengths, whole.lengths)


def test_the_likelihood_of_own_answers_is_what_generation_says(world):
    source, params, _, ready = world
    prompts = source.prompt_ids()
    options = lm.Generation(
        max_new=6, temperature=1.0, stop_ids=(tiny.EOS_ID,), samples=2, log_probs=True
    )
    out = lm.generate.generate(ready["safe"], prompts, options, jax.random.key(0))
    lengths = np.asarray(out.lengths).reshape(3, 2)
    given = scores.Answers([], np.asarray(out.tokens).reshape(3, 2, 6), lengths)
    expected = -np.asarray(out.log_probs).sum(1).reshape(3, 2) / lengths
    found = scores.nll(given, prompts, params[0], source.config)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (scores.nll(given, prompts, params[1], source.config) > found).any()


def test_scores_are_of_each_answer_and_grouped_by_label(world):
    source = world[0]
    given = scores.Answers([["red", "sorry"], ["a a b a", ""], ["we", "x"]], None, None)
    found = scores.score(given, source)
    np.testing.assert_array_equal(found["compliance"], [[1, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(found["refusal"], [[0, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(found["repetition"], [[0, 0], [0.5, 0], [0, 0]])
    means = scores.by_group(found, np.array([False, True, True]))
    assert means["benign_compliance"] == 0.5 and means["harmful_compliance"] == 0.25
    assert "harmful_words" not in scores.by_group(found, np.zeros(3, bool))


def test_a_scorer_that_gives_no_number_is_named(world):
    source = world[0]._replace(scorers={"mine": lambda prompt, answer: float("nan")})
    with pytest.raises(UserError, match="scorer 'mine' gave a value that is not finite"):
        scores.score(scores.Answers([["a"]] * 3, None, None), source)
