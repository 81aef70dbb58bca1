# SPDX-License-Identifier: Apache-2.0
"""Windows on the device are those of the arrays, and are drawn as often as they should be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.core.checks import UserError
from jaxsafe.data import trajectories
from jaxsafe.pls import windows
from tests.pls import policy_worlds

CONFIG = dataclasses.replace(pls.CDT, context=4, batch_size=30_000)
LENGTHS = (6, 3, 11)


def made(lengths=LENGTHS):
    return trajectories.build(policy_worlds.columns(lengths))


def test_a_window_is_a_slice_padded_on_the_right():
    data = made()
    held = windows.make(data, CONFIG)
    episode, first = jnp.array([0, 1, 2]), jnp.array([1, 1, 9])
    batch = windows.take(held, CONFIG, episode, first)
    to_go = [trajectories.to_go(x, data) for x in (data.rewards, data.costs)]
    for i, (start, length) in enumerate(zip(data.starts, data.lengths, strict=True)):
        left = min(length - int(first[i]), 4)
        rows = slice(start + int(first[i]), start + int(first[i]) + left)
        np.testing.assert_array_equal(batch.mask[i], np.arange(4) < left)
        np.testing.assert_array_equal(batch.time[i], first[i] + np.arange(4))
        for name, column in (
            ("obs", data.observations),
            ("action", data.actions),
            ("cost", data.costs),
            ("reward_to_go", to_go[0]),
            ("cost_to_go", to_go[1]),
        ):
            values = np.asarray(getattr(batch, name)[i])
            np.testing.assert_allclose(values[:left], column[rows], rtol=1e-6, err_msg=name)
            assert not values[left:].any(), name


def test_episodes_are_drawn_alike_and_so_are_their_first_steps():
    data = made()
    held = windows.make(data, CONFIG)
    batch = jax.jit(windows.sample, static_argnums=2)(jax.random.key(0), held, CONFIG)
    # An episode is known by its one action.
    first_actions = data.actions[data.starts, 0]
    episode = np.argmin(np.abs(np.asarray(batch.action)[:, 0, :1] - first_actions), axis=1)
    for i, length in enumerate(LENGTHS):
        mine = episode == i
        assert np.mean(mine) == pytest.approx(1 / 3, abs=0.02)
        counts = np.bincount(np.asarray(batch.time)[mine, 0], minlength=length) / np.sum(mine)
        np.testing.assert_allclose(counts, 1 / length, atol=0.02)
    assert batch.mask[:, 0].all()


def test_osrls_sampler_draws_by_70_less_the_cost():
    """Costs (0, 35, 70, 100) give (2/3, 1/3, 0, 0): known answer 8 of the notes."""
    literal = dataclasses.replace(CONFIG, sample_below=70.0)
    costs = (0, 35, 70, 100)
    expected = [2 / 3, 1 / 3, 0, 0]
    np.testing.assert_allclose(windows.probabilities(np.array(costs), literal), expected)
    held = windows.make(policy_worlds.with_costs(costs), literal)
    np.testing.assert_allclose(np.diff(held.cumulative, prepend=0), expected, atol=1e-6)
    batch = windows.sample(jax.random.key(0), held, literal)
    # An episode is known by its cost-to-go, where its costs are not over yet.
    start = np.asarray(batch.time)[:, 0] < 35
    drawn = np.asarray(batch.cost_to_go + batch.time)[start, 0]
    assert np.mean(drawn == 35) == pytest.approx(1 / 3, abs=0.03)
    assert not np.isin(drawn, (70, 100)).any()


def test_the_default_sampler_draws_costly_episodes_too():
    held = windows.make(policy_worlds.with_costs((0, 35, 70, 100)), CONFIG)
    batch = windows.sample(jax.random.key(0), held, CONFIG)
    start = np.asarray(batch.time)[:, 0] < 35
    drawn = np.asarray(batch.cost_to_go + batch.time)[start, 0]
    assert np.mean(drawn == 100) == pytest.approx(1 / 4, abs=0.03)


def test_a_limit_below_every_cost_is_refused():
    with pytest.raises(UserError, match="set it above 35"):
        windows.make(
            policy_worlds.with_costs((35, 70)), dataclasses.replace(CONFIG, sample_below=20.0)
        )


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_episode_of_no_probability_is_never_drawn(place):
    """Wherever it stands, and for draws at the ends of [0, 1) too."""
    costs = [0, 0, 0]
    costs[place] = 80
    config = dataclasses.replace(CONFIG, sample_below=70.0)
    held = windows.make(policy_worlds.with_costs(costs), config)
    batch = windows.sample(jax.random.key(1), held, config)
    assert not np.asarray(batch.cost_to_go).any()
