# SPDX-License-Identifier: Apache-2.0
import warnings

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs.scenarios import SCENARIOS
from jaxsafe.envs.sensitivity import DeadRangeWarning, sensitivity
from jaxsafe.envs.uncertainty import make_set, scenario


@pytest.mark.parametrize("flavour", ["paper", "pair_friction"])
@pytest.mark.parametrize("name", [n for n in SCENARIOS if n != "Hopper-small"])
def test_every_parameter_has_an_effect(name, flavour):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeadRangeWarning)  # parts of a range may be dead
        result = sensitivity(*scenario(name, flavour=flavour), points=3, steps=30, episodes=2)
    assert not result.dead and (result.effect.max(1) > 1e-3).all()


def test_the_floors_friction_is_dead_below_the_foots():
    with pytest.warns(DeadRangeWarning, match="floor_friction changes no rollout over all of its"):
        result = sensitivity(*scenario("Hopper-small"))
    assert result.dead == ("floor_friction",) and not result.effect.any()
    with pytest.warns(DeadRangeWarning, match=r"over 2 of 4 parts .*\[0.1, 0.825\], \[0.825, 1.55"):
        result = sensitivity(*scenario("Hopper-1"))
    assert not result.dead
    np.testing.assert_array_equal(result.effect[0] == 0, [True, True, False, False])


def test_a_pairs_friction_acts_everywhere():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeadRangeWarning)
        result = sensitivity(*scenario("Hopper-small", flavour="pair_friction"))
    assert result.names == ("friction",) and (result.effect > 1e-3).all()
    np.testing.assert_allclose(result.values, [[0.1, 0.575, 1.05, 1.525, 2.0]])


def test_rrls_front_right_leg_has_an_effect():
    task, box = scenario("Ant-3", flavour="rrls")
    assert (sensitivity(task, box, points=3, steps=10, episodes=1).effect > 1e-3).all()


def test_errors(pendulum):
    task, box = pendulum
    for change, message in (
        ({"points": 1}, "points=1 is out of range"),
        ({"steps": 0}, "steps=0 is out of range"),
        ({"episodes": 0}, "episodes=0 is out of range"),
        ({"uncertainty": make_set(task, {"pole_mass": (3, 3)})}, "pole_mass=3 is no range"),
    ):
        with pytest.raises(UserError, match=message):
            sensitivity(**({"task": task, "uncertainty": box} | change))
