# SPDX-License-Identifier: Apache-2.0
"""brax's inverted pendulum as a task, against brax itself."""

import brax.envs as theirs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs.brax import adapt
from jaxsafe.envs.rollout import auto_reset
from jaxsafe.envs.types import Leaf
from jaxsafe.envs.uncertainty import make_set

pytestmark = [
    pytest.mark.filterwarnings("ignore:Brax System, piplines:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing `.*` directly from `Data`:DeprecationWarning"),
]
PARAMETERS = {
    "pole_mass": Leaf("link.inertia.mass", (1,), "kg"),
    "cart_mass": Leaf("link.inertia.mass", (0,), "kg"),
    "gravity": Leaf("gravity", (2,), "m/s^2"),
    "damping": Leaf("dof.damping", (None,)),
}
RANGES = {"pole_mass": (1, 31), "gravity": (-15, -5), "damping": (0.5, 2)}


@pytest.fixture(scope="module")
def env():
    return theirs.get_environment("inverted_pendulum", backend="generalized")


@pytest.fixture(scope="module")
def task(env):
    return adapt(env, PARAMETERS, obs_scale=(4, 20, 2, 3), max_episode_steps=7)


@pytest.fixture(scope="module")
def step(task):
    return jax.jit(task.step)


@pytest.fixture(scope="module")
def start(task):
    return jax.jit(task.reset)(task.model, jax.random.key(3))


def test_reset_and_steps_equal_brax_at_nominal(env, task, step, start):
    state, ours = jax.jit(env.reset)(jax.random.PRNGKey(3)), start
    np.testing.assert_array_equal(task.observe(task.model, ours), state.obs)
    own = jax.jit(env.step)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 1)).astype(np.float32):
        state = own(state, jnp.asarray(action))
        ours, timestep = step(task.model, ours, jnp.asarray(action))
        np.testing.assert_allclose(timestep.obs, state.obs, atol=1e-5)
        assert timestep.reward == state.reward and timestep.terminated == (state.done > 0.5)
        np.testing.assert_array_equal(task.observe(task.model, ours), timestep.obs)
    assert np.abs(timestep.obs).max() > 0.1


def test_typed_and_old_keys_give_the_same_start(task, start):
    old = task.reset(task.model, jax.random.PRNGKey(3))
    np.testing.assert_allclose(old.inner.obs, start.inner.obs, atol=1e-7)
    other = task.reset(task.model, jax.random.key(4))
    assert not np.allclose(other.inner.obs, start.inner.obs, atol=1e-4)


def test_every_parameter_changes_the_rollout(env, task, step, start):
    assert PARAMETERS.keys() == task.parameters.keys()
    nominal = step(task.model, start, jnp.ones(1))[1].obs
    for name in PARAMETERS:
        box = make_set(task, {name: (-100, 100)})
        model = box.apply(task.model, 1.2 * box.nominal(task.model))
        changed = step(model, start, jnp.ones(1))[1].obs
        assert np.abs(changed - nominal).max() > 1e-4, name
    again = step(task.model, start, jnp.ones(1))[1].obs
    np.testing.assert_array_equal(nominal, again)
    np.testing.assert_array_equal(env.sys.link.inertia.mass, task.model.link.inertia.mass)


def test_batched_rows_step_as_their_own_models(task, step, start):
    box = make_set(task, RANGES)
    omegas = box.sample(jax.random.key(5), (16,))
    models, axes = box.batched(task.model, omegas)
    assert models.link.inertia.mass.shape == (16, 2) and models.link.invweight.shape == (2,)
    rows = jax.jit(jax.vmap(task.step, in_axes=(axes, None, None)))
    _, timestep = rows(models, start, jnp.ones(1))
    for row in (0, 7, 15):
        alone = step(box.apply(task.model, omegas[row]), start, jnp.ones(1))[1].obs
        np.testing.assert_allclose(timestep.obs[row], alone, rtol=1e-4, atol=1e-5)
    assert len(np.unique(timestep.obs[:, 3])) == 16


def test_done_terminates_and_the_given_length_truncates(task, step, start):
    state = start
    for count in range(1, 8):
        state, timestep = step(task.model, state, jnp.zeros(1))
        assert timestep.truncated == (count == 7) and not timestep.terminated
    q = start.inner.pipeline_state.q.at[1].set(0.3)
    fallen = start.replace(
        inner=start.inner.replace(pipeline_state=start.inner.pipeline_state.replace(q=q))
    )
    state, timestep = step(task.model, fallen, jnp.zeros(1))
    assert timestep.terminated and not timestep.truncated
    fresh = auto_reset(task, task.model, state, timestep, jax.random.key(0))
    assert fresh.steps == 0 and abs(fresh.inner.obs[1]) < 0.01


def test_actions_are_clipped(task, step, start):
    far, limit = (step(task.model, start, jnp.array([u]))[1].obs for u in (9.0, 1.0))
    np.testing.assert_array_equal(far, limit)
    np.testing.assert_array_equal([task.action_low, task.action_high], [[-1], [1]])


@pytest.mark.parametrize("backend", ["generalized", "spring", "positional", "mjx"])
def test_state_keeps_its_types_so_that_it_can_be_a_scan_carry(backend):
    own = adapt(theirs.get_environment("inverted_pendulum", backend=backend), {})
    state = jax.eval_shape(own.reset, own.model, jax.random.key(0))
    after, timestep = jax.eval_shape(own.step, own.model, state, jnp.zeros(1))
    kinds = [[(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(y)] for y in (state, after)]
    assert kinds[0] == kinds[1] and jax.tree.structure(state) == jax.tree.structure(after)
    assert timestep.obs.shape == (own.obs_size,) == own.obs_scale.shape == (4,)
    assert own.max_episode_steps == 1000 and own.host is None
    assert own.name == f"InvertedPendulum-{backend}"


def test_errors_name_the_value_and_the_fix(env):
    with pytest.raises(UserError, match="env=EpisodeWrapper is no bare PipelineEnv"):
        adapt(theirs.training.EpisodeWrapper(env, 5, 1), {})
    with pytest.raises(
        UserError, match=r"obs_scale has shape \(3,\): give one factor for each of 4"
    ):
        adapt(env, {}, obs_scale=(1, 1, 1))
    with pytest.raises(UserError, match="max_episode_steps=0 is out of range"):
        adapt(env, {}, max_episode_steps=0)
    for leaf in (Leaf("link.mass", (0,)), Leaf("gravity", ())):
        with pytest.raises(UserError, match=r"mass: .* fits no array of InvertedPendulum's"):
            adapt(env, {"mass": leaf})
