# SPDX-License-Identifier: Apache-2.0
"""MuJoCo's renderer where there is OpenGL, and one line that names the package where not."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxsafe.core.checks import UserError
from jaxsafe.envs import render

# OpenGL's platform is settled once per process, so each backend gets one of its own.
SCRIPT = """
import pathlib, sys
import numpy as np
from jaxsafe.core.checks import UserError
from jaxsafe.envs import render
from jaxsafe.envs.mujoco_tasks import make

task = make("InvertedPendulum-v5")
qpos = np.array([[0.0, 0.0]] * 4 + [[0.0, 1.2]] * 2)
try:
    images = render.frames(task.host.model, qpos, (120, 90), sys.argv[2])
except UserError as error:
    sys.exit(f"error: {error}")
np.save(sys.argv[1] + "/images.npy", images)
if sys.argv[2] == render.backend():
    render.gif(pathlib.Path(sys.argv[1]) / "film.gif", task, task.host.model, qpos, "title")
"""


@pytest.mark.parametrize(("backend", "package"), [("egl", "libegl1"), ("osmesa", "libosmesa6")])
def test_frames_show_the_robot_or_the_error_names_the_package(backend, package, tmp_path):
    names = ("MUJOCO_GL", "PYOPENGL_PLATFORM")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), backend],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert f"OpenGL by {backend} does not start" in done.stderr and package in done.stderr
        assert not list(tmp_path.iterdir())
        pytest.skip(f"no {backend} here: {done.stderr.strip()}")
    images = np.load(tmp_path / "images.npy").astype(int)
    assert images.shape == (6, 90, 120, 3)
    np.testing.assert_array_equal(images[0], images[1])
    lit = images[0].max(-1) > 40
    rows, columns = np.nonzero(lit)
    # The upright pole stands above the cart and its rail, in the middle of the picture.
    assert abs(columns[rows == rows.min()].mean() - 60) < 4 and 10 < rows.min() < 40
    assert np.ptp(columns[rows == rows.max()]) < 60 and (images[5] != images[0]).any()
    if (tmp_path / "film.gif").exists():
        with Image.open(tmp_path / "film.gif") as film:
            # Every second step, 0.08 s apart; equal pictures may be one frame of double length.
            assert film.size == (480, 360) and film.info["duration"] % 80 == 0


def test_without_libraries_the_error_is_one_line_that_names_them(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(render.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(UserError, match=r"libegl1 libgl1-mesa-dri.*libosmesa6.*lines") as error:
        render.backend()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("present, expected", [("EGL", "egl"), ("OSMesa", "osmesa")])
def test_the_backend_is_what_is_installed(monkeypatch, present, expected):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(
        render.ctypes.util, "find_library", lambda name: "found" if name == present else None
    )
    assert render.backend() == expected
    monkeypatch.setenv("MUJOCO_GL", "OSMesa")
    assert render.backend() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(UserError, match=r"MUJOCO_GL='glfw' is unknown.*egl, osmesa"):
        render.backend()


@pytest.mark.parametrize("kind", [ImportError, AttributeError, OSError, RuntimeError])
def test_a_library_that_does_not_start_is_named(monkeypatch, pendulum, kind):
    def fail(name):
        raise kind(f"{name} is broken\nin detail")

    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(render.importlib, "import_module", fail)
    with pytest.raises(UserError, match=r"osmesa does not start \(mujoco.osmesa is broken\).*libo"):
        render.frames(pendulum[0].host.model, np.zeros((1, 2)))


@pytest.mark.parametrize(("count", "size"), [(0, (64, 64)), (1, (10_000, 64)), (1, (64, 0))])
def test_bad_sizes(pendulum, count, size):
    with pytest.raises(UserError, match=r"give at least one frame and at most 640 x 480 pixels"):
        render.frames(pendulum[0].host.model, np.zeros((count, 2)), size)
