# SPDX-License-Identifier: Apache-2.0
"""Episodes of a target world in MuJoCo C."""

import functools

import mujoco
import numpy as np

from jaxsafe.envs import host_steps, mujoco_spec
from jaxsafe.image_to_semantics import mjcf
from jaxsafe.image_to_semantics.mjcf import LEVELS, Gap
from jaxsafe.image_to_semantics.worlds import World

__all__ = ["LEVELS", "Fleet", "Gap", "physics"]


@functools.lru_cache(maxsize=32)
def physics(world: World, gap: Gap) -> mujoco.MjModel:
    """The target's model, compiled from its own MJCF, `mjcf.target_xml`; not to be changed."""
    return mujoco_spec.compile_model(world.task.host.spec, mjcf.target_xml(world, gap))


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
        self._late = [np.zeros((len(qpos), world.task.action_size))] * mjcf.delay_of(self._model)
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
