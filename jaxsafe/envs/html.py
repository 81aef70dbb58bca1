# SPDX-License-Identifier: Apache-2.0
"""Episodes as pages to look at from all sides, in brax's viewer."""

import copy
import pathlib
import types
import warnings
from typing import Any

import mujoco
import numpy as np
from brax.base import System, Transform
from brax.io import html as viewer
from brax.io import mjcf

from jaxsafe.core.checks import UserError
from jaxsafe.envs.types import Task


def write(path: pathlib.Path, task: Task, model: mujoco.MjModel, qpos: np.ndarray) -> pathlib.Path:
    """Writes a page that plays positions `[T, nq]`, one per control step, in real time.

    The page holds the robot and its path, and loads the viewer's scripts from the network, from
    cdn.jsdelivr.net and unpkg.com: where there is none, it stays empty (`envs.draw` needs none).

    Args:
      path: the file, ending in .html.
      task: a MuJoCo task; gives the control step's length.
      model: the MuJoCo C model whose bodies are shown; it is not changed.
      qpos: positions, as `envs.host.episode` returns them.

    Raises:
      UserError: if `qpos` is not `[T, nq]` with T of one or more.
    """
    qpos = np.asarray(qpos, np.float64)
    if qpos.ndim != 2 or qpos.shape[1] != model.nq or not len(qpos):
        raise UserError(f"qpos has shape {qpos.shape}: give [T, {model.nq}], T of one or more.")
    step_s = model.opt.timestep * task.host.spec.frame_skip
    page = viewer.render(_system(model, step_s), _states(model, qpos), height="100vh", colab=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _system(model: mujoco.MjModel, step_s: float) -> System:
    with warnings.catch_warnings():  # brax warns that its physics is old; none of it runs here.
        warnings.filterwarnings("ignore", "Brax System", UserWarning)
        system: Any = mjcf.load_model(copy.copy(model))  # it writes to the model it is given
    return system.tree_replace({"opt.timestep": step_s})


def _states(model: mujoco.MjModel, qpos: np.ndarray) -> list[Any]:
    """The poses of all bodies but the world; of a state, the viewer reads no more."""
    data, states = mujoco.MjData(model), []
    for row in qpos:
        data.qpos[:] = row
        mujoco.mj_kinematics(model, data)
        pose = Transform(pos=data.xpos[1:].copy(), rot=data.xquat[1:].copy())
        states.append(types.SimpleNamespace(x=pose))
    return states
