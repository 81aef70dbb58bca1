# SPDX-License-Identifier: Apache-2.0
"""The ray caster: silhouettes in closed form, a golden image, and MuJoCo's renderer."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import raycaster, reacher, scenes

TURN = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # a quarter turn about y: z becomes x


def scene(kind, size, square=0.0):
    return raycaster.Scene(
        kinds=(kind,),
        size=jnp.array([size], jnp.float32),
        colour=jnp.array([[[1.0, 0, 0], [0, 0, 1.0]]]),
        square=jnp.array([square]),
        light=jnp.array([0.0, 0, 1]),
        ambient=jnp.float32(0.25),
        sky=jnp.array([[0.0, 1, 0], [0.0, 1, 0]]),
    )


def at(position=(0.0, 0, 0), rotation=None):
    turn = np.eye(3) if rotation is None else rotation
    return raycaster.Poses(jnp.array([position], jnp.float32), jnp.array([turn], jnp.float32))


def above(height=4.0, fovy=45.0):
    return raycaster.Camera(jnp.array([0.0, 0, height]), jnp.eye(3), jnp.float32(fovy))


def places(size, height=4.0, fovy=45.0):
    """x and y per metre of depth of each pixel's ray from `above`."""
    half = np.tan(np.deg2rad(fovy) / 2)
    steps = (2 * np.arange(size) + 1) / size - 1
    return half * steps[None, :], -half * steps[:, None]


def test_a_sphere_is_a_disc_of_the_tangent_cone():
    seen = np.asarray(raycaster.segment(scene("sphere", (0.8, 0, 0)), at(), above(), (96, 96)))
    x, y = places(96)
    # Rays within the tangent cone, whose half angle has the sine r / d.
    expected = np.hypot(x, y) <= np.tan(np.arcsin(0.8 / 4.0))
    assert (seen == 0).sum() == pytest.approx(expected.sum(), abs=2)
    assert ((seen == 0) != expected).sum() <= 4


def test_a_box_shows_its_face():
    seen = raycaster.segment(scene("box", (0.5, 0.9, 0.3)), at(), above(), (96, 96))
    x, y = places(96)
    expected = (np.abs(x * 3.7) <= 0.5) & (np.abs(y * 3.7) <= 0.9)
    np.testing.assert_array_equal(np.asarray(seen) == 0, expected)


def test_a_lying_capsule_is_a_band_with_round_ends():
    thin = scene("capsule", (0.3, 0.8, 0))
    seen = np.asarray(raycaster.segment(thin, at(rotation=TURN), above(100.0, 2.0), (96, 96))) == 0
    x, y = (100 * v for v in places(96, fovy=2.0))
    # From far away the outline is that of points within the radius of a line.
    outside = np.hypot(np.maximum(np.abs(x) - 0.8, 0), y)
    assert (seen == (outside <= 0.3)).mean() > 0.997
    ends = np.abs(x) > 0.8
    assert (seen & ends).sum() > 100


def test_a_capsule_seen_from_its_end_is_its_cap():
    seen = raycaster.segment(scene("capsule", (0.8, 0.5, 0)), at((0, 0, -0.5)), above(), (64, 64))
    sphere = raycaster.segment(scene("sphere", (0.8, 0, 0)), at(), above(), (64, 64))
    np.testing.assert_array_equal(seen, sphere)


def test_a_plane_has_squares_ends_and_no_underside():
    floor = scene("plane", (1.0, 0.75, 0.1), square=0.5)
    image = np.asarray(raycaster.render(floor, at(), above(), (96, 96)))
    x, y = (4 * v for v in places(96))
    inside = (np.abs(x) <= 1.0) & (np.abs(y) <= 0.75)
    odd = (np.floor(x / 0.5) + np.floor(y / 0.5)) % 2 == 1
    # The light stands above, so every square has its whole colour; the sky is green.
    expected = np.where(odd[..., None], [0.0, 0, 1], [1.0, 0, 0])
    expected = np.where(inside[..., None], expected, [0.0, 1, 0])
    np.testing.assert_allclose(image, expected, atol=1e-6)
    endless = raycaster.segment(scene("plane", (0, 0, 0.1)), at(), above(), (8, 8))
    assert (np.asarray(endless) == 0).all()
    below = raycaster.Camera(jnp.array([0.0, 0, -4]), jnp.diag(jnp.array([1.0, -1, -1])), 45.0)
    assert (np.asarray(raycaster.segment(floor, at(), below, (8, 8))) == -1).all()


def test_shading_is_lamberts():
    """On a ball under its light: ambient 0.25, and 0.75 times the normal's height."""
    ball = scene("sphere", (0.8, 0, 0))
    image = np.asarray(raycaster.render(ball, at(), above(100.0, 1.2), (65, 65)))
    x, y = (100 * v for v in places(65, fovy=1.2))
    far = np.hypot(x, y)
    height = np.sqrt(np.maximum(1 - (far / 0.8) ** 2, 0))
    inner = far < 0.75
    np.testing.assert_allclose(image[..., 0][inner], (0.25 + 0.75 * height)[inner], atol=0.02)


def test_the_nearer_geom_hides_the_farther():
    two = raycaster.Scene(
        ("sphere", "box"),
        jnp.array([[0.5, 0, 0], [0.4, 0.4, 0.4]]),
        jnp.ones((2, 2, 3)),
        jnp.zeros(2),
        jnp.array([0.0, 0, 1]),
        jnp.float32(0.0),
        jnp.zeros((2, 3)),
    )
    for heights, front in (((0.0, 1.0), 1), ((1.5, 0.0), 0)):
        positions = jnp.stack([jnp.array([0.0, 0, h]) for h in heights])
        poses = raycaster.Poses(positions, jnp.stack([jnp.eye(3)] * 2))
        assert raycaster.segment(two, poses, above(), (33, 33))[16, 16] == front


def test_samples_smooth_edges_and_keep_areas():
    ball = scene("sphere", (0.8, 0, 0)).replace(ambient=jnp.float32(1.0))
    rough, fine = (
        np.asarray(raycaster.render(ball, at(), above(), (32, 32), samples)) for samples in (1, 4)
    )
    assert set(np.unique(rough[..., 0])) == {0.0, 1.0}
    assert len(np.unique(fine[..., 0])) > 5
    cone = np.tan(np.arcsin(0.2)) / np.tan(np.deg2rad(22.5))
    assert fine[..., 0].mean() == pytest.approx(np.pi / 4 * cone**2, rel=0.01)


def test_gradients_are_finite_and_right():
    """Ambient light scales with itself where the sky is dark; places have finite gradients."""
    ball = scene("sphere", (0.8, 0, 0)).replace(sky=jnp.zeros((2, 3)))

    def brightness(x):
        poses = at().replace(position=jnp.stack([x, jnp.float32(0), jnp.float32(0)])[None])
        return raycaster.render(ball, poses, above(), (32, 32)).sum()

    for x in (0.0, 0.7, 3.0):
        assert np.isfinite(jax.grad(brightness)(jnp.float32(x)))


@pytest.fixture(scope="module")
def arm():
    model = reacher.make().host.model
    data = mujoco.MjData(model)
    return model, data


def posed(arm, qpos):
    model, data = arm
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    poses = jax.tree.map(jnp.asarray, scenes.poses_of(data, scenes.visible_geoms(model)))
    return poses, scenes.camera_of(model, data, "top")


POSES = ([0.5, 1.2, 0.3, -0.4], [-2.0, 0.3, -0.5, 0.5], [3.0, -2.0, 0.1, 0.2])


def test_vmap_is_a_loop(arm):
    drawn = scenes.scene_of(arm[0], square=0.25)
    many = [posed(arm, q) for q in POSES]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(poses for poses, _ in many))
    together = jax.vmap(lambda p: raycaster.render(drawn, p, many[0][1]))(stacked)
    for image, (poses, camera) in zip(together, many, strict=True):
        alone = raycaster.render(drawn, poses, camera)
        # A pixel on an edge may fall to the other side by rounding.
        assert np.isclose(image, alone, atol=1e-5).all(-1).mean() > 0.999


# The arm at POSES[0] on 16 x 16 pixels: geom 0 is the floor, 1 and 2 the links, 3 tip, 4 ball.
GOLDEN = """
0000000000000000
0000000000000000
0000000000330000
0000000000020000
0000000000020000
0000000000020000
0000000000110000
0000000011000000
0000000000000000
0000000000000000
0000000000000000
0000000000440000
0000000000400000
0000000000000000
0000000000000000
0000000000000000
"""


def test_the_arm_is_drawn_as_it_always_was(arm):
    poses, camera = posed(arm, POSES[0])
    seen = raycaster.segment(scenes.scene_of(arm[0]), poses, camera, (16, 16))
    assert "\n".join("".join(map(str, row)) for row in np.asarray(seen)) == GOLDEN.strip()


def projected(arm, qpos, name):
    """Where MuJoCo's pinhole camera sees a geom's centre, in pixels of a 64 x 64 image."""
    data = arm[1]
    _, camera = posed(arm, qpos)
    local = camera.rotation.T @ (data.geom(name).xpos - camera.position)
    scale = 32 / np.tan(np.deg2rad(22.5)) / -local[2]
    return np.array([32 - local[1] * scale, 32 + local[0] * scale])


@pytest.mark.parametrize("qpos", POSES)
def test_geoms_are_where_the_camera_projects_them(arm, qpos):
    poses, camera = posed(arm, qpos)
    seen = np.asarray(raycaster.segment(scenes.scene_of(arm[0]), poses, camera))
    for index, name in ((3, "tip"), (4, "goal")):
        rows, columns = np.nonzero(seen == index)
        middle = np.array([rows.mean(), columns.mean()]) + 0.5
        np.testing.assert_allclose(middle, projected(arm, qpos, name), atol=1.0)


# OpenGL's platform is settled once per process.
SCRIPT = """
import sys
import mujoco
import numpy as np
from jaxsafe.envs import reacher

model = reacher.make().host.model
data = mujoco.MjData(model)
try:
    renderer = mujoco.Renderer(model, 64, 64)
except Exception as error:
    sys.exit(f"no OpenGL: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
renderer.enable_segmentation_rendering()
seen = []
for qpos in np.load(sys.argv[1]):
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    renderer.update_scene(data, "top")
    seen.append(renderer.render()[..., 0])
np.save(sys.argv[2], seen)
"""


def test_silhouettes_are_those_of_mujocos_renderer(arm, tmp_path):
    rng = np.random.default_rng(0)
    qpos = np.stack([*POSES, *(reacher.start(rng)[0] for _ in range(5))])
    np.save(tmp_path / "qpos.npy", qpos)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "qpos.npy"), str(tmp_path / "seen.npy")],
        env=os.environ | {"MUJOCO_GL": "egl", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"EGL does not draw here: {done.stderr.strip().splitlines()[-1]}")
    geoms, shown = scenes.visible_geoms(arm[0]), np.load(tmp_path / "seen.npy")
    theirs = np.where(np.isin(shown, geoms), np.searchsorted(geoms, shown), -1)
    drawn = scenes.scene_of(arm[0])
    for q, image in zip(qpos, theirs, strict=True):
        ours = np.asarray(raycaster.segment(drawn, *posed(arm, q)))
        for geom in range(5):
            a, b = ours == geom, image == geom
            overlap = (a & b).sum() / max((a | b).sum(), 1)
            assert overlap > 0.85 or (a | b).sum() < 12, (geom, q, overlap)
        assert (ours == image).mean() > 0.985


def test_bad_input(arm):
    drawn = scenes.scene_of(arm[0])
    poses, camera = posed(arm, POSES[0])
    with pytest.raises(UserError, match=r"poses of shape \(1, 3\) .* do not fit 5 geoms"):
        raycaster.render(drawn, at(), camera)
    with pytest.raises(UserError, match=r"size=0 is out of range"):
        raycaster.segment(drawn, poses, camera, (0, 4))
    with pytest.raises(UserError, match=r"samples=0 is out of range"):
        raycaster.render(drawn, poses, camera, (4, 4), 0)
    with pytest.raises(UserError, match=r"camera='side' is unknown: the model has top"):
        scenes.camera_of(*arm, "side")
    round_box = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><geom type='ellipsoid' size='1 1 2'/></worldbody></mujoco>"
    )
    with pytest.raises(UserError, match=r"geom 0 is a mjGEOM_ELLIPSOID: the ray caster draws"):
        scenes.scene_of(round_box)
    with pytest.raises(UserError, match=r"kind='cone' is unknown"):
        raycaster.segment(scene("cone", (1, 1, 1)), at(), above(), (4, 4))
