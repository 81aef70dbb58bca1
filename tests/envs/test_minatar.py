# SPDX-License-Identifier: Apache-2.0
"""MinAtar's Breakout in numbers: the same game as gymnax plays, put to any of its states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.minatar.breakout import MinBreakout

from jaxsafe.envs import minatar
from jaxsafe.envs.types import AdaptedState


@pytest.fixture(scope="module")
def task():
    return minatar.make()


def played(seed: int, steps: int = 200):
    """gymnax's own states, actions, pictures and rewards; a tenth of the actions are random."""
    env = MinBreakout()
    params = env.default_params
    start, drawn = jax.random.split(jax.random.key(seed))
    _, state = env.reset_env(start, params)
    wild = jax.random.randint(drawn, (steps,), 0, 30)

    def one(state, wild):
        own = minatar.follow(jnp, minatar.observe(state))[0].astype(jnp.int32)
        action = jnp.where(wild < 3, wild, own)
        obs, after, reward, _, _ = env.step_env(jax.random.key(0), state, action, params)
        return after, (after, action, obs, reward)

    state = jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), state)
    return state, *jax.jit(lambda s: jax.lax.scan(one, s, wild)[1])(state)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_gymnax_game(task, seed):
    """From our numbers alone the game goes on as gymnax's: same balls, bricks, rewards and ends."""
    state, after, actions, obs, reward = played(seed)
    numbers = jax.vmap(minatar.observe)(after)
    first = minatar.observe(state)
    before = jnp.concatenate([first[None], numbers[:-1]])

    def step(s, action):
        placed = AdaptedState(minatar.place(s), jnp.int32(0))
        moved, timestep = task.step(task.model, placed, action[None].astype(jnp.float32))
        return minatar.observe(moved.inner), timestep

    ours, timesteps = jax.jit(jax.vmap(step))(before, actions)
    # What comes after a lost ball is no game any more.
    going = np.concatenate([[True], ~np.asarray(after.terminal)])[:-1].cumprod().astype(bool)
    assert going.sum() > 20 and reward[going].sum() > 1
    np.testing.assert_array_equal(np.asarray(ours)[going], np.asarray(numbers)[going])
    np.testing.assert_array_equal(np.asarray(timesteps.reward)[going], np.asarray(reward)[going])
    np.testing.assert_array_equal(timesteps.terminated[going], np.asarray(after.terminal)[going])
    # The numbers are what its picture shows.
    t = np.flatnonzero(going)
    pictures, shown = np.asarray(obs)[t], np.asarray(numbers)[t].astype(int)
    assert pictures[np.arange(len(t)), shown[:, 1], shown[:, 0], 1].all()
    assert pictures[np.arange(len(t)), 9, shown[:, 4], 0].all()
    np.testing.assert_array_equal(pictures[:, 1:4, :, 3].reshape(len(t), -1), shown[:, 6:])


def test_numbers_come_back_and_guesses_go_to_the_nearest_state(task):
    state = task.reset(task.model, jax.random.key(3))
    numbers = np.asarray(task.observe(task.model, state))
    assert numbers.shape == (len(minatar.NAMES),) == (36,)
    rng = np.random.default_rng(0)
    guess = numbers + rng.uniform(-0.45, 0.45, 36)
    np.testing.assert_array_equal(minatar.observe(minatar.place(jnp.asarray(guess))), numbers)
    far = minatar.observe(minatar.place(jnp.full(36, 50.0)))
    np.testing.assert_array_equal(far, minatar.HIGH)


def test_starts_are_gymnax_starts(task):
    keys = jax.random.split(jax.random.key(0), 32)
    theirs = {tuple(np.asarray(task.observe((), task.reset((), k)))) for k in keys}
    rng = np.random.default_rng(0)
    ours = {tuple(minatar.start(rng)[0].astype(np.float32)) for _ in range(32)}
    assert theirs == ours and len(ours) == 2


def test_the_policy_never_misses(task):
    def run(start):
        def one(carry, _):
            state, alive = carry
            action = minatar.follow(jnp, task.observe(task.model, state))
            state, timestep = task.step(task.model, state, action)
            return (state, alive & ~timestep.terminated), timestep.reward

        first = AdaptedState(minatar.place(start), jnp.int32(0))
        (_, alive), rewards = jax.lax.scan(one, (first, jnp.bool_(True)), length=500)
        return alive, rewards.sum()

    for seed in range(4):
        start = minatar.start(np.random.default_rng(seed))[0]
        alive, bricks = jax.jit(run)(jnp.asarray(start, jnp.float32))
        assert alive and bricks > 10
