# SPDX-License-Identifier: Apache-2.0
"""Films of MuJoCo C states as GIFs, drawn by Matplotlib: no GL, no system package.

Capsules, spheres and boxes are drawn as their outlines, far ones first. Planar robots are seen
from the side; robots that move in space from above and aside, over a floor with lines 1 m apart.
"""

import pathlib

import mujoco
import numpy as np
from scipy.spatial import ConvexHull

from jaxsafe.core import plots
from jaxsafe.core.checks import UserError
from jaxsafe.envs.types import Task

_COLOURS = ("#4d4d4d", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
_GEOM = mujoco.mjtGeom
_SHAPES = (_GEOM.mjGEOM_CAPSULE, _GEOM.mjGEOM_SPHERE, _GEOM.mjGEOM_BOX)
_SIDE = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])  # rows: right, up, towards the eye
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CORNERS = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T


def drawn_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Indices of the geoms that are drawn; floors are not among them."""
    return np.flatnonzero(np.isin(model.geom_type, _SHAPES))


def view_of(model: mujoco.MjModel) -> np.ndarray:
    """The camera's axes, `[3, 3]`: rows point right, up and towards the eye."""
    if not (model.jnt_type == mujoco.mjtJoint.mjJNT_FREE).any():
        return _SIDE
    turn, lift = np.deg2rad([30, 25])
    across = np.array(
        [[np.cos(turn), np.sin(turn), 0], [0, 0, 1], [np.sin(turn), -np.cos(turn), 0]]
    )
    tilt = [[1, 0, 0], [0, np.cos(lift), -np.sin(lift)], [0, np.sin(lift), np.cos(lift)]]
    return np.array(tilt) @ across


def outlines(
    model: mujoco.MjModel, data: mujoco.MjData, view: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Outlines of the geoms in `drawn_geoms`, after `mj_kinematics`.

    Args:
      model: the model.
      data: its state.
      view: `[3, 3]` from `view_of`.

    Returns:
      `(polygons, depths)`: one `[corners, 2]` per geom, in metres right and up, and how near to
      the eye each geom's centre is, `[geoms]`.
    """
    polygons, depths = [], []
    for geom in drawn_geoms(model):
        size, centre = model.geom_size[geom], data.geom_xpos[geom]
        axes = data.geom_xmat[geom].reshape(3, 3)
        kind, radius = model.geom_type[geom], 0.0
        if kind == _GEOM.mjGEOM_BOX:
            points = _CORNERS * size
        else:  # A sphere is a capsule of no length, and a capsule the hull of two spheres.
            half, radius = (size[1] if kind == _GEOM.mjGEOM_CAPSULE else 0.0), size[0]
            points = np.array([[0, 0, -half], [0, 0, half]])
        flat = ((centre + points @ axes.T) @ view.T)[:, :2]
        if radius:
            disc = radius * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
            flat = (flat[:, None] + disc).reshape(-1, 2)
        polygons.append(flat[ConvexHull(flat).vertices])
        depths.append(centre @ view[2])
    return polygons, np.array(depths)


def gif(
    path: pathlib.Path, task: Task, model: mujoco.MjModel, qpos: np.ndarray, title: str
) -> pathlib.Path:
    """Writes an animation of positions `[T, nq]`, one per control step, at half their rate.

    The camera follows the first body sideways where it goes far.

    Args:
      path: the file, ending in .gif.
      task: gives the control step's length.
      model: the model whose geoms are drawn.
      qpos: positions.
      title: a line above the picture.

    Raises:
      UserError: the model has no geom to draw, or there is no frame.
    """
    from matplotlib import animation
    from matplotlib.collections import PolyCollection

    geoms, view = drawn_geoms(model), view_of(model)
    if not len(geoms) or not len(qpos):
        raise UserError(f"{path}: {len(geoms)} geoms and {len(qpos)} frames: nothing to draw.")
    frames, roots = _frames(model, qpos[::2], view)
    step_s = model.opt.timestep * task.host.spec.frame_skip
    figure = plots.new_figure((5.0, 3.4), dpi=80)
    axes = figure.subplots()
    centres, low, high = _window(frames, roots)
    axes.set(xlabel="x (m)", ylabel="z (m)", ylim=(low[1], high[1]), facecolor="#f7f7f7")
    axes.set_aspect("equal")
    if view is not _SIDE:
        axes.set(xlabel="lines on the floor: 1 m apart", ylabel="", xticks=[], yticks=[])
    _floor(axes, model, view, roots)
    shapes = PolyCollection([], edgecolors="white", linewidths=0.6)
    axes.add_collection(shapes)
    colours = [_COLOURS[b % len(_COLOURS)] for b in model.geom_bodyid[geoms]]
    heading = axes.set_title(title, fontsize=9)

    def show(i: int) -> list:
        polygons, order = frames[i]
        shapes.set_verts([polygons[k] for k in order])
        shapes.set_facecolor([colours[k] for k in order])
        axes.set_xlim(centres[i] + low[0], centres[i] + high[0])
        heading.set_text(f"{title}, {2 * i * step_s:.2f} s")
        return [shapes, heading]

    film = animation.FuncAnimation(figure, show, frames=len(frames), blit=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save(path, writer=animation.PillowWriter(fps=round(1 / (2 * step_s))))
    return path


def _frames(model: mujoco.MjModel, qpos: np.ndarray, view: np.ndarray) -> tuple[list, np.ndarray]:
    """Each frame's polygons and their order, far ones first; the first body's places `[T, 2]`."""
    data = mujoco.MjData(model)
    frames, roots = [], []
    for q in qpos:
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        polygons, depths = outlines(model, data, view)
        frames.append((polygons, np.argsort(depths, kind="stable")))
        roots.append(view[:2] @ data.xpos[1])
    return frames, np.array(roots)


def _window(frames: list, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the camera looks in each frame, `[T]`, and the corners `[2]` of what it sees."""
    corners = [np.concatenate(polygons) for polygons, _ in frames]
    low = np.array([c.min(0) for c in corners])
    high = np.array([c.max(0) for c in corners])
    width = (high - low)[:, 0].max()
    centres = roots[:, 0] * (np.ptp(roots[:, 0]) > 2 * width)
    low[:, 0] -= centres
    high[:, 0] -= centres
    low, high = low.min(0) - 0.25, high.max(0) + 0.25
    # A slim robot gets a wide picture all the same.
    spare = max(0.0, 1.4 * (high[1] - low[1]) - (high[0] - low[0]))
    sides = np.array([spare / 2, 0.0])
    return centres, low - sides, high + sides


def _floor(axes, model: mujoco.MjModel, view: np.ndarray, roots: np.ndarray) -> None:
    """Draws the floor's edge from the side, or lines on it 1 m apart as far as the robot goes."""
    from matplotlib.collections import LineCollection

    planes = np.flatnonzero(model.geom_type == _GEOM.mjGEOM_PLANE)
    if not len(planes):
        return
    height = model.geom_pos[planes[0], 2]
    if view is _SIDE:
        axes.axhline(height, color="#777777", linewidth=1.5, zorder=0)
        return
    reach = np.arange(-12, 13) + np.round(roots.mean(0)[0])
    far = reach[[0, -1]]
    along = [[(x, far[0], height), (x, far[1], height)] for x in reach]
    across = [[(far[0], y, height), (far[1], y, height)] for y in reach]
    lines = np.array(along + across) @ view[:2].T
    axes.add_collection(LineCollection(list(lines), colors="#dddddd", linewidths=0.8, zorder=0))
