# SPDX-License-Identifier: Apache-2.0
"""One run over its phases, in a linear world whose replay is exact: labels, masks, resumption."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import image_to_semantics as i2s
from jaxsafe.core.checks import UserError
from jaxsafe.data import image_episodes
from jaxsafe.image_to_semantics import plans, study, unpaired
from tests.core.test_checkpoint import assert_same
from tests.image_to_semantics.test_augment import linear

LENGTHS = np.array([6, 4, 1, 5, 6, 3])
CONFIG = i2s.Config(
    widths=(4,) * 6,
    decoder_widths=(4,) * 4,
    latent=3,
    head_width=5,
    vae_batch=4,
    head_batch=8,
    vae_steps=3,
    head_steps=6,
)
HOW = unpaired.Unpaired(discriminator=(4,), dynamics=(4,), dynamics_epochs=1)
METHODS = ("paired", "paired_starts", "augmented", "active", "k_center", "uncertain", "short")
STUDY = plans.Study(
    methods=(*METHODS, "auto", "copied", "ceiling", "unpaired"), budgets=(2, 4), horizon=2
)


@functools.cache
def world():
    """Ragged episodes of random pictures; their truth is off from the replay by a known bit."""
    rng, number = np.random.default_rng(0), LENGTHS.sum()
    data = image_episodes.build(
        {
            "images": rng.integers(0, 256, (number, 64, 64, 3), dtype=np.uint8),
            "actions": rng.normal(size=(number, 1)),
            "ends": np.isin(np.arange(number), np.cumsum(LENGTHS) - 1),
            "truth": rng.normal(size=(number, 2)),
        }
    )
    laid = study.table(data, CONFIG.frames, np.ones(2))
    range_ = i2s.Range(-jnp.ones(2), 2 * jnp.ones(2))
    episodes = (rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 4, 1)), np.ones((3, 4), bool))
    source = unpaired.make_source(jax.random.key(9), *map(jnp.asarray, episodes), range_, HOW)
    return study.Setup(CONFIG, STUDY, linear(), range_, HOW, source), laid


@functools.cache
def prepared():
    setup, laid = world()
    run = study.init(jax.random.key(0), setup, laid)
    return jax.jit(lambda r: study.prepare(r, setup, laid))(run)


def test_plans_are_methods_by_budgets_and_one_ceiling():
    made = plans.plans(STUDY)
    assert len(made) == 9 * 2 + 2 == len(set(made))
    assert made[-2:] == [("ceiling", 0), ("unpaired", 0)] and plans.taught(STUDY) == made[:-1]


def test_each_method_labels_what_it_says():
    run = prepared()
    masks, horizon = np.asarray(run.mask), np.asarray(run.horizon)
    inside = np.arange(6) < LENGTHS[:, None]
    assert len(masks) == len(plans.taught(STUDY))
    for v, (method, budget) in enumerate(plans.taught(STUDY)):
        mask = masks[v]
        assert not (mask & ~inside).any(), method
        if method == "ceiling":
            np.testing.assert_array_equal(mask, inside)
        elif method == "paired":
            assert mask.sum() == budget
        else:
            chosen = mask.any(1)
            assert chosen.sum() == budget and mask[chosen, 0].all()
            last = {"paired_starts": 0, "short": 2, "auto": 2}.get(method, 5)
            np.testing.assert_array_equal(mask.sum(1), chosen * np.minimum(LENGTHS, last + 1))
            expected = np.where(chosen, np.minimum(LENGTHS, last + 1) - 1, -1)
            np.testing.assert_array_equal(horizon[v], expected)


def test_copied_labels_are_the_truth_and_replayed_ones_are_not():
    run, (_, laid) = prepared(), world()
    made = plans.taught(STUDY)
    truth, inside = np.asarray(laid.truth), np.arange(6) < LENGTHS[:, None]
    copied = np.asarray(run.labels[made.index(("copied", 4))])
    replayed = np.asarray(run.labels[made.index(("augmented", 4))])
    np.testing.assert_array_equal(copied, truth)
    np.testing.assert_array_equal(replayed[:, 0], truth[:, 0])
    assert (np.abs(replayed - truth).max(-1) > 0.05)[inside][1:].mean() > 0.5


def test_budgets_are_nested_and_methods_share_episodes():
    """What more annotations buy is not mixed up with which episodes they are."""
    run, made = prepared(), plans.taught(STUDY)
    chosen = {plan: np.asarray(run.mask[v]).any(1) for v, plan in enumerate(made)}
    for method in METHODS[1:]:
        assert (chosen[method, 4] | ~chosen[method, 2]).all(), method
    np.testing.assert_array_equal(chosen["augmented", 4], chosen["paired_starts", 4])


def test_batches_hold_used_pairs_only():
    setup, laid = world()
    run = prepared()
    order, count = study._pools(run)
    np.testing.assert_array_equal(count, run.mask.sum((1, 2)))
    pairs = study._pairs(run, setup, laid, (order, count))
    for v in range(len(count)):
        allowed = np.asarray(run.labels[v])[np.asarray(run.mask[v])]
        for row in np.asarray(pairs.semantics[v]):
            assert (row == allowed).all(1).any()


def test_transitions_stay_in_their_episode_and_move():
    """The released code's baseline saw blank next images (page, trap 2)."""
    setup, laid = world()
    number = len(laid.images)
    numbered = i2s.Latents(jnp.arange(number)[:, None] * jnp.ones((1, 6)), jnp.zeros((number, 6)))
    order, count = study._moves(laid)
    assert count == (LENGTHS - 1).sum()
    seen = study._seen(prepared().replace(latents=numbered), setup, laid, (order, count))
    rows, ends = np.asarray(seen.latents[:, 0], int), np.cumsum(LENGTHS) - 1
    np.testing.assert_array_equal(seen.next_latents[:, 0], rows + 1)
    assert not np.isin(rows, ends).any() and len(set(rows)) > 3
    flat = np.asarray(laid.actions)[np.arange(6) < LENGTHS[:, None]]
    np.testing.assert_array_equal(seen.action, flat[rows])
    allowed = np.asarray(laid.rows).reshape(-1)[np.asarray(order[: int(count)])]
    assert set(allowed) == set(range(number)) - set(ends)


def test_pieces_of_a_run_are_the_run():
    """All phases in one chunk, or in three with the borders elsewhere: the same bits."""
    setup, laid = world()
    chunk = jax.jit(lambda r, first, n: study.chunk(r, first, n, setup, laid), static_argnums=2)
    start = lambda: study.init(jax.random.key(1), setup, laid)  # noqa: E731
    whole, metrics = chunk(start(), jnp.int32(0), 9)
    run, traced = start(), []
    for first in (0, 3, 6):
        run, m = chunk(run, jnp.int32(first), 3)
        traced.append(m)
    assert_same(run.replace(last=whole.last), whole)
    assert traced[0]["unpaired/cycle"] == 0 < metrics["unpaired/cycle"]
    scored = study.result(whole)
    assert jax.tree.leaves(scored["heads"])[0].shape[0] == len(plans.plans(STUDY))
    assert scored["labelled"][-1] == 0 < scored["labelled"][-2] and scored["horizon"].max(1)[-1] < 0
    # Before the predictors begin their losses are 0; afterwards the autoencoder's stay.
    assert traced[0]["heads/loss"] == 0 and traced[1]["heads/loss"] > 0
    assert traced[2]["vae/loss"] == traced[0]["vae/loss"] == metrics["vae/loss"] > 0
    np.testing.assert_allclose(
        metrics["heads/loss"], (traced[1]["heads/loss"] + traced[2]["heads/loss"]) / 2, rtol=1e-5
    )


def test_bad_studies():
    plans.validate(STUDY, 6)
    with pytest.raises(UserError, match=r"study.budgets=4 annotates more episodes than the 3"):
        plans.validate(STUDY, 3)
    with pytest.raises(UserError, match=r"study.methods='' is empty"):
        plans.validate(plans.Study(methods=()), 9)
    with pytest.raises(UserError, match="no method with few annotations"):
        plans.validate(plans.Study(methods=("ceiling",)), 9)
