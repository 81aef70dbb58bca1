# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.envs import host
from jaxsafe.envs.rollout import auto_reset, episode_return
from jaxsafe.envs.types import Timestep

from .recordings import GAINS, OMEGAS, states

EPISODES, SEED = 2, 5
POLICIES = np.stack([GAINS, 0.1 * GAINS])  # one that holds everywhere, and one that does not


@pytest.fixture(scope="module")
def mjx_scores(pendulum):
    """(returns, steps) [P, N, E] in MJX from the starts of `host.initial_states`."""
    task, box = pendulum
    models, axes = box.batched(task.model, jnp.asarray(OMEGAS))
    starts = states(np.concatenate(host.initial_states(task, EPISODES, SEED), 1).astype(np.float32))

    def run(gains, model, state):
        return episode_return(task, lambda obs: (obs @ gains)[None], model, state)

    over_starts = jax.vmap(run, in_axes=(None, None, 0))
    over_models = jax.vmap(over_starts, in_axes=(None, axes, None))
    program = jax.jit(jax.vmap(over_models, in_axes=(0, None, None)))
    return jax.device_get(program(jnp.asarray(POLICIES, jnp.float32), models, starts))


def test_scores_equal_mujoco_c(pendulum, mjx_scores):
    task, box = pendulum
    returns, steps = mjx_scores

    def policy(obs):
        return np.einsum("pbo,po->pb", obs, POLICIES)[..., None]

    scores = host.score(task, policy, box, OMEGAS, EPISODES, SEED, num_policies=2)
    assert (scores.returns[0] == 1000).all() and (returns[0] == 1000).all()
    assert (scores.returns[1] < 1000).any() and len(np.unique(scores.returns[1])) > 3
    # A step of slack: 32 bits may fall one control step apart. Measured: no difference.
    assert np.abs(scores.returns - returns).max() <= 1
    assert np.abs(scores.steps - steps).max() <= 1


def test_return_stops_at_the_end(mjx_scores):
    returns, steps = mjx_scores
    fell = steps < 1000
    np.testing.assert_array_equal(returns, np.where(fell, steps - 1, steps))  # v5: no pay for falls
    assert fell.any() and returns.dtype == np.float32 and steps.dtype == np.int32


def make_timesteps(terminated, truncated):
    n = len(terminated)
    return Timestep(
        jnp.zeros((n, 4)), jnp.ones(n), jnp.zeros(n), jnp.array(terminated), jnp.array(truncated)
    )


@pytest.mark.parametrize("explore", [False, True])
def test_auto_reset_replaces_ended_rows_only(pendulum, explore):
    task, _ = pendulum
    old = states(np.full((4, 4), 5.0, np.float32), steps=7)
    timesteps = make_timesteps([False, True, False, True], [False, False, True, True])
    with jax.debug_key_reuse(True):
        keys = jax.random.split(jax.random.key(0), 4)
        new = jax.jit(jax.vmap(lambda s, t, k: auto_reset(task, task.model, s, t, k, explore)))(
            old, timesteps, keys
        )
    np.testing.assert_array_equal(new.steps, [7, 0, 0, 0])
    np.testing.assert_array_equal(new.qpos[0], [5, 5])
    fresh = np.abs(np.concatenate([new.qpos, new.qvel], 1)[1:])
    assert (fresh <= (np.array([0.7, 0.05, 0.3, 0.2]) if explore else 0.01)).all()
    assert bool((fresh > 0.01).any()) == explore
    assert len(np.unique(fresh)) == fresh.size


def test_auto_reset_explores_the_rows_asked_for(pendulum):
    task, _ = pendulum
    asked = jnp.arange(40) % 3 == 0
    keys = jax.random.split(jax.random.key(2), 40)
    old, timestep = jax.tree.map(
        lambda x: x[0], (states(np.zeros((1, 4))), make_timesteps([True], [False]))
    )
    new = jax.vmap(lambda k, e: auto_reset(task, task.model, old, timestep, k, e))(keys, asked)
    wide = (np.abs(np.concatenate([new.qpos, new.qvel], 1)) > 0.01).any(1)
    np.testing.assert_array_equal(wide, asked)
