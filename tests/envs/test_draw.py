# SPDX-License-Identifier: Apache-2.0
"""Outlines of known shapes, the camera, and films that last as long as they should."""

import mujoco
import numpy as np
import pytest
from PIL import Image

from jaxsafe.core.checks import UserError
from jaxsafe.envs import draw, host

from .robots import FAMILIES, world

SHAPES = """
<mujoco><worldbody>
  <geom type="plane" size="5 5 1" pos="0 0 -1"/>
  <body pos="1 0 2"><JOINT/>
    <geom type="capsule" size="0.1 0.5" euler="0 90 0"/>
    <geom type="sphere" size="0.2" pos="0 -1 0"/>
    <geom type="box" size="0.3 0.4 0.5"/>
  </body>
</worldbody></mujoco>
"""


def shapes(joint: str):
    model = mujoco.MjModel.from_xml_string(SHAPES.replace("<JOINT/>", joint))
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return model, data


def test_outlines_from_the_side_are_the_shapes():
    model, data = shapes('<joint type="slide" axis="1 0 0"/>')
    view = draw.view_of(model)
    polygons, depths = draw.outlines(model, data, view)
    spans = [(p.min(0).tolist(), p.max(0).tolist()) for p in polygons]
    np.testing.assert_allclose(spans[0], [(0.4, 1.9), (1.6, 2.1)], atol=1e-6)  # lies along x
    np.testing.assert_allclose(spans[1], [(0.8, 1.8), (1.2, 2.2)], atol=1e-6)
    np.testing.assert_allclose(spans[2], [(0.7, 1.5), (1.3, 2.5)], atol=1e-6)
    np.testing.assert_allclose(depths, [0, 1, 0], atol=1e-6)  # y = -1 is nearer to the eye
    assert len(polygons[2]) == 4 and len(polygons[1]) == 24


def test_robots_in_space_are_seen_from_above_and_aside():
    model, data = shapes("<freejoint/>")
    view = draw.view_of(model)
    np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(view) == pytest.approx(1)
    assert view[1, 2] > 0.8 and view[2, 2] > 0.3  # up is up, and the eye is above
    polygons, _ = draw.outlines(model, data, view)
    np.testing.assert_allclose(np.ptp(polygons[1], 0), [0.4, 0.4], atol=1e-6)  # still a disc
    assert len(polygons[2]) == 6  # three faces of the box are seen


@pytest.mark.parametrize("family", FAMILIES)
def test_every_limb_of_the_robots_is_drawn(family):
    pytest.importorskip("gymnasium", reason="the robots are Gymnasium's")
    model = world(family, "v5")[0].host.model
    floors = (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE).sum()
    assert len(draw.drawn_geoms(model)) == model.ngeom - floors > 2


def test_the_camera_follows_only_what_goes_far():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    for far in (0.5, 10.0):
        places = np.linspace(0, far, 5)
        frames = [([square + np.array([x, 0])], [0]) for x in places]
        roots = np.stack([places, np.zeros(5)], 1)
        centres, low, high = draw._window(frames, roots)
        np.testing.assert_allclose(centres, places if far > 2 else 0)
        assert (low <= [-0.25, -0.25]).all() and high[1] == 1.25
        assert high[0] - low[0] < 4  # and so the robot stays large
        for x, centre in zip(places, centres, strict=True):
            assert centre + low[0] <= x - 0.25 and x + 1.25 <= centre + high[0]


def test_a_film_lasts_as_long_as_its_episode(pendulum, tmp_path):
    task, _ = pendulum
    qpos = np.zeros((40, 2))
    qpos[:, 1] = np.linspace(0, 0.2, 40)
    path = draw.gif(tmp_path / "a" / "film.gif", task, task.host.model, qpos, "title")
    with Image.open(path) as film:
        seconds = film.n_frames * film.info["duration"] / 1000
        first = np.asarray(film.convert("RGB"), int)
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("RGB"), int)
    assert seconds == pytest.approx(40 * 0.04, rel=0.1)
    assert np.abs(last - first)[60:].max() > 100  # below the title something has moved


def test_nothing_to_draw_is_an_error(pendulum, tmp_path):
    task, _ = pendulum
    with pytest.raises(UserError, match="0 frames: nothing to draw"):
        draw.gif(tmp_path / "f.gif", task, task.host.model, np.zeros((0, 2)), "t")
    empty = mujoco.MjModel.from_xml_string("<mujoco/>")
    with pytest.raises(UserError, match="0 geoms"):
        draw.gif(tmp_path / "f.gif", task, empty, np.zeros((1, 0)), "t")
    assert not list(tmp_path.iterdir())


def test_a_walk_is_drawn_with_the_robot_in_sight(tmp_path):
    pytest.importorskip("gymnasium", reason="the robots are Gymnasium's")
    for family in ("HalfCheetah", "Ant"):
        task = world(family, "v5")[0]
        (qpos,), _ = host.initial_states(task, 1, 0)
        walk = np.repeat(qpos[None], 8, 0)
        walk[:, 0] += np.linspace(0, 20, 8)
        path = draw.gif(tmp_path / "w.gif", task, task.host.model, walk, family)
        with Image.open(path) as film:
            for i in range(film.n_frames):
                film.seek(i)
                image = np.asarray(film.convert("RGB"), int)
                coloured = (np.ptp(image, axis=-1) > 60).mean()
                assert coloured > 0.005, (family, i)
