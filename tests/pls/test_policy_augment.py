# SPDX-License-Identifier: Apache-2.0
"""Relabelled episodes: the frontier, who stands in for whom, and what the curves become."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.core.checks import UserError
from jaxsafe.data import trajectories
from jaxsafe.pls import augment, windows
from tests.pls import policy_worlds

CONFIG = dataclasses.replace(pls.CDT, context=4, augment=0.5, augment_degree=2)


def plane(size=60, seed=0):
    """Returns and costs, whole costs with ties."""
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 30, size).astype(float)
    return 10 * np.sqrt(costs) * rng.uniform(0.2, 1, size), costs


def test_the_frontier_is_what_no_episode_beats():
    returns, costs = plane()
    returns[3], costs[3] = returns[7], costs[7]  # equal ones: the first stands for both
    found = augment.frontier(costs, returns)
    expected = [
        i
        for i in range(len(costs))
        if not any(
            (costs[j] <= costs[i] and returns[j] >= returns[i])
            and (costs[j] < costs[i] or returns[j] > returns[i] or j < i)
            for j in range(len(costs))
            if j != i
        )
    ]
    assert sorted(found) == expected and len(found) > 3
    assert (np.diff(costs[found]) > 0).all() and (np.diff(returns[found]) > 0).all()


def test_a_degree_beyond_the_points_is_lowered_or_refused():
    """Trap l: OSRL's fit through too few points is NaN or swings."""
    costs, returns = np.array([1.0, 3.0]), np.array([2.0, 8.0])
    np.testing.assert_allclose(augment.fit(costs, returns, 4), [3.0, -1.0], atol=1e-9)
    np.testing.assert_allclose(augment.fit(costs[:1], returns[:1], 4), [2.0])
    with pytest.raises(UserError, match="set it to 1"):
        augment.fit(costs, returns, 4, guard=False)
    exact = augment.fit(np.arange(5.0), np.arange(5.0) ** 2, 2)
    np.testing.assert_allclose(exact, [1, 0, 0], atol=1e-9)


def scene():
    """Eight episodes and four targets whose nearest ones are 5, 3, 5 and 7."""
    points = np.array([[9.0, 0], [9, 1], [9, 2], [2, 20], [9, 3], [1, 10], [9, 4], [4, 40]])
    targets = np.array([[1.0, 11], [2, 21], [3, 12], [4, 41]])
    return points, targets


def test_targets_keep_the_episode_chosen_for_them():
    """Known answer 9 of the notes, as it should be: 5, 3, a stand-in for 5, 7."""
    points, targets = scene()
    rng = np.random.default_rng(0)
    chosen = augment.nearest(rng, points, targets, decrease=0.0, beta=1.0)
    np.testing.assert_array_equal(chosen, [5, 3, 5, 7])  # nothing else is as good as 5
    assert (points[chosen, 0] <= targets[:, 0]).all()


def test_osrls_order_pairs_targets_with_others_episodes():
    """Known answer 9: [5, 3, 5, 7] becomes [5, redraw, 3, 7], and rows 1 and 2 are mispaired."""
    points, targets = scene()
    rng = np.random.default_rng(0)
    chosen = augment.nearest(rng, points, targets, decrease=0.0, beta=1.0, pairing="grouped")
    np.testing.assert_array_equal(chosen, [5, 5, 3, 7])


def test_a_mispaired_episode_may_cost_more_than_its_target():
    points = np.array([[0.0, 0], [5, 50], [3, 30], [9, 0]])
    targets = np.array([[5.0, 51], [3, 31], [5, 52]])  # nearest: 1, 2, 1
    draw = lambda pairing: augment.nearest(  # noqa: E731
        np.random.default_rng(0), points, targets, 0.0, 1.0, pairing
    )
    assert (points[draw("paired"), 0] <= targets[:, 0]).all()
    assert (points[draw("grouped"), 0] > targets[:, 0]).any()


def test_stand_ins_are_drawn_by_nearness_among_those_good_enough():
    points = np.array([[5.0, 50], [4, 50], [1, 50], [4, 30], [6, 60]])
    targets = np.tile([5.0, 55], (3001, 1))
    chosen = augment.nearest(np.random.default_rng(0), points, targets, 10.0, 1.0)
    assert chosen[0] == 0
    counts = np.bincount(chosen[1:], minlength=5) / 3000
    weights = np.array([1, 1 / 2, 1 / 5, 0, 0])  # distances 0, 1, 4; too bad; too costly
    np.testing.assert_allclose(counts, weights / weights.sum(), atol=0.03)


def test_relabelled_targets_lie_above_the_frontier_and_are_kept_in_cost():
    returns, costs = plane(200)
    config = dataclasses.replace(CONFIG, augment_thin=False, augment_min_reward=3.0)
    made = augment.relabel(np.random.default_rng(0), returns, costs, config)
    assert len(made.episode) == 100
    np.testing.assert_allclose(made.cost, np.linspace(costs.min(), costs.max(), 100))
    assert made.reward.max() <= returns.max() + 0.1 * np.ptp(returns) + 1e-9
    best = augment.frontier(costs, returns)
    curve = augment.fit(costs[best], returns[best], 2)
    assert (made.reward >= np.polyval(curve, made.cost) + 3.0 - 1e-9).all()
    assert (costs[made.episode] <= made.cost).all()
    low = dataclasses.replace(config, augment_max_reward=-1e3)
    with pytest.raises(UserError, match=r"policy.augment_max_reward=-1000"):
        augment.relabel(np.random.default_rng(0), returns, costs, low)
    none = augment.relabel(np.random.default_rng(0), returns, costs, pls.PolicyConfig())
    assert not len(none.episode)


def test_curves_move_by_a_shift_or_by_a_factor():
    """Trap d: a shift leaves the end of the episode with something still to obtain."""
    old, new = np.array([4.0, 0.0, 5.0]), np.array([6.0, 3.0, -5.0])
    shift = augment.line(old, new, "shift")
    np.testing.assert_array_equal(shift, [[1, 2], [1, 3], [1, -10]])
    scaled = augment.line(old, new, "proportional")
    np.testing.assert_array_equal(scaled, [[1.5, 0], [1, 3], [1, -10]])
    same = augment.line(old, old, "proportional")
    np.testing.assert_array_equal(same @ [1.0, 0.0] * old + same[:, 1], old)


@pytest.mark.parametrize("curve", ["shift", "proportional"])
def test_windows_of_relabelled_episodes_begin_at_their_targets(curve):
    data = policy_worlds.steady_data(40)
    returns, costs = trajectories.totals(data)
    config = dataclasses.replace(CONFIG, augment_curve=curve, augment_thin=False)
    held = windows.make(data, config, seed=3)
    made = augment.relabel(np.random.default_rng(3), returns, costs, config)
    assert held.start.shape == (60,) and held.obs.shape[0] == len(data.rewards) + config.window
    batch = windows.take(held, config, jnp.arange(60), jnp.zeros(60, jnp.int32))
    asked = np.concatenate([returns, made.reward]), np.concatenate([costs, made.cost])
    np.testing.assert_allclose(batch.reward_to_go[:, 0], asked[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(batch.cost_to_go[:, 0], asked[1], rtol=1e-4, atol=1e-4)
    # The rest of the episode is the one it was made from.
    rows = data.starts[made.episode][:, None] + np.arange(4)
    np.testing.assert_array_equal(batch.action[40:], data.actions[rows])
    moved = np.asarray(batch.cost_to_go[40:, 0] - batch.cost_to_go[40:, 1])
    kept = data.costs[rows[:, 0]]
    assert np.allclose(moved, kept, atol=1e-4) == (curve == "shift")
