# SPDX-License-Identifier: Apache-2.0
"""What the variants and the baselines with an adversary do differently."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.m2td3 import (
    METHODS,
    Config,
    adversary,
    algorithm,
    evaluate,
    init,
    losses,
    nature,
    networks,
    omegas,
    train,
    update,
)
from tests.m2td3 import games

from .conftest import trees_equal


def with_method(config: Config, method: str, **changes) -> Config:
    return dataclasses.replace(config, method=method, **changes)


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def test_every_method_updates_without_retracing_and_stays_finite(method, config, world, make_batch):
    config = with_method(config, method, adversary_interval=1)
    state = init(jax.random.key(0), config, world)
    step = jax.jit(lambda state, batch: update(state, batch, config))
    for i in range(3):
        before = state
        state, metrics = step(state, make_batch(i, (config.policy_delay, 8)))
    assert step._cache_size() == 1
    numbers = [
        x for x in jax.tree.leaves((state, metrics)) if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    assert all(np.isfinite(x).all() for x in numbers)
    assert not trees_equal(before.critic, state.critic)


def test_soft_climbs_the_mixture_by_probability(config, world, make_batch):
    """Against a plain gradient of sum_k p_k J_k."""
    config = with_method(config, "soft_m2td3", num_candidates=3)
    state, batch = init(jax.random.key(1), config, world), make_batch(3, (16,))
    probs = jnp.array([0.2, 0.5, 0.3])
    points = adversary.omegas(state.candidates, world)
    q1, action = state.critic["q1"], batch.action

    def mixture(action):
        each = [losses.policy_value(q1, batch.obs, action, w, config, world) for w in points]
        return jnp.dot(probs, jnp.stack(each)), jnp.stack(each)

    (value, each), want = jax.value_and_grad(mixture, has_aux=True)(action)
    got = losses.soft_case(q1, batch.obs, action, points, probs, config, world)
    assert got[0] == pytest.approx(float(value), abs=1e-6)
    assert got[1] == each.argmin()
    np.testing.assert_allclose(got[2], want, atol=1e-7)
    hard = losses.worst_case(q1, batch.obs, action, points, config, world)
    np.testing.assert_allclose(got[3], hard[3], atol=1e-7)


def test_soft_with_all_weight_on_the_worst_is_hard(config, world, make_batch):
    soft, hard = (with_method(config, m, num_candidates=3) for m in ("soft_m2td3", "m2td3"))
    state, batch = init(jax.random.key(1), soft, world), make_batch(3, (16,))
    points, q1 = adversary.omegas(state.candidates, world), state.critic["q1"]
    action = networks.policy(state.actor, soft, world, batch.obs)
    worst = losses.worst_case(q1, batch.obs, action, points, soft, world)[1]
    one_hot = state.candidates.replace(probs=jax.nn.one_hot(worst, 3))
    state = state.replace(candidates=one_hot)
    a, b = (algorithm.actor_step(state, batch, c)[0] for c in (soft, hard))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a.actor, b.actor)
    assert not trees_equal(a.actor, state.actor)


@pytest.mark.parametrize(
    ("level", "want"), [(0.25, 1.0), (0.5, 1.5), (0.375, 4 / 3), (1.0, 4.0), (0.0, 1.0)]
)
def test_tail_weights_give_cvar(level, want):
    values = jnp.array([10.0, 2.0, 1.0, 3.0])
    weights = losses.tail_weights(values, level)
    assert weights.sum() == pytest.approx(1.0, abs=1e-6)
    assert weights @ values == pytest.approx(want, abs=1e-5)


def test_cvar_of_all_omegas_climbs_their_mean(config, world, make_batch):
    config = with_method(config, "m2td3_plus", cvar_level=0.5)
    state, batch = init(jax.random.key(1), config, world), make_batch(3, (16,))
    q1, action, points = state.critic["q1"], batch.action, batch.omega[:4]
    args = (q1, batch.obs, action, points)
    value = lambda a, w: losses.policy_value(q1, batch.obs, a, w, config, world)  # noqa: E731
    each = np.asarray([value(action, w) for w in points])
    got = losses.tail_case(*args, config, world)
    low = np.argsort(each)[:2]
    assert got[0] == pytest.approx(each[low].mean(), abs=1e-6)
    want = np.mean([jax.grad(value)(action, points[i]) for i in low], axis=0)
    np.testing.assert_allclose(got[1], want, atol=1e-7)


def test_only_plus_has_our_ingredients(config, world, make_batch):
    batch = make_batch(3, (16,))
    changes = ({"average_weight": 0.0}, {"average_weight": 1.0}, {"cvar_level": 0.5})
    for method, same in (("m2td3", True), ("soft_m2td3", True), ("m2td3_plus", False)):
        state = init(jax.random.key(1), with_method(config, method), world)
        after = [
            algorithm.actor_step(state, batch, with_method(config, method, **change))[0].actor
            for change in changes
        ]
        assert trees_equal(after[0], after[1]) == same
        assert trees_equal(after[1], after[2]) == same


def test_rarl_moves_its_players_in_turns(config, world, make_batch):
    config = with_method(config, "rarl", adversary_interval=2, actor_mean_rate=1.0)
    state = init(jax.random.key(0), config, world)
    step, moves = jax.jit(lambda state, batch: update(state, batch, config)), []
    for i in range(8):
        after, _ = step(state, make_batch(i, (config.policy_delay, 8)))
        moves.append(
            (
                not trees_equal(after.actor, state.actor),
                not trees_equal(after.nature.params, state.nature.params),
            )
        )
        state = after
    actor, adversary_ = (True, False), (False, True)
    assert moves == [actor, actor, adversary_, adversary_] * 2


def test_m3ddpg_moves_both_players_against_each_others_step(config, world, make_batch):
    config = with_method(config, "m3ddpg", actor_mean_rate=1.0)
    state, batch = init(jax.random.key(0), config, world), make_batch(5, (8,))
    q1 = state.critic["q1"]
    inputs = (q1, batch.obs, batch.action)
    value = lambda a, w: losses.policy_value(q1, batch.obs, a, w, config, world)  # noqa: E731
    inside = 0.5 * batch.omega
    worse = nature.worse_omega(*inputs, inside, config, world)
    np.testing.assert_allclose(jnp.linalg.norm(worse - inside, axis=-1), 0.1, atol=1e-5)
    assert value(batch.action, worse) < value(batch.action, inside)
    action = 0.5 * batch.action + 0.5 * (world.action_low + world.action_high) / 2
    better = nature.better_action(q1, batch.obs, action, inside, config, world)
    assert value(better, inside) > value(action, inside)
    half = (world.action_high - world.action_low) / 2
    assert jnp.linalg.norm((better - action) / half, axis=-1) == pytest.approx(0.1, abs=1e-5)
    after, _ = algorithm.actor_step(state, batch, config)
    assert not trees_equal(after.actor, state.actor)
    assert not trees_equal(after.nature.params, state.nature.params)
    assert not trees_equal(after.nature.target, state.nature.target)


def test_m3ddpg_without_a_step_is_simultaneous_rarl(config, world, make_batch):
    batch = make_batch(5, (8,))
    a = with_method(config, "m3ddpg", minimax_step=0.0)
    b = with_method(config, "rarl", adversary_interval=1000)
    state = init(jax.random.key(0), a, world)
    one, other = (algorithm.actor_step(state.replace(step=1), batch, c)[0] for c in (a, b))
    assert trees_equal(one.actor, other.actor)
    assert trees_equal(one.critic, other.critic)


def test_nature_descends_q_and_stays_in_the_set(config, world, make_batch):
    config = with_method(config, "rarl", actor_lr=1e-3, actor_final_scale=1.0)
    state, batch = init(jax.random.key(0), config, world), make_batch(5, (64,))
    tx = algorithm.nature_optimizer(config)
    q1, action = state.critic["q1"], batch.action

    def value(player):
        omega = networks.nature_policy(player.params, config, world, batch.obs)
        assert (jnp.abs(omega) <= 1).all()
        return losses.policy_value(q1, batch.obs, action, omega, config, world)

    after = nature.descend(state.nature, q1, batch, action, config, world, tx)
    assert value(after) < value(state.nature)


def test_nature_sets_omega_at_every_step():
    task, uncertainty = games.endless(5)
    for method, constant in (("rarl", False), ("m3ddpg", False), ("m2td3", True), ("dr_td3", True)):
        config = Config(method=method, total_steps=20, warmup_steps=1, num_envs=4)
        config = dataclasses.replace(config, replay_capacity=80, hidden=(8,), batch_size=4)
        run = train.init(jax.random.key(0), config, task, uncertainty)
        step = jax.jit(lambda r, c=config: train.chunk(r, jnp.int32(0), 4, c, task, uncertainty)[0])
        seen = np.asarray(step(run).buffer.omega).reshape(20, 4)[:4]
        if method == "dr_td3":
            assert (seen == 0).all()
        else:
            assert (np.ptp(seen, axis=0) == 0).all() == constant


def test_least_takes_the_lowest_apart():
    points = jnp.array([[0.0], [0.05], [0.5], [1.0], [0.52]])
    values = jnp.array([1.0, 0.0, 3.0, 4.0, 2.0])
    # 1 is least; 0 is near it, 4 comes next and shadows 2.
    np.testing.assert_array_equal(adversary.least(values, points, 3, 0.1), [1, 4, 3])
    # With none left apart, the least of the near ones.
    np.testing.assert_array_equal(adversary.least(values, points, 5, 0.1), [1, 4, 3, 0, 2])
    np.testing.assert_array_equal(adversary.least(jnp.zeros(5), points, 3, 0.1), [0, 2, 3])


def test_a_check_by_rollouts_finds_what_q_does_not_know():
    """In the quadratic game a policy that plays about .5 is worst at w = 1, whatever Q says."""
    task, uncertainty = games.quadratic()
    config = Config(
        method="m2td3_plus",
        total_steps=20,
        warmup_steps=1,
        num_candidates=2,
        check_interval=2,
        check_omegas=200,
        actor_mean_rate=1.0,
    )
    run = train.init(jax.random.key(0), config, task, uncertainty)
    check = jax.jit(
        partial(omegas.check_candidates, config=config, task=task, uncertainty=uncertainty)
    )
    idle = check(run.learner, jnp.int32(3))
    assert trees_equal(idle.candidates, run.learner.candidates)
    learner = check(run.learner, jnp.int32(4))
    found = np.asarray(adversary.omegas(learner.candidates, learner.world))[:, 0]
    assert found[0] > 0.97 and found[1] < found[0] - config.check_distance
    np.testing.assert_allclose(learner.candidates.probs, 0.5)
    again = check(learner, jnp.int32(6))
    assert adversary.omegas(again.candidates, learner.world)[0, 0] >= found[0] - 1e-6


def test_candidates_chosen_again_keep_their_adam_state(config, world, make_batch):
    state = init(jax.random.key(0), with_method(config, "m2td3"), world)
    tx = algorithm.optimizers(config)[2]
    start = adversary.descend(state.candidates, jnp.int32(1), jnp.ones(2), world, tx)
    pool = jnp.concatenate([adversary.omegas(start, world), jnp.array([[0.25, -0.5]])])
    chosen = jnp.array([5, 1, 0, 3, 2])
    after = adversary.moved(start, pool, chosen, tx)
    np.testing.assert_allclose(adversary.omegas(after, world), pool[chosen], atol=1e-5)
    count = lambda c: np.asarray(c.opt_state[0].count)  # noqa: E731
    np.testing.assert_array_equal(count(start), [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(count(after), [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(after.z[1:3], start.z[jnp.array([1, 0])])


SWEPT = {
    "gamma": (0.9, 0.99),
    "tau": (1e-3, 1e-2),
    "actor_lr": (1e-3, 1e-4),
    "critic_lr": (1e-3, 1e-4),
    "omega_lr": (1e-3, 1e-2),
    "policy_noise": (0.1, 0.2),
    "noise_clip": (0.05, 0.2),
    "exploration_noise": (0.1, 0.5),
    "actor_mean_rate": (1e-2, 1e-1),
    "exploring_starts": (0.1, 0.9),
    "average_weight": (0.0, 0.75),
    "omega_noise": (1.0, 0.5),
    "uniform_omegas": (0.1, 0.9),
    "critic_offset": (0.0, 1.0),
    "critic_scale": (1.0, 2.0),
    "restart_distance": (0.1, 1.0),
}


def test_hyperparameters_can_be_swept_by_vmap():
    """A vmapped sweep over numbers of the config equals separate runs, to rounding."""
    task, uncertainty = games.quadratic()
    base = Config(
        method="m2td3_plus", total_steps=60, warmup_steps=4, num_envs=4, batch_size=8,
        hidden=(8,), replay_capacity=240, restart_interval=10,
    )  # fmt: skip

    def whole(values):
        config = dataclasses.replace(base, **values)
        run = train.init(jax.random.key(0), config, task, uncertainty)
        return train.chunk(run, jnp.int32(0), 60, config, task, uncertainty)[0].learner.mean_actor

    table = {name: jnp.array(pair) for name, pair in SWEPT.items()}
    swept = jax.jit(jax.vmap(whole))(table)
    for i in range(2):
        alone = jax.jit(whole)({name: pair[i] for name, pair in SWEPT.items()})
        row = jax.tree.map(lambda x, i=i: x[i], swept)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), row, alone)
    assert not trees_equal(*(jax.tree.map(lambda x, i=i: x[i], swept) for i in range(2)))


def test_scored_policies_of_every_method_act(method, config, world):
    config = with_method(config, method)
    learners = jax.vmap(lambda k: init(k, config, world))(jax.random.split(jax.random.key(0), 2))
    actors, worlds = evaluate.policies(learners, config)
    act = jax.vmap(lambda a, w: algorithm.act(a, jnp.ones(3), config, w))
    assert act(actors, worlds).shape == (2, 2)
