# SPDX-License-Identifier: Apache-2.0
"""MuJoCo's renderer as a target's: the ray caster's camera and geoms, shadows, missing OpenGL."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import offscreen, raycaster, render
from jaxsafe.image_to_semantics import target, worlds

# OpenGL's platform is settled once per process. Poses of both worlds, drawn and told apart, with a
# camera that no model has.
SCRIPT = """
import sys
import jax
import numpy as np
from jaxsafe.core.checks import UserError
from jaxsafe.envs import offscreen, scenes
from jaxsafe.image_to_semantics import target, worlds

found = {}
for name in ("reacher", "hopper"):
    world = worlds.make(name)
    qpos = np.stack([world.start(np.random.default_rng(i))[0] for i in range(3)])
    rngs = [np.random.default_rng(i) for i in range(3)]
    some = target.looks(world, target.LEVELS[1], rngs)
    try:
        drawn = target.Renderer(world, by="mujoco")
    except UserError as error:
        sys.exit(f"error: {error}")
    found[f"{name}_images"] = drawn.draw(some, np.arange(3), np.zeros(3, int), qpos)
    plain = target.looks(world, target.LEVELS[0], rngs)
    found[f"{name}_plain"] = drawn.draw(plain, np.arange(3), np.zeros(3, int), qpos)
    drawn.close()
    own = offscreen.Offscreen(world.task.host.model, (64, 64))
    mine = [jax.tree.map(lambda x, i=i: x[i], some) for i in range(3)]
    found[name] = [own.segment(q, m.scene, m.camera) for q, m in zip(qpos, mine)]
    own.close()
np.savez(sys.argv[1], **found)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("gl") / "found.npz"
    environment = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and done.stderr.startswith("error: "):
        assert "apt install" in done.stderr and "raycaster" in done.stderr
        pytest.skip(f"OpenGL does not draw here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return np.load(path)


def looked(name, level=1):
    world = worlds.make(name)
    rngs = [np.random.default_rng(i) for i in range(3)]
    qpos = np.stack([world.start(np.random.default_rng(i))[0] for i in range(3)])
    return world, target.looks(world, target.LEVELS[level], rngs), qpos


@pytest.mark.parametrize("name", ["reacher", "hopper"])
def test_geoms_and_cameras_are_the_ray_casters(found, name):
    """Intersection over union of each geom's pixels, under episodes' own cameras."""
    world, some, qpos = looked(name)
    places, turns = target.Renderer(world).poses(qpos)
    for i, theirs in enumerate(found[name]):
        one = jax.tree.map(lambda x, i=i: x[i], some)
        count = len(places[i])  # the distractor, the last, is left out
        scene = one.scene.replace(
            kinds=one.scene.kinds[:count],
            size=one.scene.size[:count],
            colour=one.scene.colour[:count],
            square=one.scene.square[:count],
        )
        poses = raycaster.Poses(places[i], turns[i])
        ours = np.asarray(raycaster.segment(scene, poses, one.camera))
        for geom in range(count):
            a, b = ours == geom, theirs == geom
            overlap = (a & b).sum() / max((a | b).sum(), 1)
            assert overlap > 0.8 or (a | b).sum() < 25, (geom, overlap)
        assert (ours == theirs).mean() > 0.97


def test_colours_look_and_shadow(found):
    """Colours are the episode's; what the arm takes light from is darker than the floor."""
    plain, images = found["reacher_plain"], found["reacher_images"]
    assert plain.shape == (3, 64, 64, 3) and plain.dtype == np.uint8
    _, some, _ = looked("reacher")
    for image, colour in zip(images, some.scene.colour[:, 0, 0], strict=True):
        middle = np.median(image.reshape(-1, 3), axis=0)  # mostly floor, however bright it is lit
        np.testing.assert_allclose(middle / middle.sum(), colour / colour.sum(), atol=0.02)
    segments = found["reacher"][0]
    lit = np.median(plain[0].sum(-1)[segments == 0])
    shadow = (plain[0].sum(-1) < 0.75 * lit) & (segments == 0)
    assert 10 < shadow.sum() < 800
    # Noise and blur are the episode's too: a plain floor has none.
    assert plain[0][:6, :6].std((0, 1)).max() < 3 < images[0][:6, :6].std((0, 1)).max()


def test_without_opengl_one_line_names_the_package(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(render.ctypes.util, "find_library", lambda name: None)
    arm = worlds.make("reacher")
    with pytest.raises(UserError, match=r"apt install libegl1.*libosmesa6.*raycaster\.$") as error:
        target.Renderer(arm, by="mujoco")
    assert "\n" not in str(error.value)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")

    def fail(name):
        raise ImportError(f"{name} is broken")

    monkeypatch.setattr(render.importlib, "import_module", fail)
    with pytest.raises(UserError, match=r"osmesa does not start.*libosmesa6.*raycaster\.$"):
        offscreen.Offscreen(arm.task.host.model, (8, 8))
    with pytest.raises(UserError, match=r"renderer='mujco' is unknown.*'mujoco'"):
        target.Renderer(arm, by="mujco")
