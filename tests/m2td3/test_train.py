# SPDX-License-Identifier: Apache-2.0
"""One iteration: what is stored, what bootstraps, when episodes, restarts and noise change."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.m2td3 import Config, omegas, paper_compat, train
from jaxsafe.m2td3.draws import draw
from tests.m2td3 import games
from tests.m2td3.conftest import trees_equal

BASE = Config(
    hidden=(16,),
    num_envs=4,
    total_steps=200,
    warmup_steps=5,
    replay_capacity=80,
    batch_size=8,
    restart_interval=10,
    gamma=0.9,
)


def run_steps(config, game, steps, seed=0):
    """The state after so many iterations, and the metrics of all of them; one program."""

    def whole(key):
        run = train.init(key, config, *game)
        return train.chunk(run, jnp.int32(0), steps, config, *game)

    return jax.jit(whole)(jax.random.key(seed))


def test_replay_holds_what_happened():
    game = games.quadratic()
    run, _ = run_steps(BASE, game, 10)
    stored = jax.tree.map(lambda x: x[: 10 * BASE.num_envs], run.buffer)
    w = (np.asarray(stored.omega[:, 0]) + 1) / 2
    a = np.asarray(stored.action[:, 0])
    np.testing.assert_allclose(stored.reward, -(1 + 8 * w) * (a - w) ** 2, atol=1e-5)
    np.testing.assert_array_equal(stored.discount, 0.0)  # the game terminates
    assert np.all((a >= 0) & (a <= 1)) and a.std() > 0.1
    assert np.all(jax.tree.leaves(run.buffer)[0][40:] == 0)
    assert run.episodes == 40


@pytest.mark.parametrize("bootstrap, discount", [(True, 0.9), (False, 0.0)])
def test_time_limits_bootstrap_unless_the_authors_way_is_asked_for(bootstrap, discount):
    config = dataclasses.replace(BASE, bootstrap_truncation=bootstrap)
    run, _ = run_steps(config, games.endless(5), 10)
    last = np.asarray(run.buffer.discount[4 * BASE.num_envs : 5 * BASE.num_envs])
    np.testing.assert_allclose(last, discount)
    np.testing.assert_allclose(run.buffer.discount[: 4 * BASE.num_envs], 0.9)
    assert run.last_return == 5.0


def test_training_episodes_may_be_cut_short_and_then_bootstrap():
    """The authors' way, time limits as terminals, holds for the shorter limit too."""
    for bootstrap, discount in ((True, 0.9), (False, 0.0)):
        config = dataclasses.replace(BASE, episode_steps=3, bootstrap_truncation=bootstrap)
        run, _ = run_steps(config, games.endless(100), 7)
        stored = np.asarray(run.buffer.discount).reshape(-1, BASE.num_envs)[:7]
        np.testing.assert_allclose(stored[[2, 5]], discount)
        np.testing.assert_allclose(stored[[0, 1, 3, 4, 6]], 0.9)
        assert run.episodes == 2 * BASE.num_envs and run.last_return == 3.0


def test_baselines_store_one_constant_omega():
    for method in ("td3", "dr_td3"):
        run, _ = run_steps(dataclasses.replace(BASE, method=method), games.quadratic(), 10)
        np.testing.assert_array_equal(run.buffer.omega, 0.0)


def test_td3_trains_at_the_nominal_omega_and_dr_everywhere():
    td3, _ = run_steps(dataclasses.replace(BASE, method="td3"), games.quadratic(), 10)
    np.testing.assert_allclose(td3.omega, 0.0, atol=1e-6)  # the model's 0.5, normalised
    dr, _ = run_steps(dataclasses.replace(BASE, method="dr_td3"), games.quadratic(), 10)
    assert np.unique(dr.omega).size == BASE.num_envs


def test_learning_starts_after_the_warm_up():
    before, metrics = run_steps(BASE, games.quadratic(), BASE.warmup_steps)
    start = train.init(jax.random.key(0), BASE, *games.quadratic())
    assert trees_equal(before.learner.actor, start.learner.actor)
    assert before.learner.step == 0 and metrics["critic/loss"] == 0
    after, metrics = run_steps(BASE, games.quadratic(), BASE.warmup_steps + 3)
    assert after.learner.step == 3 * BASE.updates_per_step
    assert metrics["critic/loss"] > 0 and not trees_equal(after.learner.actor, start.learner.actor)


def test_one_update_a_step_moves_the_actor_every_policy_delay():
    config = dataclasses.replace(BASE, updates_per_step=1, policy_delay=2)
    game = games.quadratic()
    states = [run_steps(config, game, BASE.warmup_steps + n)[0] for n in range(1, 5)]
    actors = [run.learner.actor for run in states]
    changed = [not trees_equal(a, b) for a, b in itertools.pairwise(actors)]
    assert sum(changed) in (1, 2) and changed[0] != changed[1]
    assert [int(run.learner.step) for run in states] == [1, 2, 3, 4]


def test_chunks_join_without_a_seam():
    task, uncertainty = games.quadratic()
    config = dataclasses.replace(BASE, num_candidates=2)
    one = jax.jit(lambda r, s, n: train.chunk(r, s, n, config, task, uncertainty), static_argnums=2)
    whole, _ = one(train.init(jax.random.key(3), config, task, uncertainty), jnp.int32(0), 12)
    parts = train.init(jax.random.key(3), config, task, uncertainty)
    for first in (0, 4, 8):
        parts, _ = one(parts, jnp.int32(first), 4)
    assert trees_equal(whole, parts)


def test_numbers_drawn_ahead_are_those_drawn_one_by_one(world):
    one = lambda step: draw(jax.random.key(3), step, BASE, world)  # noqa: E731
    ahead = jax.vmap(one)(jnp.arange(4))
    for step in range(4):
        assert trees_equal(jax.tree.map(lambda x, i=step: x[i], ahead), one(jnp.int32(step)))
    assert not np.array_equal(ahead.places[2], ahead.places[3])


@pytest.mark.parametrize(
    "method, chance, changes",
    [
        ("m2td3_plus", 0.0, False),
        ("m2td3_plus", 1.0, True),
        ("dr_td3", 1.0, True),
        ("m2td3", 1.0, False),
    ],
)
def test_omega_changes_within_an_episode_only_where_it_is_asked_to(method, chance, changes):
    config = dataclasses.replace(BASE, method=method, omega_redraw=chance, warmup_steps=20)
    game = games.endless(50)
    start = train.init(jax.random.key(0), config, *game).omega
    run, _ = run_steps(config, game, 10)
    assert (run.omega != start).all() == (run.omega != start).any() == changes
    if config.sees_omega:
        seen = np.asarray(run.buffer.omega[: 10 * BASE.num_envs, 0]).reshape(10, -1)
        assert ((seen[1:] != seen[:-1]).all(1)).sum() == 9 * changes


def test_restarts_follow_the_interval():
    far = dataclasses.replace(BASE, restart_distance=100.0, num_candidates=3)
    run, _ = run_steps(far, games.quadratic(), 9)
    assert run.restarts == 0
    run, _ = run_steps(far, games.quadratic(), 11)
    assert run.restarts == 2  # at step 10, all but the last of three
    compat = paper_compat(far)
    run, _ = run_steps(compat, games.quadratic(), 11)
    assert run.restarts >= 2 * 6  # an episode ends at every step after the warm-up


def test_omega_noise_falls_only_where_it_is_annealed():
    """Late in the run, with all weight on one candidate, draws crowd around it or fill the set."""
    spread = {}
    for anneal in (True, False):
        config = dataclasses.replace(
            BASE, anneal_omega_noise=anneal, num_envs=64, replay_capacity=6400, omega_noise_end=0.01
        )
        task, uncertainty = games.quadratic()
        run = train.init(jax.random.key(0), config, task, uncertainty)
        probs = jnp.zeros(5).at[0].set(1.0)
        z = run.learner.candidates.z.at[0].set(0.0)
        candidates = run.learner.candidates.replace(z=z, probs=probs)
        learner = run.learner.replace(candidates=candidates)
        step = jnp.int32(190)
        draws = draw(jax.random.key(1), step, config, learner.world)
        drawn = omegas.of_episodes(draws, learner, step, config)
        spread[anneal] = float(jnp.std(drawn))
    assert spread[True] < 0.02 and spread[False] > 0.5


def test_starts_repeat_only_in_the_authors_way():
    from jaxsafe.envs import uncertainty as sets

    task, uncertainty = sets.scenario("InvertedPendulum-2")
    for fresh in (True, False):
        config = dataclasses.replace(BASE, fresh_starts=fresh)
        run = train.init(jax.random.key(0), config, task, uncertainty)
        assert np.unique(np.asarray(run.worlds.qpos)[:, 0]).size == (4 if fresh else 1)


def test_exploration_noise_is_shared_only_in_the_authors_way(world):
    learner = train.algorithm.init(jax.random.key(0), BASE, world)
    obs = jnp.zeros((500, 3))
    for independent in (True, False):
        config = dataclasses.replace(
            BASE,
            independent_noise=independent,
            exploration_noise=0.01,
            num_envs=500,
            replay_capacity=500,
        )
        draws = draw(jax.random.key(1), jnp.int32(99), config, world)
        action = train.explore(draws, learner, obs, jnp.int32(99), config)
        half = (world.action_high - world.action_low) / 2
        noise = np.asarray((action - action.mean(0)) / half)
        correlation = np.corrcoef(noise.T)[0, 1]
        assert (abs(correlation) < 0.2) if independent else (correlation > 0.99)


def test_the_newest_transition_is_drawn_unless_the_authors_way_is_asked_for(world):
    for newest in (True, False):
        config = dataclasses.replace(BASE, replay_newest=newest, batch_size=500)
        index = draw(jax.random.key(0), jnp.int32(1), config, world).places
        np.testing.assert_array_equal(np.unique(index), np.arange(8 if newest else 7))
