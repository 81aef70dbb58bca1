# SPDX-License-Identifier: Apache-2.0
"""Side views of MuJoCo C states as GIFs, drawn by Matplotlib: no GL, no system package."""

import pathlib

import matplotlib.animation as animation
import mujoco
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxsafe.core.checks import UserError
from jaxsafe.envs.types import Task

_COLOURS = ("#4d4d4d", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")


def segments(model: mujoco.MjModel, qpos: np.ndarray) -> np.ndarray:
    """Ends of every capsule in the x-z plane, `[capsules, 2 ends, 2]` in metres, for one qpos."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    capsules = _capsules(model)
    axis = data.geom_xmat[capsules].reshape(-1, 3, 3)[:, :, 2]
    reach = axis * model.geom_size[capsules, 1, None]
    centre = data.geom_xpos[capsules]
    return np.stack([centre - reach, centre + reach], axis=1)[:, :, [0, 2]]


def _capsules(model: mujoco.MjModel) -> np.ndarray:
    return np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)


def gif(
    path: pathlib.Path, task: Task, model: mujoco.MjModel, qpos: np.ndarray, title: str
) -> pathlib.Path:
    """Writes an animation of positions `[T, nq]`, one per control step, at half their rate.

    Args:
      path: the file, ending in .gif.
      task: gives the control step's length.
      model: the model whose geoms are drawn; only capsules are.
      qpos: positions.
      title: a line above the picture.

    Raises:
      UserError: the model has no capsule to draw, or there is no frame.
    """
    capsules = _capsules(model)
    if not len(capsules) or not len(qpos):
        raise UserError(f"{path}: {len(capsules)} capsules and {len(qpos)} frames: nothing to draw")
    frames = np.stack([segments(model, q) for q in qpos[::2]])
    step_s = model.opt.timestep * task.host.spec.frame_skip
    figure = Figure(figsize=(5.0, 3.4), dpi=80, layout="constrained")
    axes = figure.subplots()
    low, high = frames.min((0, 1, 2)) - 0.25, frames.max((0, 1, 2)) + 0.25
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="x (m)", ylabel="z (m)")
    axes.set_aspect("equal")
    lines = _lines(axes, model, capsules)
    clock = axes.set_title(title, fontsize=9)

    def show(i: int) -> list:
        for line, ends in zip(lines, frames[i], strict=True):
            line.set_data(ends[:, 0], ends[:, 1])
        clock.set_text(f"{title}, {2 * i * step_s:.2f} s")
        return [*lines, clock]

    film = animation.FuncAnimation(figure, show, frames=len(frames), blit=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save(path, writer=animation.PillowWriter(fps=round(1 / (2 * step_s))))
    return path


def _lines(axes: Axes, model: mujoco.MjModel, capsules: np.ndarray) -> list:
    """One thick round-capped line per capsule, one colour per body."""
    return [
        axes.plot(
            [],
            [],
            color=_COLOURS[model.geom_bodyid[geom] % len(_COLOURS)],
            linewidth=max(2.0, 90 * model.geom_size[geom, 0]),
            solid_capstyle="round",
        )[0]
        for geom in capsules
    ]
