# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs.scenarios import FLAVOURS, SCENARIOS, scenario_ranges
from jaxsafe.envs.types import Leaf
from jaxsafe.envs.uncertainty import scenario

# Which array element each parameter is, by the paper's and RRLS's code.
MASS = "body_mass"
LEAVES = {
    "InvertedPendulum": {"pole_mass": Leaf(MASS, (2,), "kg"), "cart_mass": Leaf(MASS, (1,), "kg")},
    "Hopper": {
        "floor_friction": Leaf("geom_friction", (0, 0)),
        "friction": Leaf("geom_friction", (None, 0)),
        "torso_mass": Leaf(MASS, (1,), "kg"),
        "thigh_mass": Leaf(MASS, (2,), "kg"),
    },
    "HalfCheetah": {
        "friction": Leaf("geom_friction", (None, 0)),
        "torso_mass": Leaf(MASS, (1,), "kg"),
        "back_thigh_mass": Leaf(MASS, (2,), "kg"),
    },
    "Ant": {
        "torso_mass": Leaf(MASS, (1,), "kg"),
        "front_left_leg_mass": Leaf(MASS, (2,), "kg"),
        "front_left_ankle_mass": Leaf(MASS, (4,), "kg"),
        "front_right_leg_mass": Leaf(MASS, (5,), "kg"),
    },
    "HumanoidStandup": {
        "torso_mass": Leaf(MASS, (1,), "kg"),
        "right_foot_mass": Leaf(MASS, (6,), "kg"),
        "left_thigh_mass": Leaf(MASS, (7,), "kg"),
    },
}
LEAVES["Walker2d"] = LEAVES["Hopper"]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_its_leaves_and_dimension(name, flavour):
    task, box = scenario(name, flavour=flavour)
    family, _, kind = name.partition("-")
    assert task.name == f"{family}-v5"
    assert box.size == (1 if kind == "small" else int(kind))
    assert box.leaves == tuple(LEAVES[family][parameter] for parameter in box.names)
    assert all(0 < low < high for low, high in zip(box.low, box.high, strict=True))


def test_there_are_nineteen():
    assert len(SCENARIOS) == 19
    dimensions = [len(ranges) for _, ranges in SCENARIOS.values()]
    assert [dimensions.count(n) for n in (1, 2, 3)] == [8, 6, 5]


@pytest.mark.parametrize(
    ("name", "flavour", "ranges"),
    [
        ("Hopper-3", "paper", {"floor_friction": 3, "torso_mass": 3, "thigh_mass": 4}),
        ("Hopper-3", "rrls", {"floor_friction": 3, "torso_mass": 3, "thigh_mass": 4}),
        ("Hopper-3", "pair_friction", {"friction": 3, "torso_mass": 3, "thigh_mass": 4}),
        ("Hopper-small", "paper", {"floor_friction": 2}),
        ("HalfCheetah-1", "paper", {"friction": 4}),
        ("HalfCheetah-1", "rrls", {"friction": 3}),
        ("HalfCheetah-3", "paper", {"friction": 4, "torso_mass": 7, "back_thigh_mass": 3}),
        ("HalfCheetah-small", "paper", {"friction": 3}),
        ("Walker2d-3", "paper", {"floor_friction": 4, "torso_mass": 5, "thigh_mass": 6}),
        ("Walker2d-2", "pair_friction", {"friction": 4, "torso_mass": 5}),
        (
            "HumanoidStandup-3",
            "paper",
            {"torso_mass": 16, "right_foot_mass": 5, "left_thigh_mass": 8},
        ),
        (
            "HumanoidStandup-3",
            "rrls",
            {"torso_mass": 16, "left_thigh_mass": 5, "right_foot_mass": 8},
        ),
        ("HumanoidStandup-2", "rrls", {"torso_mass": 16, "right_foot_mass": 8}),
    ],
)
def test_ranges(name, flavour, ranges):
    expected = {parameter: (0.1, high) for parameter, high in ranges.items()}
    ours = scenario_ranges(name, flavour)[1]
    assert ours == expected and list(ours) == list(expected)


def test_ant_has_the_ankle_in_the_paper_and_the_right_leg_in_rrls():
    for flavour, third in (
        ("paper", "front_left_ankle_mass"),
        ("rrls", "front_right_leg_mass"),
        ("pair_friction", "front_left_ankle_mass"),
    ):
        ranges = scenario_ranges("Ant-3", flavour)[1]
        assert ranges["torso_mass"] == (0.1, 3)
        assert ranges["front_left_leg_mass"] == ranges[third] == (0.01, 3)


def test_versions_and_nominal_values():
    task, box = scenario("Hopper-3", "v4", "pair_friction")
    assert task.name == "Hopper-v4"
    np.testing.assert_allclose(box.nominal(task.host.model), [1, 3.665, 4.058], atol=5e-4)
    assert math.isclose(scenario("Hopper-1")[1].nominal(task.host.model)[0], 1)


def test_errors_name_the_choice():
    with pytest.raises(UserError, match=r"flavour='papr' is unknown\. Did you mean 'paper'"):
        scenario("Hopper-1", flavour="papr")
    with pytest.raises(UserError, match="scenario='Hopper-4' is unknown"):
        scenario_ranges("Hopper-4")
