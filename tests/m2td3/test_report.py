# SPDX-License-Identifier: Apache-2.0
"""Tables, pictures and films tell which engine scored, and put values where they belong."""

import dataclasses
import sys
import types

import numpy as np
import pytest

from jaxsafe.core import heat_maps, plots
from jaxsafe.envs import draw, render
from jaxsafe.envs.uncertainty import make_set, scenario
from jaxsafe.envs.worst_case import summarise
from jaxsafe.m2td3 import METHODS, evaluate, report
from jaxsafe.m2td3.evaluate import Scores
from jaxsafe.m2td3.experiment import Evaluation, Experiment

RANGES = {"pole_mass": (1, 31), "cart_mass": (1, 11), "third": (0, 1)}


@pytest.fixture(scope="module")
def pendulum():
    return scenario("InvertedPendulum-2")


def set_of(pendulum, size):
    task, _ = pendulum
    parameters = dict(task.parameters) | {"third": task.parameters["cart_mass"]}
    task = dataclasses.replace(task, parameters=parameters)
    return make_set(task, dict(list(RANGES.items())[:size]))


def scores_of(box, engine, grid=3, gap=0.5):
    """Two seeds, whose values tell every grid point apart; the second seed's grid missed `gap`."""
    omegas = np.asarray(box.grid(grid))
    values = omegas @ 10.0 ** np.arange(box.size)[::-1] + np.array([[0.0], [1.0]])
    refined = values.min(1) - np.array([0.0, gap])
    middle = np.tile(omegas.mean(0), (2, 1))
    return Scores(engine, omegas, summarise(omegas, values, refined, middle, 0.5, np))


def experiment_of(engine="mujoco_c", **options):
    return Experiment(eval=Evaluation(grid=3, engines=(engine,), **options))


@pytest.fixture
def drawn(monkeypatch):
    """What the plotting functions were called with, by name of their parameters."""
    import inspect

    calls = []
    for module, name in ((plots, "curves"), (heat_maps, "heat_maps"), (heat_maps, "slices")):
        signature = inspect.signature(getattr(module, name))

        def spy(*args, name=name, signature=signature, **kwargs):
            calls.append({"function": name} | signature.bind(*args, **kwargs).arguments)

        monkeypatch.setattr(module, name, spy)
    return calls


def test_every_method_has_a_name():
    known = {"m2td3", "soft_m2td3", "td3", "dr_td3", "rarl", "m3ddpg", "m2td3_plus"}
    assert set(report.NAMES) == known >= set(METHODS)
    assert len(set(report.NAMES.values())) == 7


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pictures_of_all_methods_are_images(pendulum, tmp_path, size):
    box = set_of(pendulum, size)
    scores = {method: scores_of(box, "mujoco_c") for method in report.NAMES}
    path = report.picture(tmp_path / "p.png", experiment_of(), box, scores)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_only_mujocos_scores_are_called_mujocos(pendulum, drawn, size):
    box = set_of(pendulum, size)
    for engine in ("mujoco_c", "jax"):
        report.picture(None, experiment_of(engine), box, {"td3": scores_of(box, engine)})
        told = (drawn[-1]["title"], report.headline(experiment_of(engine), engine))
        assert all(("MuJoCo C" in text) == (engine == "mujoco_c") for text in told)
        assert all("InvertedPendulum-2" in text for text in told)


def test_a_curve_has_a_cross_where_the_grid_missed(pendulum, drawn):
    box = set_of(pendulum, 1)
    report.picture(None, experiment_of(), box, {"dr_td3": scores_of(box, "mujoco_c")})
    (call,) = drawn
    x, values = call["series"]["DR-TD3"]
    np.testing.assert_allclose(x, [1, 16, 31])
    np.testing.assert_allclose(values, [[1, 16, 31], [2, 17, 32]])
    (x, y) = call["marks"]["DR-TD3"]
    assert (x.tolist(), y.tolist()) == ([16.0], [1.5])
    assert call["xlabel"] == "pole mass (kg)"


@pytest.mark.parametrize(("size", "function"), [(2, "heat_maps"), (3, "slices")])
def test_maps_have_the_first_parameter_along_x(pendulum, drawn, size, function):
    box = set_of(pendulum, size)
    report.picture(None, experiment_of(), box, {"m2td3": scores_of(box, "mujoco_c")})
    (call,) = drawn
    assert call["function"] == function
    assert (call["xlabel"], call["ylabel"]) == ("pole mass (kg)", "cart mass (kg)")
    axes = [call[name] for name in ("z", "y", "x")[-size:]]
    panel = call["panels"]["M2TD3"]
    for place in np.ndindex(panel.shape):
        omega = [axis[i] for axis, i in zip(axes, place, strict=True)][::-1]
        expected = omega @ 10.0 ** np.arange(size)[::-1] + 0.5
        assert panel[place] == pytest.approx(expected)
    assert call["marks"]["M2TD3"].shape == (1, size)


def test_no_cross_where_the_grid_missed_nothing(pendulum, drawn):
    box = set_of(pendulum, 2)
    report.picture(None, experiment_of(), box, {"m2td3": scores_of(box, "mujoco_c", gap=0.0)})
    assert drawn[0]["marks"] == {}


def test_the_table_tells_worst_and_refined_of_each_seed(pendulum):
    box = set_of(pendulum, 1)
    (row,) = report.table({"rarl": scores_of(box, "jax", gap=5.0)})
    assert row == {
        "method": "RARL",
        "worst (mean)": 1.5,
        "sd": pytest.approx(0.5**0.5),
        "worst of each seed": "1 2",
        "refined of each seed": "1 -3",
        "CVaR (mean)": pytest.approx((1 + 16 / 2) / 1.5 + 0.5),
        "average (mean)": 16.5,
    }


def test_films_are_drawn_by_what_was_asked_for(pendulum, tmp_path, monkeypatch):
    task, box = pendulum
    page = types.ModuleType("jaxsafe.envs.html")
    calls = []
    for name, module in (("lines", draw), ("mujoco", render), ("html", page)):
        spy = lambda path, *args, name=name: calls.append((name, args)) or path  # noqa: E731
        monkeypatch.setattr(module, "write" if name == "html" else "gif", spy, raising=False)
    monkeypatch.setitem(sys.modules, "jaxsafe.envs.html", page)
    monkeypatch.setattr("jaxsafe.envs.html", page, raising=False)
    monkeypatch.setattr(evaluate, "worst_episode", lambda *_: np.zeros((4, 2)))
    omega = np.array([2.0, 3.0])
    for name in ("lines", "mujoco", "html"):
        experiment = experiment_of(renderer=name)
        path = report.film(tmp_path, "td3", experiment, task, box, (None, None), omega)
        assert path.name == ("worst_td3.html" if name == "html" else "worst_td3.gif")
        called, (of, model, qpos, *_) = calls[-1]
        assert called == name and of is task and qpos.shape == (4, 2)
        np.testing.assert_array_equal(model.body_mass[[2, 1]], omega)
    assert calls[0][1][-1] == "TD3 at its worst: pole mass 2, cart mass 3"
