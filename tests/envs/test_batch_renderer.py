# SPDX-License-Identifier: Apache-2.0
"""MJX's batch renderer as a target's: refused without warp-lang, else the ray caster's picture."""

import importlib.util

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import batch_renderer
from jaxsafe.image_to_semantics import target, worlds
from jaxsafe.image_to_semantics.experiment import Data, Experiment, validate_experiment


def test_without_warp_the_line_names_the_package_and_what_needs_none(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install warp-lang.*, raycaster\.") as error:
        validate_experiment(Experiment(data=Data(renderer="mjx")))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="warp-lang"):
        target.Renderer(worlds.make("reacher"), by="mjx")


@pytest.mark.parametrize("name", ["reacher", "hopper"])
def test_added_spheres_shift_no_other_geom(name):
    """Geoms are found again in the model that has an eye, a lamp and spheres of its own."""
    from jaxsafe.envs import scenes

    world = worlds.make(name)
    before = world.task.host.model
    own = scenes.visible_geoms(before)
    model, places = batch_renderer._prepared(world.task.host.spec, 45.0, 1)
    assert len(places) == len(own) + 1 and model.ngeom == before.ngeom + 1
    np.testing.assert_array_equal(model.geom_type[places[:-1]], before.geom_type[own])
    np.testing.assert_allclose(model.geom_size[places[:-1]], before.geom_size[own])
    np.testing.assert_allclose(model.geom_rgba[places[:-1]], before.geom_rgba[own])
    assert model.geom_bodyid[places[-1]] == 0


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 1])
def test_it_shows_what_the_ray_caster_shows(level):
    pytest.importorskip("warp")
    world, rngs = worlds.make("reacher"), [np.random.default_rng(i) for i in range(3)]
    qpos = np.stack([world.start(rng)[0] for rng in rngs])
    some = target.looks(world, target.LEVELS[level], rngs)
    drawn = {}
    for by in ("raycaster", "mjx"):
        renderer = target.Renderer(world, by=by)
        drawn[by] = renderer.draw(some, np.arange(3), np.zeros(3, int), qpos).astype(float) / 255
        renderer.close()
    # Coloured things stand at the same places; shadows and squares of the floor are grey.
    coloured = {k: np.ptp(v, axis=-1) > 0.3 for k, v in drawn.items()}
    both = (coloured["raycaster"] & coloured["mjx"]).sum((1, 2))
    either = (coloured["raycaster"] | coloured["mjx"]).sum((1, 2))
    assert (both / either > 0.8).all() and (either > 40).all()
