# SPDX-License-Identifier: Apache-2.0
import base64
import json
import re
import zlib

import mujoco
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import host, html
from jaxsafe.envs.mujoco_tasks import make


def contents(path):
    """What the page holds for its viewer."""
    text = path.read_text(encoding="utf-8")
    packed = re.search(r'var system = "([^"]+)"', text)[1]
    return text, json.loads(zlib.decompress(base64.b64decode(packed)))


@pytest.mark.parametrize("name", ["InvertedPendulum-v5", "Ant-v5"])
def test_a_page_holds_the_system_and_the_path(name, tmp_path):
    task = make(name)
    model = task.host.model
    before = (model.jnt_range.copy(), model.actuator_ctrlrange.copy(), model.opt.timestep)
    qpos, qvel = host.initial_states(task, 1, seed=0)
    actions = np.full((20, task.action_size), 0.5)
    path = host.trajectory(task, model, qpos[0], qvel[0], actions).qpos
    text, system = contents(html.write(tmp_path / "new" / "page.html", task, model, path))
    assert "cdn.jsdelivr.net/gh/google/brax" in text and "<script" in text
    assert sum(map(len, system["geoms"].values())) == model.ngeom
    assert system["opt"]["timestep"] == pytest.approx(
        model.opt.timestep * task.host.spec.frame_skip
    )
    poses = system["states"]["x"]
    assert len(poses) == 20
    data = mujoco.MjData(model)
    data.qpos[:] = path[-1]
    mujoco.mj_kinematics(model, data)
    np.testing.assert_allclose(poses[-1]["pos"], data.xpos[1:], atol=1e-12)
    np.testing.assert_allclose(poses[-1]["rot"], data.xquat[1:], atol=1e-12)
    assert np.ptp([pose["pos"] for pose in poses], axis=0).max() > 1e-3
    after = (model.jnt_range, model.actuator_ctrlrange, model.opt.timestep)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_errors_name_the_shape(tmp_path):
    task = make("InvertedPendulum-v5")
    for shape in ((0, 2), (3, 4), (2,)):
        with pytest.raises(UserError, match=r"qpos has shape .*: give \[T, 2\]"):
            html.write(tmp_path / "page.html", task, task.host.model, np.zeros(shape))
    assert not list(tmp_path.iterdir())
