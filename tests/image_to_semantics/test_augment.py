# SPDX-License-Identifier: Apache-2.0
"""Pair augmentation: a linear world in closed form, ends that hold, and a horizon that is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.envs import reacher
from jaxsafe.image_to_semantics import augment

A = np.array([[0.9, 0.2], [-0.1, 0.8]])
B = np.array([[0.5], [1.0]])


def linear(a=A, b=B):
    return augment.Simulator(
        place=lambda s: s,
        transition=lambda state, action: jnp.asarray(a) @ state + jnp.asarray(b) @ action,
        read=lambda state: state,
    )


def actions(episodes=3, steps=6, seed=0):
    return np.random.default_rng(seed).normal(size=(episodes, steps, 1)).astype(np.float32)


def closed_form(start, acts, t):
    """A^t s0 + sum over j < t of A^(t-1-j) B a_j (known answer 6)."""
    power = np.linalg.matrix_power
    return power(A, t) @ start + sum(power(A, t - 1 - j) @ B @ acts[j] for j in range(t))


def test_labels_are_the_linear_systems_and_errors_go_through_it():
    starts = np.array([[1.0, -1], [0.0, 2], [3, 0]], np.float32)
    acts, lengths = actions(), jnp.array([6, 4, 1])
    made = augment.roll_out(linear(), jnp.asarray(starts), jnp.asarray(acts), lengths, 99)
    for e in range(3):
        for t in range(int(lengths[e])):
            expected = closed_form(starts[e], acts[e], t)
            np.testing.assert_allclose(made.semantics[e, t], expected, atol=1e-5)
    error = np.array([0.1, 0.2], np.float32)
    wrong = augment.roll_out(linear(), jnp.asarray(starts + error), jnp.asarray(acts), lengths, 99)
    for t in range(6):
        expected = np.linalg.matrix_power(A, t) @ error
        np.testing.assert_allclose((wrong.semantics - made.semantics)[0, t], expected, atol=1e-5)


@pytest.mark.parametrize(("horizon", "labels"), [(0, 5), (2, 13), (4, 18), (99, 19)])
def test_pair_counts(horizon, labels):
    """Sum over episodes of min(L, K + 1) (known answer 5)."""
    lengths = jnp.array([6, 5, 1, 3, 4])
    mask = augment.horizon_mask(lengths, 6, horizon)
    assert int(mask.sum()) == labels == sum(min(n, horizon + 1) for n in (6, 5, 1, 3, 4))


def test_paper_pair_counts():
    for episodes, length, expected in ((10, 50, 500), (50, 50, 2500), (10, 40, 400)):
        mask = augment.horizon_mask(jnp.full(episodes, length), length, length)
        assert int(mask.sum()) == expected


def test_nothing_crosses_an_end():
    """What lies past an end, even NaN, does not reach a label; an episode may have one image."""
    starts, acts = jnp.ones((2, 2)), actions(2)
    acts[0, 0:], acts[1, 2:] = np.nan, np.nan
    made = augment.roll_out(linear(), starts, jnp.asarray(acts), jnp.array([1, 3]), 99)
    np.testing.assert_array_equal(made.mask.sum(1), [1, 3])
    assert np.isfinite(np.asarray(made.semantics)[np.asarray(made.mask)]).all()


def test_zero_gap_labels_are_the_true_semantics():
    """MJX replays its own episodes, and a simulator that is called differs when it is changed."""
    task = reacher.make()

    def simulator(model):
        def place(s):
            qpos, qvel = reacher.place(jnp, s)
            state = task.reset(model, jax.random.key(0))
            return state.replace(qpos=qpos, qvel=qvel)

        return augment.Simulator(
            place=place,
            transition=lambda state, action: task.step(model, state, action)[0],
            read=lambda state: task.observe(model, state),
        )

    keys = jax.random.split(jax.random.key(1), 2)
    starts = jax.vmap(lambda k: task.observe(task.model, task.reset(task.model, k)))(keys)
    acts = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 12, 2)), jnp.float32)

    @jax.jit
    def truth(start, acts):
        world = simulator(task.model)
        step = lambda s, a: (world.transition(s, a), world.read(s))  # noqa: E731
        return jax.lax.scan(step, world.place(start), acts)[1]

    roll = jax.jit(
        lambda model: augment.roll_out(simulator(model), starts, acts, jnp.array([12, 12]), 99)
    )
    found = roll(task.model).semantics
    for e in range(2):
        np.testing.assert_allclose(found[e], truth(starts[e], acts[e]), atol=2e-5)
    heavy = roll(task.model.replace(body_mass=2.0 * task.model.body_mass)).semantics
    assert np.abs(heavy - found)[:, 5:].max() > 0.05
    np.testing.assert_array_equal(heavy[:, 0], found[:, 0])


def test_an_anchor_removes_the_drift_of_a_wrong_simulator():
    starts, acts, lengths = jnp.ones((1, 2)), jnp.asarray(actions(1)), jnp.array([6])
    truth = augment.roll_out(linear(), starts, acts, lengths, 99).semantics
    biased = linear(a=A + 0.1)
    jump = jnp.zeros((1, 6), bool).at[0, 3].set(True)
    drifted = augment.roll_out(biased, starts, acts, lengths, 99).semantics
    held = augment.roll_out(biased, starts, acts, lengths, 99, truth, jump).semantics
    np.testing.assert_array_equal(held[0, :3], drifted[0, :3])
    np.testing.assert_allclose(held[0, 3], truth[0, 3], atol=1e-6)
    # One step after the anchor the error is the one of one step.
    expected = (A + 0.1) @ np.asarray(truth[0, 3]) + B @ np.asarray(acts[0, 3])
    np.testing.assert_allclose(held[0, 4], expected, atol=1e-5)


def test_the_horizon_is_where_rollout_and_predictor_part():
    """A predictor with noise 0.04, and a rollout that jumps by 1 at steps 20, 30 and never."""
    rng = np.random.default_rng(0)
    gap = 0.04 * rng.chisquare(4, (3, 50)) / 4
    gap[0, 20:] += 1.0
    gap[1, 30:] += 1.0
    lengths = jnp.array([50, 50, 40])
    found = augment.auto_horizon(jnp.asarray(gap), lengths, trusted=8, tolerance=0.2)
    assert 17 <= int(found[0]) <= 20 and 27 <= int(found[1]) <= 30 and int(found[2]) == 39
    # A predictor that knows nothing leaves everything to the simulator.
    blind = jnp.full((3, 50), 2.0)
    np.testing.assert_array_equal(augment.auto_horizon(blind, lengths, 8, 0.2), lengths - 1)
    # Episodes no longer than what is trusted in any case.
    short = augment.auto_horizon(jnp.asarray(gap), jnp.array([5, 1, 9]), 8, 0.2)
    np.testing.assert_array_equal(short, [4, 0, 8])


def test_the_papers_error_emulation():
    """Annotation errors stay at alpha; transition errors' squares average alpha^2 (T - 1) / 2."""
    key, std = jax.random.key(0), jnp.array([1.0, 5.0])
    clean = jnp.zeros((4000, 50, 2))
    level = augment.noisy(key, clean, std, 0.15, 0.0) / std
    np.testing.assert_allclose(jnp.sqrt((level**2).mean((0, 2))), 0.15, rtol=0.05)
    np.testing.assert_array_equal(level[:, 0], level[:, 49])
    walk = augment.noisy(jax.random.key(1), clean, std, 0.0, 0.1) / std
    rms = jnp.sqrt((walk**2).mean((0, 2)))
    np.testing.assert_allclose(rms, 0.1 * np.sqrt(np.arange(50)), rtol=0.05)
    assert float((walk**2).mean()) == pytest.approx(0.245, rel=0.05)
