# SPDX-License-Identifier: Apache-2.0
"""Physics of target worlds: by how much they differ from the source's, and episodes in MuJoCo C."""

import copy
import dataclasses

import mujoco
import numpy as np

from jaxsafe.envs import host_steps
from jaxsafe.image_to_semantics.worlds import World


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


LEVELS = (
    Gap(),
    Gap(look=True),
    Gap(damping=1.2, mass=1.1, friction=0.9, look=True),
    Gap(damping=1.4, mass=1.25, gear=0.8, friction=0.7, joint_friction=0.05, delay=1, look=True),
)


def physics(world: World, gap: Gap) -> mujoco.MjModel:
    """The target's model: a copy of the source's in MuJoCo C, changed as `gap` says."""
    model = copy.copy(world.task.host.model)
    model.dof_damping[:] *= gap.damping
    model.body_mass[:] *= gap.mass
    model.body_inertia[:] *= gap.mass
    model.actuator_gear[:] *= gap.gear
    model.geom_friction[:, 0] *= gap.friction
    driven = model.jnt_dofadr[model.actuator_trnid[:, 0]]
    model.dof_frictionloss[driven] += gap.joint_friction
    if gap.mass != 1.0:
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


class Fleet:
    """B episodes of a target world side by side in MuJoCo C; call `close` at the end.

    Attributes:
      qpos: `[B, nq]`.
      qvel: `[B, nv]`.
      alive: `[B]` bool, episodes that have not ended by a fall.
      returns: `[B]`, rewards so far.
    """

    def __init__(
        self, world: World, gap: Gap, qpos: np.ndarray, qvel: np.ndarray, threads: int | None = None
    ):
        self._spec, self._world = world.task.host.spec, world
        self._model = physics(world, gap)
        self._pool = host_steps.make_pool(self._model, threads)
        self._late = [np.zeros((len(qpos), world.task.action_size))] * gap.delay
        self.qpos, self.qvel = qpos.copy(), qvel.copy()
        self.alive = np.ones(len(qpos), bool)
        self.returns = np.zeros(len(qpos))

    @property
    def semantics(self) -> np.ndarray:
        """True semantics `[B, S]`."""
        return self._spec.observe(np, self.qpos, self.qvel, ()).astype(np.float32)

    def step(self, actions: np.ndarray) -> None:
        """Takes one control step with `actions` `[B, A]`, which are clipped, and may come late."""
        task, spec = self._world.task, self._spec
        now = np.clip(np.asarray(actions, np.float64), task.action_low, task.action_high)
        self._late.append(now)
        acting = self._late.pop(0)
        models = [self._model] * len(self.qpos)
        qpos, qvel = host_steps.step_batch(spec, self._pool, models, self.qpos, self.qvel, acting)
        terminated = spec.terminated(np, qpos, qvel)
        reward, _ = spec.pay(np, self.qpos, qpos, qvel, acting, terminated, {}, {})
        self.returns += np.where(self.alive, reward, 0.0)
        living = self.alive[:, None]
        self.qpos = np.where(living, qpos, self.qpos)
        self.qvel = np.where(living, qvel, self.qvel)
        self.alive = self.alive & ~terminated

    def close(self) -> None:
        """Ends the threads."""
        self._pool.rollout.close()
