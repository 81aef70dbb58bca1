# SPDX-License-Identifier: Apache-2.0
"""Which point MuJoCo C refers a changed robot's inertias, velocities and forces to."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxsafe.envs.derived import derived_arrays
from jaxsafe.envs.host import initial_states
from jaxsafe.envs.uncertainty import scenario

NAMES = ("xpos", "cinert", "cvel", "cfrc_ext")


def forward(model, qpos, qvel):
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    mujoco.mj_rnePostConstraint(model, data)
    return data


def as_mjx(data):
    """What MJX has after the same step: public arrays, and private ones."""
    private = {n: jnp.asarray(getattr(data, n)) for n in ("cinert", "cfrc_ext")}
    public = {n: jnp.asarray(getattr(data, n)) for n in ("xpos", "cvel", "subtree_com")}
    return SimpleNamespace(_impl=SimpleNamespace(**private), **public)


@pytest.mark.parametrize("name", ["Ant-3", "HumanoidStandup-3"])
def test_arrays_are_moved_from_the_centre_of_mass_to_c_s_point(name):
    """C with its constant made true stands for MJX, which sums the masses itself."""
    task, box = scenario(name)
    model = box.apply_host(task.host.model, np.asarray(box.high))
    qpos, qvel = (x[0] for x in initial_states(task, 1, seed=0))
    qpos[2] = 0.1  # on the floor
    qvel[3:] = np.linspace(-2, 2, len(qvel) - 3)
    stale = forward(model, qpos, qvel)
    assert np.abs(stale.cfrc_ext).max() > 1
    true = box.apply_host(task.host.model, np.asarray(box.high))
    for body in reversed(range(1, true.nbody)):
        own = true.body_mass[body]
        true.body_subtreemass[body] = own + sum(
            true.body_subtreemass[child]
            for child in range(body + 1, true.nbody)
            if true.body_parentid[child] == body
        )
    fresh = forward(true, qpos, qvel)
    np.testing.assert_allclose(fresh.qacc, stale.qacc, rtol=1e-6, atol=1e-6)
    with jax.enable_x64(True):
        like = SimpleNamespace(
            body_rootid=model.body_rootid,
            body_mass=jnp.asarray(model.body_mass),
            body_subtreemass=jnp.asarray(model.body_subtreemass),
        )
        ours = derived_arrays(NAMES, like, as_mjx(fresh))
        for key in NAMES:
            np.testing.assert_allclose(ours[key], getattr(stale, key), rtol=1e-6, atol=1e-6)
    for key in NAMES[1:]:
        assert np.abs(getattr(fresh, key) - getattr(stale, key)).max() > 0.1, key


def test_no_names_are_no_arrays():
    assert derived_arrays((), None, None) == ()
