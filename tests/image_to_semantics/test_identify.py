# SPDX-License-Identifier: Apache-2.0
"""System identification: factors of a linear world in closed form, and of the arm's physics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import image_to_semantics as i2s
from jaxsafe.data import image_episodes
from jaxsafe.image_to_semantics import augment, collect, identify, plans, runs, study, worlds
from jaxsafe.image_to_semantics.collect import Recipe
from tests.image_to_semantics.test_augment import A, B, actions, linear

TRUE = np.array([1.3, 0.7])


def scaled(factors):
    """The linear world with its dynamics and its input scaled."""
    a, b = factors
    return augment.Simulator(
        place=lambda s: s,
        transition=lambda state, action: a * A @ state + b * B @ action,
        read=lambda state: state,
    )


@pytest.fixture(scope="module")
def seen():
    acts, lengths = jnp.asarray(actions(3)), jnp.full(3, 6)
    starts = jnp.array([[1.0, -1], [0.5, 2], [3, 0]])
    truth = augment.roll_out(scaled(TRUE), starts, acts, lengths, 6).semantics
    step = jnp.array([5, 3, 4])
    return identify.Annotated(starts, truth[jnp.arange(3), step], step, acts)


def test_exact_annotations_give_the_factors_back(seen):
    found = jax.jit(lambda s: identify.fit(scaled, s, jnp.ones(2), 2, prior=0.0))(seen)
    np.testing.assert_allclose(found.factors, TRUE, rtol=1e-3)
    assert found.error < 1e-8 < 1e-2 < found.before


def test_what_annotations_do_not_show_stays_nominal(seen):
    """The second factor acts on nothing here, so the prior alone has a say."""
    still = seen._replace(actions=jnp.zeros_like(seen.actions))
    found = identify.fit(lambda f: scaled((f[0], f[1])), still, jnp.ones(2), 2)
    assert found.factors[1] == pytest.approx(1.0, abs=1e-6)


def test_episodes_that_do_not_count_change_nothing(seen):
    """What is not compared, by episode or by dimension, may hold anything."""
    off = seen._replace(later=seen.later.at[2].add(5.0).at[:, 1].add(jnp.array([0, 7.0, 0])))
    used, std = jnp.array([True, False, False]), jnp.ones(2)
    found = identify.fit(scaled, off, std, 2, prior=0.0, used=used)
    assert found.error < 1e-8
    first = jax.tree.map(lambda x: x[:1], seen)
    alone = identify.fit(scaled, first, std, 2, prior=0.0)
    np.testing.assert_allclose(found.factors, alone.factors, rtol=1e-3)
    # The second dimension compared with nothing: the first alone still fits.
    off = seen._replace(later=seen.later.at[:, 1].add(5.0))
    found = identify.fit(scaled, off, jnp.array([1.0, jnp.inf]), 2, prior=0.0)
    np.testing.assert_allclose(found.factors, TRUE, rtol=1e-2)


def test_the_study_pays_for_second_annotations_and_replays_by_what_it_found():
    """A target whose dynamics are scaled: identified labels are its truth, augmented ones not."""
    lengths, rng = np.array([6, 4, 5, 6, 6, 3]), np.random.default_rng(0)
    acts = jnp.asarray(actions(6))
    starts = jnp.asarray(rng.normal(size=(6, 2)), jnp.float32)
    truth = augment.roll_out(scaled(TRUE), starts, acts, jnp.asarray(lengths), 6).semantics
    inside = np.arange(6) < lengths[:, None]
    columns = {
        "images": rng.integers(0, 256, (inside.sum(), 64, 64, 3), dtype=np.uint8),
        "actions": np.asarray(acts)[inside],
        "ends": np.nonzero(inside)[1] == np.repeat(lengths - 1, lengths),
        "truth": np.asarray(truth)[inside],
    }
    laid = study.table(image_episodes.build(columns), 1, np.ones(2))
    config = i2s.Config(widths=(4,) * 6, decoder_widths=(4,) * 4, latent=2, head_width=4, frames=1)
    what = plans.Study(methods=("augmented", "identified"), budgets=(2, 5), later_share=0.4)
    setup = runs.Setup(
        *(config, what, linear(), i2s.Range(-jnp.ones(2), jnp.ones(2))),
        family=runs.Family(scaled, 2, (True, True)),
    )
    start = study.init(jax.random.key(0), setup, laid)
    run = jax.jit(lambda r: study.prepare(r, setup, laid))(start)
    few, fitted, all_, better = (np.asarray(m).any(1).sum() for m in run.mask)
    assert (few, fitted, all_, better) == (2, 1, 5, 3)
    # Five annotations: two of them second ones. The prior keeps a little of the nominal.
    np.testing.assert_allclose(run.factors[1], TRUE, rtol=0.05)
    assert run.label_error[3] < 0.1 * run.label_error[2]
    scored = study.result(jax.tree.map(lambda x: x[None], run))
    np.testing.assert_array_equal(scored["factors"][0], run.factors)


def test_no_step_makes_it_worse(seen):
    """A simulator that is right already, with annotations that are all noise."""
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    found = identify.fit(lambda f: linear(), seen._replace(later=noise), jnp.ones(2), 1)
    assert found.error == found.before and found.factors[0] == 1


@pytest.mark.slow
def test_the_arms_damping_and_mass_are_found_and_labels_drift_less():
    """Level 2 has damping 1.2, mass 1.1 and the same gear; four episodes' ends are annotated."""
    arm, data = worlds.make("reacher"), collect.collect(Recipe("reacher", 2, 0), 8)
    std = data.truth.std(0)
    laid = study.table(data, 1, std)
    seen = identify.Annotated(
        laid.truth[:4, 0], laid.truth[:4, 49], jnp.full(4, 49), laid.actions[:4]
    )

    def simulator(factors):
        return worlds.simulator(arm, jnp.append(factors, 1.0))

    found = jax.jit(lambda s: identify.fit(simulator, s, laid.std, 2, prior=1e-5))(seen)
    np.testing.assert_allclose(found.factors, [1.2, 1.1], rtol=0.01)

    @jax.jit
    def drift(factors):
        rolled = augment.roll_out(
            simulator(factors), laid.truth[4:, 0], laid.actions[4:], laid.lengths[4:], 50
        )
        return augment.disagreement(rolled.semantics, laid.truth[4:], laid.std).mean()

    assert drift(found.factors) < 0.01 * drift(jnp.ones(2))
