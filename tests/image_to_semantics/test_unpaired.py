# SPDX-License-Identifier: Apache-2.0
"""The baseline without annotations: losses by hand, learned dynamics, a map that is identified."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxsafe import image_to_semantics as i2s
from jaxsafe.envs import host
from jaxsafe.image_to_semantics import unpaired, worlds

CONFIG = i2s.Config(frames=1, latent=2, head_width=16)
HOW = unpaired.Unpaired(discriminator=(16,), dynamics=(16,), dynamics_epochs=1000)


def still(tree, last=0.0):
    """Zero weights, whose output is `last` whatever comes in."""
    blank = jax.tree.map(jnp.zeros_like, tree)
    blank["params"]["Dense_1"]["bias"] += last
    return blank


@pytest.fixture(scope="module")
def parts():
    key = jax.random.key(0)
    state = unpaired.init(key, CONFIG, HOW, 1)
    moves = unpaired.Moves(jnp.zeros((4, 1)), jnp.zeros((4, 1)), jnp.zeros((4, 1)))
    few = unpaired.Unpaired(dynamics=(16,), dynamics_epochs=1)
    return state, unpaired.fit_dynamics(jax.random.key(1), moves, few)


def test_losses_by_hand(parts):
    state, dynamics = parts
    judge = still(state.discriminator, 0.25)
    # Of a source 1 is wanted and of a prediction 0: 0.75^2 + 0.25^2.
    found = unpaired.discriminator_loss(judge, jnp.ones((3, 1)), jnp.zeros((3, 1)), HOW)
    assert found == pytest.approx(0.625)
    source = unpaired.Source(jnp.zeros((4, 1)), still(dynamics, 0.5))
    z = jnp.ones((3, 2))
    same = unpaired.Seen(z, jnp.zeros((3, 1)), z)
    # The model says that all moves by 0.5, and nothing has moved: the cycle is 0.5.
    loss, (cycle, adversary) = unpaired.predictor_loss(
        state.heads, judge, source, same, CONFIG, HOW
    )
    assert cycle == pytest.approx(0.5) and adversary == pytest.approx(0.5625)
    assert loss == pytest.approx(0.5 + 2 * 0.5625)


def test_the_rate_falls_at_each_fifth():
    found = [float(unpaired.rate(jnp.int32(s), 100, HOW)) for s in (0, 19, 20, 99)]
    np.testing.assert_allclose(found, [1e-3, 1e-3, 1e-3 / 3, 1e-3 / 81], rtol=1e-5)


def skewed(number, seed):
    """States on a line that lie low mostly, and where actions in [0, 1] take them."""
    rng = np.random.default_rng(seed)
    before = rng.uniform(size=(number, 1)) ** 3
    action = rng.uniform(size=(number, 1))
    return unpaired.Moves(*map(jnp.float32, (before, action, 0.8 * before + 0.2 * action)))


def test_dynamics_are_learned_and_without_a_label_the_map_is_found():
    """Actions push one way and states lie low, so that one map alone fits."""
    moves = skewed(500, 0)
    dynamics = jax.jit(lambda k, m: unpaired.fit_dynamics(k, m, HOW))(jax.random.key(0), moves)
    fresh = skewed(200, 1)
    found = unpaired.predicted(dynamics, HOW.dynamics, fresh.before, fresh.action)
    np.testing.assert_allclose(found, fresh.after, atol=0.03)
    source = unpaired.Source(moves.before, dynamics)
    seen = lambda s: jnp.concatenate([0.5 - s, s + 1], axis=1)  # noqa: E731

    def one(step, state):
        lr, k = unpaired.rate(step, 3000, HOW), jax.random.fold_in(jax.random.key(3), step)
        first, second = jax.random.split(k)
        rows = jax.random.randint(first, (50,), 0, 200)
        states = moves.before[jax.random.randint(second, (50,), 0, 500)]
        batch = unpaired.Seen(*(x[rows] for x in (seen(fresh.before), fresh.action)), None)
        batch = batch._replace(next_latents=seen(fresh.after)[rows])
        return unpaired.update(state, source, states, batch, lr, CONFIG, HOW)[0]

    start = unpaired.init(jax.random.key(4), CONFIG, HOW, 1)
    end = jax.jit(lambda s: jax.lax.fori_loop(0, 3000, one, s))(start)
    misses = [
        float(
            jnp.abs(unpaired._predict(s.heads, CONFIG, 1, seen(fresh.before)) - fresh.before).mean()
        )
        for s in (start, end)
    ]
    assert misses[1] < 0.06 < misses[0]


def test_source_episodes_are_what_their_actions_make():
    """The same actions in MuJoCo C lead through the same semantics."""
    arm = worlds.make("reacher")
    source = worlds.source_episodes(arm, 2, jax.random.key(0))
    assert source.semantics.shape == (2, 50, 8) and source.alive.all()
    assert not (source.actions[:, 0] != source.actions[:, 9]).any()
    assert (source.actions[:, 9] != source.actions[:, 10]).all()
    qpos, qvel = arm.place(np, np.asarray(source.semantics[0, 0], np.float64))
    model: mujoco.MjModel = arm.task.host.model
    path = host.trajectory(arm.task, model, qpos, qvel, np.asarray(source.actions[0]))
    np.testing.assert_allclose(source.semantics[0, 1:], path.obs, atol=5e-4)
