# SPDX-License-Identifier: Apache-2.0
"""Decoders: on-policy prefixes, corrected generation, and models that do not fit together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import lm, tsdi
from jaxsafe.core.checks import UserError
from jaxsafe.lm import tiny
from jaxsafe.lm.choosing import Generation
from jaxsafe.lm.generate import _run
from jaxsafe.tsdi import models
from tests.tsdi import llamas

PROMPTS = [[5, 9, 3, 7, 1], [4, 8], [2, 2, 6, 30, 11, 12]]
BUCKETS = (6,)


def table(seed=0, scale=3.0):
    drawn = scale * jax.random.normal(jax.random.key(seed), (3, 64))
    return tsdi.Table(drawn, jnp.zeros((3, 64)))


def by_hand(params, prompt, bias, alpha, length, count):
    """Greedy ids of a plain loop over whole rows, logits edited in NumPy."""
    apply, ids, found = jax.jit(lm.apply_fn(llamas.CONFIG)), list(prompt), []
    for i in range(count):
        row = np.zeros((1, 16), np.int32)
        row[0, : len(ids)] = ids
        logits = np.array(apply(params, row, np.arange(16)[None] < len(ids)))[0, len(ids) - 1]
        if i < length:
            logits = logits - alpha * np.asarray(bias)[i]
        found.append(int(logits.argmax()))
        ids.append(found[-1])
    return found


@pytest.mark.parametrize(("alpha", "length"), [(1.0, 3), (0.5, 2), (-1.0, 3), (1.0, 0)])
def test_greedy_ids_are_those_of_a_loop_that_edits_logits(alpha, length):
    params, model = llamas.ready()
    off = table()
    out = models.generate(
        model,
        PROMPTS,
        Generation(max_new=6),
        correction=tsdi.correction(off, alpha, length),
        buckets=BUCKETS,
    )
    expected = [by_hand(params, p, off.bias, alpha, length, 6) for p in PROMPTS]
    assert np.asarray(out.tokens).tolist() == expected
    plain = lm.generate.generate(model, PROMPTS, Generation(max_new=6), buckets=BUCKETS)
    assert ((np.asarray(plain.tokens) == expected).all()) == (length == 0)


def test_another_table_alpha_or_length_is_no_other_program():
    _, model = llamas.ready()
    before = _run._cache_size()
    for seed, alpha, length in ((0, 1.0, 3), (1, 0.3, 3), (1, 1.0, 1), (2, 0.0, 0)):
        at_work = tsdi.correction(table(seed), alpha, length)
        models.generate(model, PROMPTS, Generation(max_new=5), correction=at_work, buckets=BUCKETS)
        assert _run._cache_size() == before + 1


def test_temperature_and_top_p_act_on_corrected_logits():
    """A planted bias comes off ahead of them: the same draws as of the bare model."""
    params, model = llamas.ready()
    off = table()
    options = Generation(max_new=3, temperature=2.0, top_p=0.8, samples=200, log_probs=True)
    key = jax.random.key(4)
    plain = lm.generate.generate(model, PROMPTS, options, key, buckets=BUCKETS)

    def both(logits, step, at_work):
        there = tsdi.correct(logits, step, at_work.replace(alpha=-at_work.alpha))
        return tsdi.correct(there, step, at_work)

    back = lm.generate.generate(
        model, PROMPTS, options, key, processor=both, extra=tsdi.correction(off), buckets=BUCKETS
    )
    assert (plain.tokens == back.tokens).mean() > 0.99  # but where rounding decides a draw
    moved = models.generate(model, PROMPTS, options, key, tsdi.correction(off), buckets=BUCKETS)
    first = np.asarray(moved.tokens)[:200, 0]
    _, logits = (
        jax.nn.log_softmax,
        lm.apply_fn(llamas.CONFIG)(params, jnp.asarray([PROMPTS[0]]), jnp.ones((1, 5), bool)),
    )
    law = np.asarray(jax.nn.softmax((logits[0, -1] - off.bias[0]) / 2.0))
    order = np.argsort(-law)
    nucleus = order[: int(np.searchsorted(np.cumsum(law[order]), 0.8)) + 1]
    assert set(first) <= set(nucleus.tolist())


def test_alpha_per_prompt_serves_every_sample_of_it():
    _, model = llamas.ready()
    options, key = Generation(max_new=4, temperature=1.0, samples=3), jax.random.key(1)
    plain = lm.generate.generate(model, PROMPTS, options, key, buckets=BUCKETS).tokens
    alphas = jnp.array([0.0, 1.0, 0.0])
    at_work = tsdi.correction(table(), 1.0).replace(alpha=alphas)
    mixed = models.generate(model, PROMPTS, options, key, at_work, buckets=BUCKETS).tokens
    same = (np.asarray(plain) == np.asarray(mixed)).all(1)
    assert same[:3].all() and same[6:].all() and not same[3:6].all()


def test_on_policy_answers_are_the_authors_and_never_end():
    params, model = llamas.ready()
    config = dataclasses.replace(llamas.BIAS, prefix="safe", draws=1024, batch_size=256)

    def draw():
        of = (llamas.WORDS, llamas.TEMPLATE, config, model)
        return models.draws(jax.random.key(1), *of, stop_ids=(2,)).reshape(-1, llamas.SLOTS + 3)

    ids = draw()
    assert (ids[:, :2] == [1, 7]).all() and (ids[:, 6] == 9).all()
    answers = ids[:, llamas.SLOTS :]
    assert not (answers == 2).any()
    apply = jax.jit(lm.apply_fn(llamas.CONFIG))
    logits = apply(params, jnp.asarray(ids), jnp.ones(ids.shape, bool))[:, llamas.SLOTS - 1 : -1]
    logs = np.asarray(jax.nn.log_softmax(logits.at[..., 2].set(-100.0)))  # [K, L, V]
    law = np.exp(logs)
    seen = (answers[..., None] == np.arange(64)).sum(0)
    z = (seen - law.sum(0)) / np.sqrt(np.maximum((law * (1 - law)).sum(0), 1e-9))
    assert (np.delete(z, 2, axis=1) ** 2).mean() < 1.4  # mean 1, spread 0.1
    # The answers are as likely, on average, as this author's are: prompt by prompt.
    entropy = -(law * logs).sum(-1)
    spread = np.sqrt(((law * logs**2).sum(-1) - entropy**2).sum())

    def surprise(logs):
        return (-np.take_along_axis(logs, answers[..., None], -1)[..., 0] - entropy).sum() / spread

    assert abs(surprise(logs)) < 3.5 and surprise(np.roll(logs, 1, axis=0)) > 10
    assert (draw() == ids).all()


def test_answers_of_an_author_need_one():
    config = dataclasses.replace(llamas.BIAS, prefix="safe")
    with pytest.raises(UserError, match="prefix='safe' needs 'safe' answers"):
        llamas.ids(config)


def test_models_that_do_not_fit_are_refused():
    config = llamas.CONFIG
    models.check_alike(config, dataclasses.replace(config, dtype="bfloat16"))
    with pytest.raises(UserError, match="safe model has 64 tokens and the reference 31"):
        models.check_alike(config, dataclasses.replace(config, vocab_size=31))
    with pytest.raises(UserError, match="has num_layers=2 and the reference 3"):
        models.check_alike(config, dataclasses.replace(config, num_layers=3))


def test_a_table_of_another_vocabulary_or_an_alpha_of_other_prompts_is_refused():
    _, model = llamas.ready()
    short = tsdi.Table(jnp.zeros((2, 31)), jnp.zeros((2, 31)))
    with pytest.raises(UserError, match="the table has 31 tokens and the model 64"):
        models.generate(model, PROMPTS, Generation(), correction=tsdi.correction(short))
    at_work = tsdi.correction(table()).replace(alpha=jnp.ones(2))
    with pytest.raises(UserError, match=r"alpha has shape \(2,\): give one for each of the 3"):
        models.generate(model, PROMPTS, Generation(), correction=at_work)


@pytest.mark.parametrize("which", ["safe", "reference"])
def test_logits_that_are_not_finite_are_refused(which):
    world = llamas.drawn()
    broken = getattr(world.pair, which)["model"] | {"final_norm": jnp.full(16, jnp.nan)}
    pair = world.pair._replace(**{which: getattr(world.pair, which) | {"model": broken}})
    with pytest.raises(UserError, match=f"the {which} model's logits are not finite"):
        llamas.estimate(world._replace(pair=pair))


TEXTS = ["USER: list red gold ASSISTANT: red gold", "USER: list fire ASSISTANT: sorry"] * 4


def test_tokenizers_are_told_apart_and_templates_found():
    one, other = (tiny.train_tokenizer(TEXTS, size) for size in (300, 280))
    again = tiny.train_tokenizer(TEXTS, 300)
    fingerprint = models.fingerprint_tokenizer
    assert fingerprint(one) == fingerprint(again) != fingerprint(other)
    models.check_alike(llamas.CONFIG, llamas.CONFIG, (one, again))
    with pytest.raises(UserError, match="the tokenizers of the two models differ"):
        models.check_alike(llamas.CONFIG, llamas.CONFIG, (one, other))
    for template in ("USER: {input} ASSISTANT:", "chat"):
        around = models.template_of(one, template)
        ids = lm.tokenizer.encode_prompt(one, "list red", template)
        inner = ids[len(around.before) : len(ids) - len(around.after)]
        assert one.decode(inner).strip() == "list red"
        assert around.before[0] == tiny.BOS_ID and "ASSISTANT:" in one.decode(around.after).upper()
