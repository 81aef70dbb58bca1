# SPDX-License-Identifier: Apache-2.0
"""The return-conditioned perceptron, where the answer is known and on a point world."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.core import config as config_lib
from jaxsafe.core.checks import UserError
from jaxsafe.data import generate, trajectories
from jaxsafe.envs import safety_tasks
from jaxsafe.pls import algorithm, networks, policy_config, rollout, windows
from tests.pls import policy_worlds

SMALL = pls.PolicyConfig(hidden=(32, 32), batch_size=64, steps=1500, warmup_steps=50)


def train(config, data, seed=0):
    state = algorithm.init(jax.random.key(seed), config, data.sizes)
    step = jax.jit(algorithm.chunk, static_argnames=("length", "config"))
    return step(state, data, 0, config.steps, config)


@pytest.mark.parametrize("loss", ["mse", "gaussian"])
def test_a_policy_whose_action_is_a_function_of_the_target_reaches_it(loss):
    """Every z of the data is reached, where each step's action is what is left by steps left."""
    config = dataclasses.replace(SMALL, loss=loss, learning_rate=3e-3)
    data = windows.make(policy_worlds.steady_data(), config)
    state, metrics = train(config, data)
    assert all(name.startswith("policy/") and np.isfinite(x) for name, x in metrics.items())
    policy, task = algorithm.policy(state), policy_worlds.steady()
    z = jnp.array([[-6.0, 1.0], [0.0, 5.0], [5.0, 8.0]])
    found = rollout.evaluate(policy, jax.random.key(1), task, z, config, 7)
    assert found.shape == (3, 7, 2)
    np.testing.assert_allclose(found, np.broadcast_to(z[:, None], (3, 7, 2)), atol=0.35)


def test_targets_shrink_by_what_was_obtained(monkeypatch):
    """A policy that shows its inputs: R_t + r_0 + ... + r_{t-1} is R_0, and so for the cost."""
    seen = []

    def spy(policy, config, memory, limits, obs, reward_to_go, cost_to_go, time):
        jax.debug.callback(lambda *x: seen.append(np.array(x)), time, reward_to_go, cost_to_go)
        return jnp.array([0.25, 0.5]), memory

    monkeypatch.setattr(networks, "act", spy)
    config = dataclasses.replace(SMALL, hidden=(3,))
    data = windows.make(policy_worlds.steady_data(3), config)
    policy = algorithm.policy(algorithm.init(jax.random.key(0), config, data.sizes))
    task, z = policy_worlds.steady(), jnp.array([2.0, 7.0])
    reward, cost = rollout.episode(policy, jax.random.key(0), task, z, config, task.model)
    jax.effects_barrier()
    assert (float(reward), float(cost)) == (2.5, 7.5)
    time, left, budget = np.array(sorted(map(tuple, seen))).T
    np.testing.assert_allclose(left, 2.0 - 0.25 * time, atol=1e-6)
    np.testing.assert_allclose(budget, 7.0 - 0.75 * time, atol=1e-6)


def test_what_comes_after_an_episodes_end_is_not_counted():
    task = policy_worlds.steady(4)
    task = dataclasses.replace(task, max_episode_steps=9)
    config = dataclasses.replace(SMALL, hidden=(3,))
    data = windows.make(policy_worlds.steady_data(3), config)
    policy = algorithm.policy(algorithm.init(jax.random.key(0), config, data.sizes))
    bias = {"params": jax.tree.map(jnp.zeros_like, policy.params["params"])}
    bias["params"]["Dense_1"]["bias"] = jnp.array([0.5, 2.0])  # the second is clipped to 1
    policy = policy.replace(params=bias)
    reward, cost = rollout.returns(policy, jax.random.key(0), task, jnp.zeros(2), config, 3)
    np.testing.assert_array_equal(reward, [2.0] * 3)
    np.testing.assert_array_equal(cost, [4.0] * 3)


def test_features_are_fractions_and_rates():
    data = windows.make(policy_worlds.steady_data(), SMALL)
    sizes = data.sizes.replace(return_scale=jnp.float32(0.1), cost_scale=jnp.float32(0.5))
    seen = networks.features(sizes, SMALL, sizes.obs_mean, 4.0, 1.0, jnp.int32(8))
    np.testing.assert_allclose(seen, [0, 0, 0, 0.8, 0.4, 0.5, 2.0, 2.5], rtol=1e-5)
    late = networks.features(sizes, SMALL, sizes.obs_mean, 40.0, -9.0, jnp.int32(25))
    np.testing.assert_allclose(late[3:], [1.0, 4.0, -4.5, 5.0, -5.0], rtol=1e-5)


def test_scales_come_from_the_data_or_from_the_config():
    data = policy_worlds.steady_data(50)
    returns, costs = trajectories.totals(data)
    sizes = windows.make(data, SMALL).sizes
    assert sizes.return_scale == pytest.approx(1 / np.abs(returns).max())
    assert sizes.cost_scale == pytest.approx(1 / costs.max())
    shown = networks.scaled_obs(sizes, data.observations)
    np.testing.assert_allclose(shown.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(shown.std(0), 1, atol=1e-5)
    given = dataclasses.replace(SMALL, return_scale=0.1, cost_scale=1.0, standardise=False)
    sizes = windows.make(data, given).sizes
    assert (sizes.return_scale, sizes.cost_scale) == (np.float32(0.1), 1)
    np.testing.assert_array_equal(networks.scaled_obs(sizes, data.observations), data.observations)
    free = trajectories.build(policy_worlds.columns([5]) | {"costs": np.zeros(5)})
    assert windows.make(free, SMALL).sizes.cost_scale == 1


def test_chunks_may_be_cut_anywhere():
    """Ten steps at once are four and six, bit for bit."""
    data = windows.make(policy_worlds.steady_data(20), SMALL)
    step = jax.jit(algorithm.chunk, static_argnames=("length", "config"))
    start = lambda: algorithm.init(jax.random.key(3), SMALL, data.sizes)  # noqa: E731
    whole, _ = step(start(), data, 0, 10, SMALL)
    part, _ = step(start(), data, 0, 4, SMALL)
    part, _ = step(part, data, 4, 6, SMALL)
    assert int(part.step) == 10
    jax.tree.map(np.testing.assert_array_equal, part.params, whole.params)


def test_circle_data_teach_a_policy_that_follows_its_targets():
    """More return is asked for and obtained; less cost is asked for and paid."""
    task = safety_tasks.make("Circle-v0")
    made = generate.generate(task, 600, seed=0).trajectories
    config = pls.PolicyConfig(steps=3000)
    state, metrics = train(config, windows.make(made, config))
    best = trajectories.totals(made)[0].max()
    z = jnp.array([[0.1 * best, 0.0], [0.5 * best, 0.0], [0.5 * best, 40.0]])
    key = jax.random.key(1)
    found = rollout.evaluate(algorithm.policy(state), key, task, z, config, 50).mean(1)
    rewards, costs = found.T
    assert rewards[1] > rewards[0] + 0.15 * best
    assert costs[2] > costs[1] + 10
    assert metrics["policy/loss"] < np.var(made.actions)


def test_targets_and_seeds_map():
    """One call over seeds and targets is the calls one by one."""
    config = dataclasses.replace(SMALL, steps=50)
    data = windows.make(policy_worlds.steady_data(), config)
    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.vmap(lambda k: algorithm.init(k, config, data.sizes))(keys)
    run = jax.vmap(lambda s: algorithm.chunk(s, data, 0, config.steps, config)[0])
    policies = algorithm.policy(jax.jit(run)(states))
    task, z = policy_worlds.steady(), jnp.array([[1.0, 2.0], [3.0, 4.0], [-1.0, 5.0]])
    key = lambda: jax.random.key(5)  # noqa: E731

    def one(policy, z):
        return rollout.returns(policy, key(), task, z, config, 4)

    mapped = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(policies, z)
    for seed in range(2):
        policy = jax.tree.map(lambda x, i=seed: x[i], policies)
        for i in range(3):
            alone = one(policy, z[i])
            for x, y in zip(mapped, alone, strict=True):
                np.testing.assert_allclose(x[seed, i], y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "cdt", "width": 130}, "policy.heads=8: set it to 136"),
        ({"flip_costs": True}, "policy.flip_costs=True"),
        ({"model": "rsv"}, "Did you mean 'rvs'"),
        ({"clip": -1.0}, "policy.clip"),
    ],
)
def test_configs_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        policy_config.validate(dataclasses.replace(SMALL, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episode_steps": 9}, "at least 10"),
        ({"sample_below": 0.0}, "policy.sample_below=0"),
        ({"batch_size": 0}, "policy.batch_size"),
    ],
)
def test_data_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        windows.make(policy_worlds.steady_data(), dataclasses.replace(SMALL, **changes))


def test_osrls_quirks_are_all_put_back_and_no_size_with_them():
    literal = pls.osrl_compat(pls.CDT)
    policy_config.validate(literal)
    changed = set(config_lib.diff(pls.CDT, literal))
    assert changed == {
        *("sample_below", "flip_costs", "augment_pairing", "entropy_target", "clip_log_std"),
        *("divide_costs", "cost_labels", "episode_steps", "guard_degree", "masked_losses"),
        *("standardise", "return_scale", "cost_scale"),
    }
    assert literal.augment_curve == "shift"
    with pytest.raises(UserError, match=r"policy\.episode_steps=300"):
        windows.make(policy_worlds.steady_data(2, steps=301), literal)


def test_osrl_divides_unscaled_costs_by_their_scale():
    """Trap h: with a scale of 0.5 a reported cost is twice what was paid."""
    config = dataclasses.replace(SMALL, hidden=(3,), cost_scale=0.5)
    data = windows.make(policy_worlds.steady_data(3), config)
    policy = algorithm.policy(algorithm.init(jax.random.key(0), config, data.sizes))
    task = policy_worlds.steady()
    costs = [
        rollout.returns(policy, jax.random.key(0), task, jnp.ones(2), c, 3)[1]
        for c in (config, dataclasses.replace(config, divide_costs=True))
    ]
    assert np.all(costs[0] > 0)
    np.testing.assert_allclose(costs[1], 2 * costs[0], rtol=1e-6)
