# SPDX-License-Identifier: Apache-2.0
"""The update: baselines, reductions between methods, what moves and what does not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.m2td3 import algorithm, init, losses, make_world, networks, update
from tests.m2td3.conftest import trees_equal


def with_method(config, method, **changes):
    return dataclasses.replace(config, method=method, **changes)


@pytest.mark.parametrize("method", ["td3", "dr_td3"])
def test_baselines_show_the_critic_one_constant_omega(
    method, config, world, make_batch, monkeypatch
):
    """Replay, target and actor loss: every omega that reaches Q is 0 (papers page, section 6)."""
    seen = []
    q_value = networks.q_value

    def spy(params, config, world, obs, action, omega):
        jax.debug.callback(lambda x: seen.append(float(x)), jnp.abs(omega).max())
        return q_value(params, config, world, obs, action, omega)

    monkeypatch.setattr(networks, "q_value", spy)
    config = with_method(config, method)
    state = init(jax.random.key(0), config, world)
    jax.block_until_ready(update(state, make_batch(0, (config.policy_delay, 8)), config))
    jax.effects_barrier()
    assert len(seen) >= 5 and max(seen) == 0.0


def test_baselines_do_not_depend_on_the_stored_omega(config, world, make_batch):
    config = with_method(config, "dr_td3")
    state = init(jax.random.key(0), config, world)
    batch = make_batch(0, (config.policy_delay, 8))
    one, _ = update(state, batch, config)
    other, _ = update(state, batch._replace(omega=-batch.omega), config)
    assert trees_equal(one, other)


def test_m2td3_does_depend_on_the_stored_omega(config, world, make_batch):
    state = init(jax.random.key(0), config, world)
    batch = make_batch(0, (config.policy_delay, 8))
    one, _ = update(state, batch, config)
    other, _ = update(state, batch._replace(omega=-batch.omega), config)
    assert not trees_equal(one.critic, other.critic)


def test_one_candidate_on_a_point_set_is_td3_bit_for_bit(config, make_batch):
    point = make_world([1.0, 2.0, 0.5], [-1.0, -2.0], [1.0, 4.0], [2.0, 20.0], [2.0, 20.0])
    m2td3 = with_method(config, "m2td3", num_candidates=1)
    td3 = with_method(config, "td3", num_candidates=1)
    a, b = (init(jax.random.key(0), c, point) for c in (m2td3, td3))
    for i in range(5):
        batch = make_batch(i, (config.policy_delay, 8))._replace(
            omega=jnp.zeros((config.policy_delay, 8, 2))
        )
        a, metrics_a = jax.jit(update, static_argnums=2)(a, batch, m2td3)
        b, metrics_b = jax.jit(update, static_argnums=2)(b, batch, td3)
        assert trees_equal(metrics_a, metrics_b)
    for name in ("actor", "critic", "target_actor", "target_critic", "actor_opt", "critic_opt"):
        assert trees_equal(getattr(a, name), getattr(b, name)), name


def test_actor_climbs_the_worst_candidate_and_that_candidate_descends(config, world, make_batch):
    config = with_method(config, "m2td3", actor_lr=1e-4, omega_lr=1e-2)
    state = init(jax.random.key(1), config, world)
    batch = make_batch(3, (64,))
    obs = batch.obs
    q1 = state.critic["q1"]

    def values(actor, candidates):
        omegas = algorithm.adversary.omegas(candidates, world)
        action = networks.policy(actor, config, world, obs)
        value = lambda omega: losses.policy_value(q1, obs, action, omega, config, world)  # noqa: E731
        return np.asarray([value(omega) for omega in omegas])

    before = values(state.actor, state.candidates)
    worst = before.argmin()
    after, metrics = algorithm.actor_step(state, batch, config)
    assert metrics["actor/value"] == pytest.approx(before[worst], abs=1e-5)
    assert values(after.actor, state.candidates)[worst] > before[worst]
    moved = values(state.actor, after.candidates)
    assert moved[worst] < before[worst]
    np.testing.assert_array_equal(np.delete(moved, worst), np.delete(before, worst))
    assert after.candidates.probs[worst] > state.candidates.probs[worst]


def test_a_weight_on_the_average_moves_the_actor_from_the_worst_towards_it(
    config, world, make_batch
):
    """At weight 1 the actor climbs Q at the replay's omegas, at 0 at k*; k* descends alike."""
    base = with_method(config, "m2td3_plus", actor_lr=1e-4)
    state, batch = init(jax.random.key(1), config, world), make_batch(3, (64,))

    def gain(state_after):
        q1, obs = state.critic["q1"], batch.obs
        value = lambda actor: losses.policy_value(  # noqa: E731
            q1, obs, networks.policy(actor, config, world, obs), batch.omega, config, world
        )
        return float(value(state_after.actor) - value(state.actor))

    after = [
        algorithm.actor_step(state, batch, dataclasses.replace(base, average_weight=weight))[0]
        for weight in (0.0, 1.0)
    ]
    assert gain(after[1]) > max(gain(after[0]), 0.0)
    assert trees_equal(after[0].candidates, after[1].candidates)
    td3 = [
        algorithm.actor_step(state, batch, with_method(config, "dr_td3", average_weight=weight))[0]
        for weight in (0.0, 1.0)
    ]
    assert trees_equal(*td3)


def test_targets_move_by_tau_once_an_update(config, world, make_batch):
    state = init(jax.random.key(2), config, world)
    after, _ = update(state, make_batch(0, (config.policy_delay, 8)), config)
    for online, old, new in (
        (after.actor, state.target_actor, after.target_actor),
        (after.critic, state.target_critic, after.target_critic),
    ):
        want = jax.tree.map(lambda a, b: config.tau * a + (1 - config.tau) * b, online, old)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), new, want)


def test_cosine_ends_at_zero_rate_when_the_run_ends(config, world, make_batch):
    config = with_method(config, "td3", total_steps=21, warmup_steps=1, updates_per_step=2)
    state = init(jax.random.key(3), config, world)
    step = jax.jit(update, static_argnums=2)
    for i in range(20):
        last = state
        state, _ = step(state, make_batch(i, (config.policy_delay, 8)), config)
    assert state.step == 40
    after, _ = step(state, make_batch(99, (config.policy_delay, 8)), config)
    assert not trees_equal(last.actor, state.actor)
    assert trees_equal(state.actor, after.actor) and trees_equal(state.critic, after.critic)


def test_a_level_rate_of_the_critics_outlives_the_actors_cosine(config, world, make_batch):
    short = {"total_steps": 3, "warmup_steps": 1, "updates_per_step": 2}
    config = with_method(config, "td3", critic_schedule="constant", **short)
    state = init(jax.random.key(3), config, world)
    for i in range(2):
        state, _ = update(state, make_batch(i, (config.policy_delay, 8)), config)
    after, _ = update(state, make_batch(9, (config.policy_delay, 8)), config)
    assert trees_equal(state.actor, after.actor) and not trees_equal(state.critic, after.critic)


def test_nominal_omega_is_normalised_and_may_lie_outside(world):
    np.testing.assert_allclose(world.omega_nominal, [-0.5, 0.5])
    np.testing.assert_allclose(world.physical(world.omega_nominal), [1.5, 25.0])
    outside = make_world([1.0], [-1.0], [1.0], [0.1], [3.0], [3.53])
    assert outside.omega_nominal[0] > 1.0
