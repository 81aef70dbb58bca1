# SPDX-License-Identifier: Apache-2.0
"""Images of MuJoCo C states by MuJoCo's own renderer, off screen, where there is OpenGL.

`envs.draw` needs no OpenGL. Here EGL is taken where it is installed, else OSMesa, which draws
without a graphics card; `MUJOCO_GL=egl` or `=osmesa` settles it.
"""

import contextlib
import ctypes.util
import importlib
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import mujoco
import numpy as np
from PIL import Image, ImageDraw

from jaxsafe.core.checks import UserError, check_choice
from jaxsafe.envs.types import Task

# Backends of MuJoCo, the libraries they load, and Debian's packages of these.
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
_PACKAGES = {"egl": "libegl1 and libgl1-mesa-dri", "osmesa": "libosmesa6"}
_SIZE = (480, 360)


def backend(instead: str = "lines") -> str:
    """Returns "egl" or "osmesa": what `MUJOCO_GL` names, or else what is installed.

    Args:
      instead: the renderer without OpenGL that an error tells of.

    Raises:
      UserError: neither is installed, or `MUJOCO_GL` names another backend.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted:
        check_choice("MUJOCO_GL", wanted, _LIBRARIES)
        return wanted
    for name, library in _LIBRARIES.items():
        if ctypes.util.find_library(library):
            return name
    raise UserError(
        "MuJoCo's renderer needs EGL or OSMesa, and neither is installed: apt install libegl1 "
        "libgl1-mesa-dri, or apt install libosmesa6, or take the renderer that needs none, "
        f"{instead}."
    )


@contextlib.contextmanager
def context(name: str, width: int, height: int, instead: str = "lines") -> Iterator[None]:
    """An OpenGL context that is current inside the block; `backend` gives the name.

    Raises:
      UserError: it does not start; the line names the package, and what to take `instead`.
    """
    logging.getLogger("OpenGL").setLevel(logging.WARNING)  # it tells that an accelerator is absent
    try:
        # MuJoCo picks its backend once and for all on import, so this asks for it by name.
        context = importlib.import_module(f"mujoco.{name}").GLContext(width, height)
        context.make_current()
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise UserError(
            f"OpenGL by {name} does not start ({str(error).splitlines()[0]}): apt install "
            f"{_PACKAGES[name]}, or take the renderer that needs none, {instead}."
        ) from error
    try:
        yield
    finally:
        context.free()


def frames(
    model: mujoco.MjModel,
    qpos: Sequence[np.ndarray] | np.ndarray,
    size: tuple[int, int] = _SIZE,
    by: str | None = None,
) -> np.ndarray:
    """Renders positions, seen from the side by a camera that follows the first body.

    Args:
      model: the model.
      qpos: `[T, nq]`.
      size: width and height in pixels, at most the model's `vis.global_.offwidth` and `offheight`.
      by: "egl" or "osmesa", the same throughout a process; `backend()` by default.

    Returns:
      `[T, height, width, 3]` uint8.

    Raises:
      UserError: there is no OpenGL, no frame, or the size is too large.
    """
    width, height = size
    most = model.vis.global_.offwidth, model.vis.global_.offheight
    if not len(qpos) or not 0 < width <= most[0] or not 0 < height <= most[1]:
        raise UserError(
            f"{len(qpos)} frames of {width} x {height} pixels: give at least one frame and at most "
            f"{most[0]} x {most[1]} pixels."
        )
    data, camera = mujoco.MjData(model), _camera(model)
    option, rectangle = mujoco.MjvOption(), mujoco.MjrRect(0, 0, width, height)
    images = np.empty((len(qpos), height, width, 3), np.uint8)
    with context(by or backend(), width, height):
        scene = mujoco.MjvScene(model, maxgeom=1000)
        renderer = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, renderer)
        for image, q in zip(images, qpos, strict=True):
            data.qpos[:] = q
            mujoco.mj_forward(model, data)
            everything = mujoco.mjtCatBit.mjCAT_ALL.value
            mujoco.mjv_updateScene(model, data, option, None, camera, everything, scene)
            mujoco.mjr_render(rectangle, scene, renderer)
            mujoco.mjr_readPixels(image, None, rectangle, renderer)
        renderer.free()
    return images[:, ::-1]  # OpenGL's rows begin at the bottom


def _camera(model: mujoco.MjModel) -> Any:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
    camera.trackbodyid = 1
    camera.distance = 2.2 * _reach(model)
    camera.azimuth, camera.elevation = 90, -12
    return camera


def _reach(model: mujoco.MjModel) -> float:
    """Size of the robot in metres: what its geoms span in its first position, floors apart."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    solid = model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE
    centres, radii = data.geom_xpos[solid], model.geom_rbound[solid, None]
    return float(((centres + radii).max(0) - (centres - radii).min(0)).max())


def gif(
    path: pathlib.Path, task: Task, model: mujoco.MjModel, qpos: np.ndarray, title: str
) -> pathlib.Path:
    """Writes an animation of positions `[T, nq]`, one per control step, at half their rate.

    Args:
      path: the file, ending in .gif.
      task: gives the control step's length.
      model: the model that is drawn.
      qpos: positions.
      title: a line on the picture.

    Raises:
      UserError: as `frames`.
    """
    step_s = model.opt.timestep * task.host.spec.frame_skip
    images = [Image.fromarray(image) for image in frames(model, qpos[::2])]
    for i, image in enumerate(images):
        text = f"{title}, {2 * i * step_s:.2f} s"
        pen = ImageDraw.Draw(image)
        pen.rectangle((0, 0, image.width, 22), fill="#222222")
        pen.text((8, 4), text, fill="white", font_size=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    milliseconds = round(2000 * step_s)
    images[0].save(path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    return path
