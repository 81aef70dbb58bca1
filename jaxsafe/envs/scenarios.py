# SPDX-License-Identifier: Apache-2.0
"""The M2TD3 paper's 19 scenarios as data: a task family and the ranges of its parameters.

Masses are in kg, frictions are the dimensionless sliding ones. Three flavours:

- `paper`: what the paper's code sets. In Hopper and Walker2d it sets the floor's friction alone,
  while a contact takes the larger friction of its two geoms, so below the feet's 2.0 and 1.9 it
  does nothing (`sensitivity` shows it). In Ant-3 the third body is the front left ankle, though the
  paper's code calls it the front right leg.
- `rrls`: the ranges of RRLS, whose Ant-3 has the front right leg.
- `pair_friction`: the paper's, but a friction is that of every geom, so that all of its range acts.
"""

from collections.abc import Mapping

from jaxsafe.core.checks import UserError, check_choice

Ranges = Mapping[str, tuple[float, float]]

_HOPPER = {"floor_friction": (0.1, 3), "torso_mass": (0.1, 3), "thigh_mass": (0.1, 4)}
_CHEETAH = {"friction": (0.1, 4), "torso_mass": (0.1, 7), "back_thigh_mass": (0.1, 3)}
_WALKER = {"floor_friction": (0.1, 4), "torso_mass": (0.1, 5), "thigh_mass": (0.1, 6)}
_ANT = {
    "torso_mass": (0.1, 3),
    "front_left_leg_mass": (0.01, 3),
    "front_left_ankle_mass": (0.01, 3),
}
_PENDULUM = {"pole_mass": (1, 31), "cart_mass": (1, 11)}


def _first(ranges: Ranges, count: int) -> Ranges:
    return dict(list(ranges.items())[:count])


# Scenario names: the task family, then the ranges in flavour `paper`.
SCENARIOS: Mapping[str, tuple[str, Ranges]] = {
    "InvertedPendulum-1": ("InvertedPendulum", _first(_PENDULUM, 1)),
    "InvertedPendulum-2": ("InvertedPendulum", _PENDULUM),
    "Hopper-1": ("Hopper", _first(_HOPPER, 1)),
    "Hopper-2": ("Hopper", _first(_HOPPER, 2)),
    "Hopper-3": ("Hopper", _HOPPER),
    "Hopper-small": ("Hopper", {"floor_friction": (0.1, 2)}),
    "HalfCheetah-1": ("HalfCheetah", _first(_CHEETAH, 1)),
    "HalfCheetah-2": ("HalfCheetah", _first(_CHEETAH, 2)),
    "HalfCheetah-3": ("HalfCheetah", _CHEETAH),
    "HalfCheetah-small": ("HalfCheetah", {"friction": (0.1, 3)}),
    "Walker2d-1": ("Walker2d", _first(_WALKER, 1)),
    "Walker2d-2": ("Walker2d", _first(_WALKER, 2)),
    "Walker2d-3": ("Walker2d", _WALKER),
    "Ant-1": ("Ant", _first(_ANT, 1)),
    "Ant-2": ("Ant", _first(_ANT, 2)),
    "Ant-3": ("Ant", _ANT),
    "HumanoidStandup-1": ("HumanoidStandup", {"torso_mass": (0.1, 16)}),
    "HumanoidStandup-2": (
        "HumanoidStandup",
        {"torso_mass": (0.1, 16), "right_foot_mass": (0.1, 8)},
    ),
    "HumanoidStandup-3": (
        "HumanoidStandup",
        {"torso_mass": (0.1, 16), "right_foot_mass": (0.1, 5), "left_thigh_mass": (0.1, 8)},
    ),
}

# RRLS has no "small" scenarios; those stay the paper's.
_RRLS: Mapping[str, Ranges] = {
    "HalfCheetah-1": {"friction": (0.1, 3)},
    "Ant-3": {**_first(_ANT, 2), "front_right_leg_mass": (0.01, 3)},
    "HumanoidStandup-3": {
        "torso_mass": (0.1, 16),
        "left_thigh_mass": (0.1, 5),
        "right_foot_mass": (0.1, 8),
    },
}

# Beyond the paper: gymnax's task, and ranges that have its nominal value in their middle.
GYMNAX_SCENARIOS: Mapping[str, tuple[str, Ranges]] = {
    "Pendulum-3": (
        "Pendulum-v1",
        {"mass": (0.5, 1.5), "length": (0.5, 1.5), "gravity": (5, 15)},
    ),
}
FLAVOURS = ("paper", "rrls", "pair_friction")


ENGINES = ("mjx", "analytic")
_ANALYTIC = ("InvertedPendulum",)


def scenario_ranges(
    name: str, flavour: str = "paper", version: str = "v5", engine: str = "mjx"
) -> tuple[str, Ranges]:
    """Returns the task family and the parameter ranges of a scenario, once it is found sound.

    Raises:
      UserError: if the name, the flavour or the engine is unknown, or the scenario lacks it.
    """
    check_choice("scenario", name, [*SCENARIOS, *GYMNAX_SCENARIOS])
    check_choice("flavour", flavour, FLAVOURS)
    check_choice("engine", engine, ENGINES)
    if name in GYMNAX_SCENARIOS:
        for kind, value, only in (
            ("version", version, "v5"),
            ("flavour", flavour, "paper"),
            ("engine", engine, "mjx"),
        ):
            if value != only:
                raise UserError(f"{kind}={value!r}: {name} has no choice of {kind}; leave it out.")
        return GYMNAX_SCENARIOS[name]
    family, ranges = SCENARIOS[name]
    if engine == "analytic" and family not in _ANALYTIC:
        raise UserError(f"engine='analytic' has no {family}: choose engine='mjx' for {name}.")
    if flavour == "rrls":
        ranges = _RRLS.get(name, ranges)
    if flavour == "pair_friction":
        ranges = {p.removeprefix("floor_"): bounds for p, bounds in ranges.items()}
    return family, ranges
