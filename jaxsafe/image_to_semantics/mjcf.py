# SPDX-License-Identifier: Apache-2.0
"""By how much target worlds differ from their source, and their physics as a MuJoCo file."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator

import mujoco

from jaxsafe.envs import mujoco_spec
from jaxsafe.image_to_semantics.worlds import World

DELAY = "action_delay"  # a number of the file: control steps by which actions come late


@dataclasses.dataclass(frozen=True)
class Gap:
    """How a target differs from its source: factors and additions.

    Attributes:
      damping: factor on joint damping.
      mass: factor on masses and inertias.
      gear: factor on motors' strength.
      friction: factor on sliding friction of contacts.
      joint_friction: dry friction of driven joints, N m.
      delay: control steps by which actions come late.
      look: whether light, colours and camera vary by episode, with a distractor, blur and noise.
    """

    damping: float = 1.0
    mass: float = 1.0
    gear: float = 1.0
    friction: float = 1.0
    joint_friction: float = 0.0
    delay: int = 0
    look: bool = False

    @property
    def moves_otherwise(self) -> bool:
        """Whether its physics, and not its looks alone, differ from the source's."""
        return dataclasses.replace(self, look=False) != Gap()


LEVELS = (
    Gap(),
    Gap(look=True),
    Gap(damping=1.2, mass=1.1, friction=0.9, look=True),
    Gap(damping=1.4, mass=1.25, gear=0.8, friction=0.7, joint_friction=0.05, delay=1, look=True),
)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """HalfCheetah's MJCF is dated, which MuJoCo tells twice over."""
    with mujoco_spec.quiet_mujoco(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def target_xml(world: World, gap: Gap) -> str:
    """Writes the target's MJCF.

    Numbers that the gap changes stand in it as they act, after the source's defaults; MuJoCo writes
    6 digits of each. A gap without other physics has the source's own text.

    Args:
      world: a source that runs in MuJoCo.
      gap: its looks are no part of the file.
    """
    source = mujoco_spec.mjcf(world.task.host.spec)
    if not gap.moves_otherwise:
        return source
    with _quiet():
        spec = mujoco.MjSpec.from_string(source)
        driven = {actuator.target for actuator in spec.actuators}
        for joint in spec.joints:
            joint.damping = joint.damping * gap.damping
            joint.frictionloss += gap.joint_friction * (joint.name in driven)
        for actuator in spec.actuators:
            actuator.gear = actuator.gear * gap.gear
        _scale_masses(spec, gap.mass)
        for geom in spec.geoms:
            geom.friction = geom.friction * [gap.friction, 1, 1]
        if gap.delay:
            spec.add_numeric(name=DELAY, data=[float(gap.delay)])
        spec.compile()
        return spec.to_xml()


def _scale_masses(spec: mujoco.MjSpec, factor: float) -> None:
    """Multiplies masses and inertias, wherever the file has them from."""
    if spec.compiler.settotalmass > 0:  # whatever else stands there, the sum is this
        spec.compiler.settotalmass *= factor
        return
    for geom in spec.geoms:
        # Not a number where the mass follows from the density.
        geom.mass, geom.density = geom.mass * factor, geom.density * factor
    for body in spec.bodies:
        if body.explicitinertial:
            body.mass, body.inertia = body.mass * factor, body.inertia * factor
            body.fullinertia = body.fullinertia * factor


def delay_of(model: mujoco.MjModel) -> int:
    """Control steps by which a model's file says that actions come late."""
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_NUMERIC, DELAY)
    return 0 if index < 0 else int(model.numeric_data[model.numeric_adr[index]])
