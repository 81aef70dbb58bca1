# SPDX-License-Identifier: Apache-2.0
"""What rewards and observations read of `mjx.Data` beyond positions, as MuJoCo C has it.

MuJoCo refers inertias, velocities and contact forces of a body to its robot's centre of mass. In C
that is the sum of mass times position over the mass at compile time, `body_subtreemass`, which
stays what it is when a mass is changed in place; MJX divides by the sum of the masses. Motion does
not depend on the point chosen, but these arrays do, so they are moved to C's.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_PRIVATE = ("cinert", "cfrc_ext")  # where MJX keeps them
_UPPER = np.triu_indices(3, 1)


def derived_arrays(names: tuple[str, ...], model: Any, data: Any) -> Any:
    """Returns the arrays `names` of `data` by name; `()` where there are none.

    Args:
      names: of `xpos`, `cinert`, `cvel`, `qfrc_actuator` and `cfrc_ext`.
      model: the `mjx.Model` whose masses may have been changed.
      data: the `mjx.Data`, after `com_vel`, and for `cfrc_ext` after `rne_postconstraint`.
    """
    if not names:
        return ()
    move = {"cinert": _move_inertia, "cvel": _move_velocity, "cfrc_ext": _move_force}
    offset = _offset(model, data)
    arrays = {}
    for name in names:
        array = getattr(data._impl if name in _PRIVATE else data, name)
        arrays[name] = jax.vmap(move[name])(array, offset) if name in move else array
    return arrays


def _offset(model: Any, data: Any) -> jax.Array:
    """From MJX's reference point to C's, `[bodies, 3]`."""
    root = np.asarray(model.body_rootid)
    mass = jnp.asarray(root[:, None] == root, model.body_mass.dtype) @ model.body_mass
    ratio = mass / jnp.maximum(model.body_subtreemass[root], 1e-15)
    return data.subtree_com[root] * (ratio - 1)[:, None]


def _move_velocity(velocity: jax.Array, offset: jax.Array) -> jax.Array:
    angular, linear = jnp.split(velocity, 2)
    return jnp.concatenate([angular, linear + jnp.cross(angular, offset)])


def _move_force(force: jax.Array, offset: jax.Array) -> jax.Array:
    torque, push = jnp.split(force, 2)
    return jnp.concatenate([torque - jnp.cross(offset, push), push])


def _move_inertia(inertia: jax.Array, offset: jax.Array) -> jax.Array:
    """Of six second moments, three first ones and the mass: the theorem of parallel axes."""
    first, mass = inertia[6:9], inertia[9]
    cross = jnp.outer(first, offset)
    change = mass * jnp.outer(offset, offset) - cross - cross.T
    second = jnp.trace(change) * jnp.eye(3) - change
    moved = inertia[:6] + jnp.concatenate([jnp.diagonal(second), second[_UPPER]])
    return jnp.concatenate([moved, first - mass * offset, mass[None]])
