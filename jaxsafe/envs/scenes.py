# SPDX-License-Identifier: Apache-2.0
"""MuJoCo models as scenes of the ray caster: geoms, poses and cameras."""

import jax.numpy as jnp
import mujoco
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.envs.raycaster import KINDS, Camera, Poses, Scene

_GEOM = mujoco.mjtGeom
_OF_MUJOCO = {
    int(_GEOM.mjGEOM_PLANE): "plane",
    int(_GEOM.mjGEOM_SPHERE): "sphere",
    int(_GEOM.mjGEOM_CAPSULE): "capsule",
    int(_GEOM.mjGEOM_BOX): "box",
}


def visible_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Indices of the geoms that are drawn: of groups 0 to 2 and not transparent, `[G]`.

    Raises:
      UserError: one of them is of a kind that rays are not cast at.
    """
    seen = (model.geom_group <= 2) & (model.geom_rgba[:, 3] > 0)
    for g in np.flatnonzero(seen):
        if int(model.geom_type[g]) not in _OF_MUJOCO:
            kind = _GEOM(int(model.geom_type[g])).name
            raise UserError(f"geom {g} is a {kind}: the ray caster draws {', '.join(KINDS)}.")
    return np.flatnonzero(seen)


def scene_of(model: mujoco.MjModel, square: float = 0.0, dark: float = 0.7) -> Scene:
    """Returns the scene of a MuJoCo model, with its colours, a checker on planes and a plain sky.

    Args:
      model: whose `visible_geoms` are drawn.
      square: side of the squares on planes, metres; 0 for none. MuJoCo's textures are not read.
      dark: brightness of each second square, as a share of the others'.

    Raises:
      UserError: as `visible_geoms`.
    """
    geoms = visible_geoms(model)
    kinds = tuple(_OF_MUJOCO[int(kind)] for kind in model.geom_type[geoms])
    colour = np.repeat(model.geom_rgba[geoms, None, :3], 2, axis=1)
    planes = np.array([kind == "plane" for kind in kinds])
    colour[planes, 1] *= dark
    light = np.array([0.3, -0.4, 0.87])
    return Scene(
        kinds=kinds,
        size=jnp.asarray(model.geom_size[geoms], jnp.float32),
        colour=jnp.asarray(colour, jnp.float32),
        square=jnp.asarray(np.where(planes, square, 0.0), jnp.float32),
        light=jnp.asarray(light / np.linalg.norm(light), jnp.float32),
        ambient=jnp.float32(0.4),
        sky=jnp.array([[0.75, 0.82, 0.9], [0.45, 0.6, 0.8]], jnp.float32),
    )


def poses_of(data: mujoco.MjData, geoms: np.ndarray) -> Poses:
    """Returns where geoms `[G]` are, as NumPy arrays, after `mj_kinematics`."""
    rotation = data.geom_xmat[geoms].reshape(-1, 3, 3)
    return Poses(data.geom_xpos[geoms].astype(np.float32), rotation.astype(np.float32))


def camera_of(model: mujoco.MjModel, data: mujoco.MjData, name: str) -> Camera:
    """Returns a named camera of the model where `mj_forward` has put it.

    Raises:
      UserError: there is no such camera.
    """
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if index < 0:
        names = ", ".join(model.camera(i).name for i in range(model.ncam)) or "none"
        raise UserError(f"camera={name!r} is unknown: the model has {names}.")
    return Camera(
        position=jnp.asarray(data.cam_xpos[index], jnp.float32),
        rotation=jnp.asarray(data.cam_xmat[index].reshape(3, 3), jnp.float32),
        fovy=jnp.float32(model.cam_fovy[index]),
    )
