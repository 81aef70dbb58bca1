# SPDX-License-Identifier: Apache-2.0
"""Thousands of different models in one MJX batch, of which only the changed arrays are many."""

import jax
import jax.numpy as jnp
import numpy as np

MODELS = 4096


def test_each_of_thousands_of_rows_steps_as_its_own_model(pendulum, compiled_step):
    task, box = pendulum
    keys = jax.random.split(jax.random.key(7), 3)
    omegas = box.sample(keys[0], (MODELS,))
    models, axes = box.batched(task.model, omegas)
    state = jax.vmap(task.reset, in_axes=(None, 0))(task.model, jax.random.split(keys[1], MODELS))
    actions = jax.random.uniform(keys[2], (MODELS, 1), minval=-3, maxval=3)
    after, timestep = jax.jit(jax.vmap(task.step, in_axes=(axes, 0, 0)))(models, state, actions)
    assert len(np.unique(models.body_mass, axis=0)) == MODELS
    shared = [leaf for leaf in jax.tree.leaves(models) if leaf is not models.body_mass]
    assert sum(leaf.nbytes for leaf in shared) == sum(
        leaf.nbytes for leaf in jax.tree.leaves(task.model) if leaf is not task.model.body_mass
    )
    for row in (0, 1, 1000, 2047, 2048, 3333, MODELS - 1):
        own = box.apply(task.model, omegas[row])
        pick = lambda x, row=row: x[row]  # noqa: E731
        alone, ours = compiled_step(own, jax.tree.map(pick, state), actions[row])
        # Rounding alone.
        np.testing.assert_allclose(after.qpos[row], alone.qpos, atol=3e-6, rtol=1e-5)
        np.testing.assert_allclose(after.qvel[row], alone.qvel, atol=3e-6, rtol=1e-5)
        np.testing.assert_array_equal(timestep.terminated[row], ours.terminated)
    # A row does not see the others: the rows differ as their models do.
    assert jnp.ptp(after.qvel[:, 0]) > 1
