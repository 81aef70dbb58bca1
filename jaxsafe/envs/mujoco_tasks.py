# SPDX-License-Identifier: Apache-2.0
"""MuJoCo tasks in MJX, with the rewards, observations and endings of Gymnasium."""

import contextlib
import dataclasses
import importlib.resources
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from jaxsafe.core.checks import check_choice
from jaxsafe.envs.types import Leaf, State, Task, Timestep

# The import prints that the optional `warp` package is absent; nothing here uses it.
with contextlib.redirect_stdout(io.StringIO()):
    from mujoco import mjx


@dataclasses.dataclass(frozen=True)
class MujocoSpec:
    """One task, once, for both engines: MJX (`make`) and MuJoCo C (`envs.host`).

    Its functions take the array namespace `xp` (`numpy` or `jax.numpy`) and any leading batch axes,
    so that the two engines cannot drift apart.

    Attributes:
      name: the task's name, Gymnasium's where there is one.
      asset: file name of the MJCF under `envs/assets`.
      frame_skip: physics steps in one control step.
      max_episode_steps: control steps until `truncated`.
      reset_noise: half-width of the uniform noise on every position and velocity at reset.
      explore_qpos: `[nq]` half-widths of the exploring starts around `qpos0`.
      explore_qvel: `[nv]` half-widths of the exploring starts around rest.
      obs_scale: `[O]` factors for network inputs.
      ls_iterations: line-search steps of MJX's solver. In 32 bits it takes all it is given, mostly
        without effect; MuJoCo C stops by itself.
      parameters: `(name, field, element)`: the element is a body or geom name.
      observe: `(xp, qpos [..., nq], qvel [..., nv]) -> obs [..., O]`.
      terminated: `(xp, qpos [..., nq], qvel [..., nv]) -> [...]` bool.
      reward: `(xp, before, qpos, qvel, action, terminated) -> [...]`, where `before` is the qpos
        ahead of the step and `action` is clipped.
    """

    name: str
    asset: str
    frame_skip: int
    max_episode_steps: int
    reset_noise: float
    explore_qpos: tuple[float, ...]
    explore_qvel: tuple[float, ...]
    obs_scale: tuple[float, ...]
    ls_iterations: int
    parameters: tuple[tuple[str, str, str], ...]
    observe: Callable[..., Any]
    terminated: Callable[..., Any]
    reward: Callable[..., Any]


class HostTask(NamedTuple):
    """The spec and its compiled model, for MuJoCo C."""

    spec: MujocoSpec
    model: mujoco.MjModel


def _positions_and_velocities(xp, qpos, qvel):
    return xp.concatenate([qpos, qvel], axis=-1)


def _pendulum_terminated(xp, qpos, qvel):
    finite = xp.isfinite(qpos).all(-1) & xp.isfinite(qvel).all(-1)
    return ~finite | (xp.abs(qpos[..., 1]) > 0.2)


def _one_while_up(xp, before, qpos, qvel, action, terminated):
    return xp.where(terminated, 0.0, 1.0)


def _always_one(xp, before, qpos, qvel, action, terminated):
    return xp.ones_like(qpos[..., 0])


_PENDULUM_V5 = MujocoSpec(
    name="InvertedPendulum-v5",
    asset="inverted_pendulum.xml",
    frame_skip=2,
    max_episode_steps=1000,
    reset_noise=0.01,
    explore_qpos=(0.7, 0.05),
    explore_qvel=(0.3, 0.2),
    obs_scale=(4.0, 20.0, 2.0, 3.0),
    ls_iterations=4,  # within 1e-6 of 50 (a test compares), at twice the speed
    parameters=(("pole_mass", "body_mass", "pole"), ("cart_mass", "body_mass", "cart")),
    observe=_positions_and_velocities,
    terminated=_pendulum_terminated,
    reward=_one_while_up,
)

SPECS = {
    spec.name: spec
    for spec in (
        _PENDULUM_V5,
        dataclasses.replace(_PENDULUM_V5, name="InvertedPendulum-v4", reward=_always_one),
    )
}


def compile_model(spec: MujocoSpec) -> mujoco.MjModel:
    """Returns the nominal `MjModel` of `spec`, compiled from its packaged MJCF."""
    asset = importlib.resources.files("jaxsafe.envs").joinpath("assets", spec.asset)
    return mujoco.MjModel.from_xml_string(asset.read_text(encoding="utf-8"))


def make(name: str) -> Task:
    """Builds a task by name.

    The two pendulums differ in one reward: on the step that ends the episode by a fall, v4 pays 1
    (as v2 did, which the M2TD3 paper used) and v5 pays 0. Everything is built in JAX's precision at
    the time of the call: 32 bits unless x64 is on.

    Args:
      name: a key of `SPECS`, e.g. `"InvertedPendulum-v5"`.

    Returns:
      The task, equal to Gymnasium's of that name up to rounding.

    Raises:
      UserError: if the name is unknown.
    """
    check_choice("task", name, SPECS)
    spec = SPECS[name]
    host = compile_model(spec)
    model = mjx.put_model(host, impl="jax")
    model = model.replace(opt=model.opt.replace(ls_iterations=spec.ls_iterations))
    limits = host.actuator_ctrlrange.astype(np.float32)
    parameters = {p: _leaf(host, field, element) for p, field, element in spec.parameters}
    return Task(
        name=name,
        model=_uncommitted(model),
        reset=lambda model, key: _start(model, key, spec.reset_noise, spec.reset_noise),
        explore=lambda model, key: _start(model, key, spec.explore_qpos, spec.explore_qvel),
        step=_make_step(spec, _uncommitted(mjx.make_data(host, impl="jax")), limits),
        observe=lambda model, state: spec.observe(jnp, state.qpos, state.qvel),
        obs_size=len(spec.obs_scale),
        action_size=host.nu,
        action_low=limits[:, 0],
        action_high=limits[:, 1],
        obs_scale=np.asarray(spec.obs_scale, np.float32),
        max_episode_steps=spec.max_episode_steps,
        parameters=parameters,
        host=HostTask(spec, host),
    )


def _uncommitted(tree):
    """Copies arrays so that they are bound to no device: they may then be sharded anywhere."""
    return jax.tree.map(jnp.asarray, jax.device_get(tree))


def _leaf(model: mujoco.MjModel, field: str, element: str) -> Leaf:
    kind = mujoco.mjtObj.mjOBJ_BODY if field.startswith("body_") else mujoco.mjtObj.mjOBJ_GEOM
    return Leaf(field, (mujoco.mj_name2id(model, kind, element),))


def _start(model, key, qpos_width, qvel_width) -> State:
    """Draws a state uniformly around `qpos0` at rest; consumes `key`."""
    dtype = model.qpos0.dtype
    noise = jax.random.uniform(key, (model.nq + model.nv,), dtype, -1, 1)
    qpos_noise, qvel_noise = jnp.split(noise, [model.nq])
    return State(
        qpos=model.qpos0 + qpos_noise * jnp.asarray(qpos_width, dtype),
        qvel=qvel_noise * jnp.asarray(qvel_width, dtype),
        qacc=jnp.zeros(model.nv, dtype),
        steps=jnp.zeros((), jnp.int32),
    )


def _make_step(spec: MujocoSpec, blank, limits: np.ndarray) -> Callable:
    """Returns the task's `step`; `blank` is an `mjx.Data` that each step fills in anew."""

    def step(model, state: State, action: jax.Array) -> tuple[State, Timestep]:
        action = jnp.clip(action, limits[:, 0], limits[:, 1]).astype(state.qpos.dtype)
        data = blank.replace(
            qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.qacc, ctrl=action
        )
        for _ in range(spec.frame_skip):  # Unrolled: a fifth faster than `lax.scan` on CPU.
            data = mjx.step(model, data)
        steps = state.steps + 1
        terminated = spec.terminated(jnp, data.qpos, data.qvel)
        reward = spec.reward(jnp, state.qpos, data.qpos, data.qvel, action, terminated)
        timestep = Timestep(
            obs=spec.observe(jnp, data.qpos, data.qvel),
            reward=reward.astype(jnp.float32),
            cost=jnp.zeros((), jnp.float32),
            terminated=terminated,
            truncated=steps >= spec.max_episode_steps,
        )
        return State(data.qpos, data.qvel, data.qacc_warmstart, steps), timestep

    return step
