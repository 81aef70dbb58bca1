# SPDX-License-Identifier: Apache-2.0
"""Ray-caster scenes drawn by MJX's batch renderer: many images in one call, with shadows.

It is MuJoCo Warp's, and needs the package warp-lang; it is made for CUDA, and draws on a processor
too. Cameras, colours and light are the ray caster's; textures are the model's own, as with
`envs.offscreen`.
"""

import functools
import importlib.util
import warnings

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.envs import mujoco_spec, raycaster, scenes
from jaxsafe.envs.mujoco_spec import MujocoSpec
from jaxsafe.envs.raycaster import Camera, Poses, Scene

_EYE = "jaxsafe_eye"


def check_installed() -> None:
    """Raises `UserError` where warp-lang is missing."""
    if importlib.util.find_spec("warp") is None:
        raise UserError(
            "MJX's batch renderer needs warp-lang, which is not installed: pip install warp-lang, "
            "best with a CUDA GPU, or take the renderer that needs none, raycaster."
        )


class BatchRenderer:
    """Draws `batch` states of one task at once.

    Raises:
      UserError: warp-lang is not installed.
    """

    def __init__(
        self, spec: MujocoSpec, size: tuple[int, int], fovy: float, batch: int, spheres: int = 0
    ):
        """Compiles nothing yet; the first call does, for half a minute.

        Args:
          spec: of the task.
          size: H and W.
          fovy: of all cameras, degrees; it is settled here.
          batch: images of one call.
          spheres: further ones, which a scene has last.
        """
        check_installed()
        from mujoco import mjx

        self._mjx, self.size = mjx, size
        model, self._geoms = _prepared(spec, fovy, spheres)
        self._eye = model.camera(_EYE).id
        self._model = mjx.put_model(model, impl="warp")
        self._blank = jax.vmap(lambda _: mjx.make_data(model, impl="warp"))(jnp.arange(batch))
        self._context = mjx.create_render_context(
            mjm=model,
            nworld=batch,
            cam_res=(size[1], size[0]),
            cam_active=[self._eye],
            render_rgb=True,
            render_depth=False,
            use_shadows=True,
            shadow_light_fraction=0.0,
            enable_specular=False,
            enabled_geom_groups=[0, 1, 2],
        )
        self._draw = jax.jit(jax.vmap(self._one))

    def draw(self, scene: Scene, poses: Poses, camera: Camera) -> jax.Array:
        """Draws `batch` images `[batch, H, W, 3]` uint8; all leaves are `[batch, ...]`.

        Args:
          scene: geoms in the order of `scenes.scene_of`, then further spheres; squares and sky are
            not read.
          poses: of all these.
          camera: whose fovy is not read.
        """
        return self._draw(self._blank, scene, poses, camera)

    def _one(self, data, scene: Scene, poses: Poses, camera: Camera) -> jax.Array:
        model = self._model
        rgba = model.geom_rgba.at[self._geoms, :3].set(scene.colour[:, 0])
        white = jnp.ones((model.nlight, 3))
        lit = model.tree_replace(
            {
                "geom_rgba": rgba,
                "geom_size": model.geom_size.at[self._geoms].set(scene.size),
                "light_ambient": scene.ambient * white,
                "light_diffuse": (1 - scene.ambient) * white,
            }
        )
        light = jnp.broadcast_to(-scene.light, (model.nlight, 3))
        placed = data.tree_replace(
            {
                "geom_xpos": data.geom_xpos.at[self._geoms].set(poses.position),
                "geom_xmat": data.geom_xmat.at[self._geoms].set(poses.rotation),
                "cam_xpos": data.cam_xpos.at[self._eye].set(camera.position),
                "cam_xmat": data.cam_xmat.at[self._eye].set(camera.rotation),
                "_impl.light_xdir": light,
            }
        )
        handle = self._context.pytree()
        placed = self._mjx.refit_bvh(lit, placed, handle)
        packed, _, _ = self._mjx.render(lit, placed, handle)
        return raycaster.to_bytes(self._mjx.get_rgb(handle, 0, packed))


@functools.lru_cache(maxsize=8)
def _prepared(spec: MujocoSpec, fovy: float, spheres: int) -> tuple[mujoco.MjModel, np.ndarray]:
    """The task's model with one eye, one lamp and further spheres, and its visible geoms."""
    with mujoco_spec.quiet_mujoco(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        made = mujoco.MjSpec.from_string(mujoco_spec.mjcf(spec))
        before = made.compile()
        for light in list(made.lights):
            made.delete(light)
        made.visual.headlight.active = 0
        world = made.worldbody
        world.add_camera(name=_EYE, fovy=fovy)
        world.add_light(type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, castshadow=True)
        for _ in range(spheres):
            kind = mujoco.mjtGeom.mjGEOM_SPHERE
            world.add_geom(type=kind, size=[0.05, 0, 0], contype=0, conaffinity=0)
        model = made.compile()
    own = scenes.visible_geoms(before)
    # Those that were added stand behind the world's own geoms, ahead of all other bodies'.
    fixed = int(before.body_geomnum[0])
    moved = np.where(own < fixed, own, own + spheres)
    return model, np.concatenate([moved, fixed + np.arange(spheres)]).astype(int)
