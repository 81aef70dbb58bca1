# SPDX-License-Identifier: Apache-2.0
"""InvertedPendulum in closed form: MuJoCo's physics of one cart and one pole, without MuJoCo.

With x the cart's position, t the pole's angle, M and m their masses, and the pole's centre of mass
at distance L from the hinge and at angle p from the pole's own axis, where c = cos(t + p) and
s = sin(t + p):

    [ M + m    m L c     ] [x'']   [ gear u - damping x' + m L s t'^2 + f_x ]
    [ m L c    I + m L^2 ] [t''] = [ m g L s - damping t' + f_t             ]

f is the force of the joints' soft limits, as MuJoCo's chapter "Computation" defines it: a limit
that is overrun by r, at the speed r', has the impedance d(r), asks for the acceleration
`-(B r' + K d r)` and gives way by R = (1 - d) / d times the joint's inverse inertia at compile time
(`dof_invweight0`, which stays what it is when a mass changes). For two limits MuJoCo's convex
problem has four cases, so it is solved here without iterations. Integration is Runge-Kutta's of
order four.

In a batch of 256 it takes 3.9 million control steps a second on one core and 3.4 million on two
(they are too short to be shared out): 34 and 31 times as many as MJX, by
`benchmarks.grid_evaluation`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from jaxsafe.core.checks import check_choice
from jaxsafe.envs import mujoco_tasks
from jaxsafe.envs.mujoco_spec import MujocoSpec
from jaxsafe.envs.types import State, Task, Timestep

NAMES = ("InvertedPendulum-v5", "InvertedPendulum-v4")


@flax.struct.dataclass
class PendulumModel:
    """What an uncertainty set may change, under MuJoCo's names.

    Attributes:
      body_mass: `[3]` kg: the world's (unused), the cart's, the pole's.
      qpos0: `[2]` the cart's position in metres and the pole's angle in radians at reset.
    """

    body_mass: jax.Array
    qpos0: jax.Array

    @property
    def nq(self) -> int:
        """Positions."""
        return 2

    @property
    def nv(self) -> int:
        """Velocities."""
        return 2


class _Joints(NamedTuple):
    """The constants of the slider and the hinge, `[2]` each; SI units."""

    low: np.ndarray
    high: np.ndarray
    damping: np.ndarray
    invweight: np.ndarray
    stiffness: np.ndarray  # K
    rate: np.ndarray  # B
    solimp: np.ndarray  # [5, 2]


class _Physics(NamedTuple):
    """The constants of the cart and the pole; SI units."""

    length: float  # L
    phase: float  # p
    inertia: float  # I, about the pole's centre of mass
    gravity: float
    gear: float
    timestep: float
    joints: _Joints


def make(name: str = NAMES[0]) -> Task:
    """Builds the task: `mujoco_tasks.make(name)` with a model and a step in closed form.

    All else is the same object: starts from equal keys are equal, an uncertainty set of the one
    fits the other, and `host` is the same MuJoCo C model. Over 200 steps held up or at the rail's
    end, steps agree with MuJoCo C within 1e-12 in 64 bits and 3e-4 in 32, at the nominal masses and
    at the corners of InvertedPendulum-2. States stay finite under any actions but NaN.

    Args:
      name: one of `NAMES`.

    Raises:
      UserError: if the name is none of these.
    """
    check_choice("task with an analytic engine", name, NAMES)
    task = mujoco_tasks.make(name)
    host = task.host.model
    model = PendulumModel(jnp.asarray(host.body_mass), jnp.asarray(host.qpos0))
    step = _make_step(task.host.spec, _physics(host), task.action_low, task.action_high)
    return dataclasses.replace(task, model=model, step=step)


def _physics(host: mujoco.MjModel) -> _Physics:
    pole = host.body("pole").id
    x, _, z = host.body_ipos[pole]
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, host.body_iquat[pole])
    inertia = turn.reshape(3, 3)[1] ** 2 @ host.body_inertia[pole]  # about the hinge's axis, y
    return _Physics(
        length=math.hypot(x, z),
        phase=math.atan2(x, z),
        inertia=float(inertia),
        gravity=float(-host.opt.gravity[2]),
        gear=float(host.actuator_gear[0, 0]),
        timestep=float(host.opt.timestep),
        joints=_joints(host),
    )


def _joints(host: mujoco.MjModel) -> _Joints:
    time_constant, damping_ratio = host.jnt_solref.T
    time_constant = np.maximum(time_constant, 2 * host.opt.timestep)  # MuJoCo's `refsafe`
    highest = host.jnt_solimp[:, 1]
    return _Joints(
        low=host.jnt_range[:, 0].copy(),
        high=host.jnt_range[:, 1].copy(),
        damping=host.dof_damping.copy(),
        invweight=host.dof_invweight0.copy(),
        stiffness=1 / (highest * time_constant * damping_ratio) ** 2,
        rate=2 / (highest * time_constant),
        solimp=host.jnt_solimp.T.copy(),
    )


class _Limits(NamedTuple):
    """What the limits of the two joints ask for, `[2]` each."""

    sign: jax.Array  # of the force: +1 at the low end, -1 at the high one, 0 in between
    acceleration: jax.Array  # along the joint
    give: jax.Array  # R


def _limits(joints: _Joints, position: jax.Array, velocity: jax.Array) -> _Limits:
    low, high, width, middle, power = joints.solimp
    if (power == 2).all():  # MuJoCo's default; a product costs far less than a power.
        power = 2
    sign = jnp.where(position < joints.low, 1.0, jnp.where(position > joints.high, -1.0, 0.0))
    overrun = jnp.maximum(joints.low - position, position - joints.high)
    part = jnp.clip(overrun / width, 0.0, 1.0)
    rising = part**power / middle ** (power - 1)
    levelling = 1 - (1 - part) ** power / (1 - middle) ** (power - 1)
    impedance = low + (high - low) * jnp.where(part <= middle, rising, levelling)
    acceleration = sign * joints.stiffness * impedance * overrun - joints.rate * velocity
    return _Limits(sign, acceleration, (1 - impedance) / impedance * joints.invweight)


def _limit_forces(limits: _Limits, free: jax.Array, inverse) -> jax.Array:
    """Forces `[2]` of the joints' limits.

    With w = J (wanted - free) and A = J M^-1 J^T, MuJoCo's problem is to find f >= 0 where
    `(A + R) f - w` is 0, or is at least 0 where f is 0: one of four cases holds.

    Args:
      limits: what is wanted.
      free: accelerations `[2]` without limits.
      inverse: `(M^-1[0, 0], M^-1[0, 1], M^-1[1, 1])`.
    """
    want = limits.sign * (limits.acceleration - free)
    stiff = jnp.stack([inverse[0], inverse[2]]) + limits.give
    cross = limits.sign[0] * limits.sign[1] * inverse[1]
    alone = jnp.maximum(0.0, want) / stiff
    alone_will_do = want[::-1] - cross * alone <= 0
    both = (stiff[::-1] * want - cross * want[::-1]) / (stiff[0] * stiff[1] - cross**2)
    first = jnp.where(alone_will_do[0], alone[0], jnp.where(alone_will_do[1], 0.0, both[0]))
    second = jnp.where(alone_will_do[0], 0.0, jnp.where(alone_will_do[1], alone[1], both[1]))
    return limits.sign * jnp.stack([first, second])


def _accelerations(physics: _Physics, mass, position, velocity, action) -> jax.Array:
    """Accelerations `[2]` of the cart and the pole, of masses `mass`."""
    cart, pole = mass
    angle = position[1] + physics.phase
    moment = pole * physics.length
    sine = jnp.sin(angle)
    push = physics.gear * action + moment * sine * velocity[1] ** 2
    force = jnp.stack([push, moment * physics.gravity * sine]) - physics.joints.damping * velocity
    off = moment * jnp.cos(angle)
    total, inertia = cart + pole, physics.inertia + moment * physics.length
    # total * inertia - off**2, without its cancellation
    det = cart * inertia + pole * physics.inertia + (moment * sine) ** 2
    inverse = inertia / det, -off / det, total / det

    def solve(force):
        first = inverse[0] * force[0] + inverse[1] * force[1]
        return jnp.stack([first, inverse[1] * force[0] + inverse[2] * force[1]])

    free = solve(force)
    limits = _limits(physics.joints, position, velocity)
    return free + solve(_limit_forces(limits, free, inverse))


def _advance(physics: _Physics, mass, position, velocity, action):
    """Takes one physics step by Runge-Kutta's method of order four."""
    h = physics.timestep
    speeds, pulls = [velocity], [_accelerations(physics, mass, position, velocity, action)]
    for part in (h / 2, h / 2, h):
        there = position + part * speeds[-1]
        speeds.append(velocity + part * pulls[-1])
        pulls.append(_accelerations(physics, mass, there, speeds[-1], action))
    return position + h * _mean(speeds), velocity + h * _mean(pulls)


def _mean(stages: list[jax.Array]) -> jax.Array:
    return (stages[0] + 2 * stages[1] + 2 * stages[2] + stages[3]) / 6


def _make_step(
    spec: MujocoSpec, physics: _Physics, low: np.ndarray, high: np.ndarray
) -> Callable[[PendulumModel, State, jax.Array], tuple[State, Timestep]]:
    def step(model: PendulumModel, state: State, action: jax.Array) -> tuple[State, Timestep]:
        action = jnp.clip(action, low, high).astype(state.qpos.dtype)
        mass = model.body_mass[1], model.body_mass[2]
        qpos, qvel = state.qpos, state.qvel
        for _ in range(spec.frame_skip):
            qpos, qvel = _advance(physics, mass, qpos, qvel, action[0])
        after = State(qpos, qvel, state.qacc, state.steps + 1)
        return after, mujoco_tasks.timestep_of(spec, state, action, after)

    return step
