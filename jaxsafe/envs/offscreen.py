# SPDX-License-Identifier: Apache-2.0
"""Ray-caster scenes drawn by MuJoCo's own renderer: the same camera, colours and light, by OpenGL.

It adds what the ray caster lacks: shadows, and the model's own textures and headlight-free shading
by the graphics library. Shadow maps are small and pixels sampled once, a fifteenth of the cost of
MuJoCo's defaults at 64 x 64 (papers' page, section 11).
"""

import contextlib
import copy

import jax
import mujoco
import numpy as np

from jaxsafe.envs import render, scenes
from jaxsafe.envs.raycaster import Camera, Scene

_SHADOWS = 512  # rows and columns of the shadow map
_NEAR, _FAR = 0.05, 60.0  # metres from the eye


class Offscreen:
    """Draws states of one model; holds an OpenGL context, so call `close` at the end.

    Raises:
      UserError: OpenGL is missing; the line names the package that brings it.
    """

    def __init__(self, model: mujoco.MjModel, size: tuple[int, int], by: str | None = None):
        model = copy.copy(model)
        model.vis.quality.shadowsize, model.vis.quality.offsamples = _SHADOWS, 0
        model.vis.global_.offheight = max(size[0], model.vis.global_.offheight)
        model.vis.global_.offwidth = max(size[1], model.vis.global_.offwidth)
        self._model, self._data, self._size = model, mujoco.MjData(model), size
        self._places = {int(g): i for i, g in enumerate(scenes.visible_geoms(model))}
        self._stack = contextlib.ExitStack()
        name = by or render.backend("raycaster")
        self._stack.enter_context(render.context(name, size[1], size[0], "raycaster"))
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        self._stack.callback(self._context.free)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)

    def draw(
        self, qpos: np.ndarray, scene: Scene, camera: Camera, extra: np.ndarray | None = None
    ) -> np.ndarray:
        """Draws one state, `[H, W, 3]` uint8.

        Args:
          qpos: `[nq]`.
          scene: as `scenes.scene_of` makes it of the model, with colours and light to one's taste,
            and further spheres last; squares and sky are not read.
          camera: the eye.
          extra: `[n, 3]`, where these spheres are.
        """
        self._look(qpos, scene, camera, extra)
        return self._read()

    def segment(self, qpos: np.ndarray, scene: Scene, camera: Camera) -> np.ndarray:
        """Tells which of `scenes.visible_geoms` each pixel shows, `[H, W]`; -1 is none."""
        self._look(qpos, scene, camera, None)
        flags, which = self._scene.flags, mujoco.mjtRndFlag
        before = flags.copy()
        flags[which.mjRND_SEGMENT], flags[which.mjRND_IDCOLOR] = True, True
        pixels = self._read().astype(np.int64)
        flags[:] = before
        number = (pixels * [1, 256, 65536]).sum(-1) - 1
        by_segment = np.full(max(number.max(), 0) + 2, -1)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.segid < len(by_segment) - 1:
                by_segment[geom.segid] = self._places.get(geom.objid, -1)
        return by_segment[number]  # the last entry, -1, is that of pixels that show nothing

    def _look(
        self, qpos: np.ndarray, scene: Scene, camera: Camera, extra: np.ndarray | None
    ) -> None:
        """Lays the scene out: geoms and their colours, light and eye."""
        scene, camera = jax.tree.map(np.asarray, (scene, camera))
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        eye, option = mujoco.MjvCamera(), mujoco.MjvOption()
        mujoco.mjv_updateScene(self._model, self._data, option, None, eye, everything, self._scene)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.objid in self._places:
                geom.rgba[:3] = scene.colour[self._places[geom.objid], 0]
        for i, place in enumerate([] if extra is None else extra):
            self._add_sphere(scene, len(self._places) + i, place)
        self._light(scene)
        self._aim(camera)

    def _add_sphere(self, scene: Scene, index: int, place: np.ndarray) -> None:
        geom = self._scene.geoms[self._scene.ngeom]
        size, turn = np.asarray(scene.size[index], np.float64), np.eye(3).reshape(-1)
        rgba = np.append(scene.colour[index, 0], 1.0).astype(np.float32)
        kind = mujoco.mjtGeom.mjGEOM_SPHERE.value
        mujoco.mjv_initGeom(geom, kind, size, np.asarray(place, np.float64), turn, rgba)
        self._scene.ngeom += 1

    def _light(self, scene: Scene) -> None:
        """Light from all around, and from afar with a shadow, in the ray caster's proportion."""
        # A light that casts a shadow gives what lies in it no ambient light either: hence two.
        self._scene.nlight = 2
        for light, shadow in zip(self._scene.lights, (0, 1), strict=False):
            light.pos[:] = np.asarray(self._model.stat.center) * [1, 1, 0] + 3.0 * scene.light
            light.dir[:] = -scene.light
            light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL.value
            light.ambient[:] = 0.0 if shadow else scene.ambient
            light.diffuse[:] = 1 - scene.ambient if shadow else 0.0
            light.specular[:] = 0.0
            light.headlight, light.castshadow = 0, shadow

    def _aim(self, camera: Camera) -> None:
        """Puts both of the renderer's eyes, whose mean it takes, where the camera is."""
        top = _NEAR * np.tan(np.deg2rad(camera.fovy) / 2)
        for eye in self._scene.camera:
            eye.pos[:] = camera.position
            eye.forward[:], eye.up[:] = -camera.rotation[:, 2], camera.rotation[:, 1]
            eye.frustum_center, eye.frustum_bottom, eye.frustum_top = 0.0, -top, top
            eye.frustum_near, eye.frustum_far = _NEAR, _FAR
            eye.frustum_width = top * self._size[1] / self._size[0]
            eye.orthographic = 0

    def _read(self) -> np.ndarray:
        rectangle = mujoco.MjrRect(0, 0, self._size[1], self._size[0])
        image = np.empty((*self._size, 3), np.uint8)
        mujoco.mjr_render(rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, rectangle, self._context)
        return image[::-1]  # OpenGL's rows begin at the bottom

    def close(self) -> None:
        """Gives the OpenGL context back."""
        self._stack.close()
