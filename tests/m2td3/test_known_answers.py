# SPDX-License-Identifier: Apache-2.0
"""Learning reaches answers known in closed form (papers page, section 7A; anchors, section 5)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.m2td3 import Config, act, evaluate, losses, train
from tests.m2td3 import games

GAME = Config(
    total_steps=4000,
    num_envs=16,
    warmup_steps=20,
    hidden=(64, 64),
    replay_capacity=64_000,
    exploration_noise=0.4,
    uniform_omegas=0.25,
    average_weight=0.0,
    actor_lr=5e-4,
    omega_lr=5e-3,
    actor_mean_rate=1e-3,
)
MINIMAX, WORST = 23 / 32, -729 / 1024


def solve(method: str, num_seeds: int = 2):
    """Actions of the trained policies, and their learners, one per seed."""
    task, uncertainty = games.quadratic()
    config = dataclasses.replace(GAME, method=method)

    def whole(key):
        run = train.init(key, config, task, uncertainty)
        return train.chunk(run, jnp.int32(0), config.total_steps, config, task, uncertainty)[0]

    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    runs = jax.jit(jax.vmap(whole))(keys)
    actors, worlds = evaluate.policies(runs.learner, config)
    actions = jax.vmap(lambda a, w: act(a, jnp.zeros(1), config, w)[0])(actors, worlds)
    return np.asarray(actions), runs.learner


def test_the_closed_form_itself():
    grid = np.linspace(0, 1, 100_001)
    for a in (0.3, 0.5, 19 / 30, MINIMAX, 0.8):
        dense = -np.max((1 + 8 * grid) * (a - grid) ** 2)
        assert games.quadratic_worst(a) == pytest.approx(dense, abs=1e-6)
    assert games.quadratic_worst(MINIMAX) == pytest.approx(WORST)
    worst = [games.quadratic_worst(a) for a in grid[::10]]
    assert grid[::10][int(np.argmax(worst))] == pytest.approx(MINIMAX, abs=1e-4)


def test_m2td3_reaches_the_minimax_action_with_both_worst_cases_found():
    actions, learners = solve("m2td3")
    np.testing.assert_allclose(actions, MINIMAX, atol=0.03)
    for i in range(len(actions)):
        learner = jax.tree.map(lambda x, i=i: x[i], learners)
        omega = train.adversary.omegas(learner.candidates, learner.world)
        w = np.asarray(learner.world.physical(omega))[:, 0]
        # Both w = 1 and w = 5/32 are active: one candidate alone would jump between them.
        assert np.min(np.abs(w - 1.0)) < 0.1 and np.min(np.abs(w - 5 / 32)) < 0.1


@pytest.mark.slow
def test_domain_randomisation_and_td3_reach_their_own_optima():
    actions, _ = solve("dr_td3")
    np.testing.assert_allclose(actions, 19 / 30, atol=0.03)
    actions, _ = solve("td3")
    np.testing.assert_allclose(actions, 0.5, atol=0.03)


def test_time_limits_do_not_lower_the_value():
    """Reward 1 for ever, cut every 10 steps: V = 1 / (1 - gamma); masking by done gives less."""
    task, uncertainty = games.endless(10)
    values = {}
    for bootstrap in (True, False):
        config = dataclasses.replace(
            GAME,
            method="td3",
            gamma=0.9,
            total_steps=1500,
            tau=0.05,
            bootstrap_truncation=bootstrap,
            critic_lr=3e-3,
        )

        def whole(key, config=config):
            run = train.init(key, config, task, uncertainty)
            return train.chunk(run, jnp.int32(0), config.total_steps, config, task, uncertainty)[0]

        run = jax.jit(whole)(jax.random.key(0))
        zero = jnp.zeros((1, 1))
        learner = run.learner
        values[bootstrap] = float(
            losses.policy_value(
                learner.critic["q1"],
                zero,
                act(learner.actor, zero, config, learner.world),
                jnp.zeros(1),
                config,
                learner.world,
            )
        )
    assert values[True] == pytest.approx(10.0, rel=0.02)
    # The observation hides the clock, so each step looks terminal with chance 1 / 10.
    assert values[False] == pytest.approx(1 / (1 - 0.9 + 0.9 / 10), rel=0.05)
