# SPDX-License-Identifier: Apache-2.0
"""MuJoCo tasks in MJX, with the rewards, observations and endings of Gymnasium."""

import contextlib
import dataclasses
import io
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from jaxsafe.core.checks import check_choice
from jaxsafe.envs.derived import derived_arrays
from jaxsafe.envs.locomotion import LOCOMOTION
from jaxsafe.envs.mujoco_spec import HostTask, MujocoSpec, compile_model
from jaxsafe.envs.types import Leaf, State, Task, Timestep

# The import prints that the optional `warp` package is absent; nothing here uses it.
with contextlib.redirect_stdout(io.StringIO()):
    from mujoco import mjx


def _positions_and_velocities(xp, qpos, qvel, derived=()):
    return xp.concatenate([qpos, qvel], axis=-1)


def _pendulum_terminated(xp, qpos, qvel):
    finite = xp.isfinite(qpos).all(-1) & xp.isfinite(qvel).all(-1)
    return ~finite | (xp.abs(qpos[..., 1]) > 0.2)


def _one_while_up(xp, before, qpos, qvel, action, terminated, derived_before=(), derived=()):
    return xp.where(terminated, 0.0, 1.0)


def _always_one(xp, before, qpos, qvel, action, terminated, derived_before=(), derived=()):
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
        *LOCOMOTION,
    )
}


def make(name: str) -> Task:
    """Builds a task by name.

    On the step that ends the episode by a fall, v4 pays what a healthy step pays (as v2 did, which
    the M2TD3 paper used) and v5 does not: in all tasks that can end, the only difference for
    InvertedPendulum and Hopper. `Walker2d-v4` has a right foot of less friction, `Ant-v4` neither
    observes nor pays for contact forces, `HumanoidStandup-v4` observes the constant zeros that v5
    leaves out, and `HalfCheetah-v4` is v5.

    One difference to Gymnasium: HumanoidStandup's MJCF asks for the PGS solver, which MJX lacks, so
    both engines solve it by Newton's method here.

    Where MuJoCo 4.0 meets MJX 3.17, one step from a state of MuJoCo C ends, in 32 bits, within 2e-4
    of C's positions and velocities (relative above one) in all tasks but Ant, at the nominal models
    and at the corners of the scenarios; HumanoidStandup's contact forces, of up to 1200, within
    2 %. Over 200 steps of random actions mean and spread of rewards and of torso heights agree
    within a few of their standard errors in all five robots, Ant included.

    Ant's steps on the floor differ by more than rounding, because MJX gives a capsule less than 30
    degrees from the floor's normal other axes of friction than C does, and friction is a pyramid
    here: of the steps that end on the floor, half are within 0.006 in velocities and one in a
    hundred is off by 1. With MJX's `plane_capsule` changed in that one point, accelerations agree
    within 1e-12 in 64 bits. Policies are scored in MuJoCo C, where all tasks are Gymnasium's
    exactly.

    Everything is built in JAX's precision at the time of the call: 32 bits unless x64 is on.

    Args:
      name: a key of `SPECS`, e.g. `"InvertedPendulum-v5"`.

    Returns:
      The task, equal to Gymnasium's of that name up to rounding.

    Raises:
      UserError: if the name is unknown, or the task needs Gymnasium's files and they are absent.
    """
    check_choice("task", name, SPECS)
    return from_spec(SPECS[name])


def from_spec(spec: MujocoSpec) -> Task:
    """Builds the task of a spec of one's own; as `make`.

    Raises:
      UserError: if the task needs Gymnasium's files and they are absent.
    """
    host = compile_model(spec)
    model = mjx.put_model(host, impl="jax", device=_own_device())
    model = model.replace(opt=model.opt.replace(ls_iterations=spec.ls_iterations))
    blank = _uncommitted(mjx.make_data(host, impl="jax", device=_own_device()))
    limits = host.actuator_ctrlrange.astype(np.float32)
    parameters = {p: _leaf(host, field, element) for p, field, element in spec.parameters}
    return Task(
        name=spec.name,
        model=_uncommitted(model),
        reset=lambda model, key: _reset(spec, blank, model, key),
        explore=lambda model, key: _explore(spec, blank, model, key),
        step=_make_step(spec, blank, limits),
        observe=lambda model, state: spec.observe(jnp, state.qpos, state.qvel, state.derived),
        obs_size=len(spec.obs_scale),
        action_size=host.nu,
        action_low=limits[:, 0],
        action_high=limits[:, 1],
        obs_scale=np.asarray(spec.obs_scale, np.float32),
        max_episode_steps=spec.max_episode_steps,
        parameters=parameters,
        host=HostTask(spec, host),
    )


def _own_device():
    """Where MJX is to put arrays: it takes the first device of all, maybe another process's."""
    return jax.local_devices()[0]


def _uncommitted(tree):
    """Copies arrays so that they are bound to no device: they may then be sharded anywhere."""
    return jax.tree.map(jnp.asarray, jax.device_get(tree))


def _leaf(model: mujoco.MjModel, field: str, element: str | int | None) -> Leaf:
    kind = mujoco.mjtObj.mjOBJ_BODY if field.startswith("body_") else mujoco.mjtObj.mjOBJ_GEOM
    row = mujoco.mj_name2id(model, kind, element) if isinstance(element, str) else element
    if field == "geom_friction":  # Of a geom's three frictions the first is the sliding one.
        return Leaf(field, (row, 0))
    return Leaf(field, (row,), "kg" if field == "body_mass" else "")


def state_at(task: Task, model: Any, qpos: jax.Array, qvel: jax.Array) -> State:
    """Returns the state of an episode that starts at `qpos` `[nq]`, `qvel` `[nv]`."""
    spec, host = task.host
    blank = mjx.make_data(host, impl="jax", device=_own_device()) if spec.derived else None
    return _place(spec, blank, model, jnp.asarray(qpos), jnp.asarray(qvel))


def _place(spec: MujocoSpec, blank, model, qpos: jax.Array, qvel: jax.Array) -> State:
    derived: Any = ()
    if spec.derived:  # As `mj_forward` gives them; forces are zero before the first step.
        data = mjx.kinematics(model, blank.replace(qpos=qpos, qvel=qvel))
        data = mjx.com_vel(model, mjx.com_pos(model, data))
        derived = derived_arrays(spec.derived, model, data)
    return State(qpos, qvel, jnp.zeros_like(qvel), jnp.zeros((), jnp.int32), derived)


def _reset(spec: MujocoSpec, blank, model, key: jax.Array) -> State:
    """Draws a start as Gymnasium does; consumes `key`."""
    if not spec.reset_normal:
        return _uniform(spec, blank, model, key, spec.reset_noise, spec.reset_noise)
    qpos_key, qvel_key = jax.random.split(key)
    dtype, width = model.qpos0.dtype, spec.reset_noise
    qpos_noise = jax.random.uniform(qpos_key, (model.nq,), dtype, -width, width)
    qvel = width * jax.random.normal(qvel_key, (model.nv,), dtype)
    return _place(spec, blank, model, model.qpos0 + qpos_noise, qvel)


def _explore(spec: MujocoSpec, blank, model, key: jax.Array) -> State:
    return _uniform(spec, blank, model, key, spec.explore_qpos, spec.explore_qvel)


def _uniform(spec: MujocoSpec, blank, model, key, qpos_width, qvel_width) -> State:
    """Draws a state uniformly around `qpos0` at rest; consumes `key`."""
    dtype = model.qpos0.dtype
    noise = jax.random.uniform(key, (model.nq + model.nv,), dtype, -1, 1)
    qpos_noise, qvel_noise = jnp.split(noise, [model.nq])
    qpos = model.qpos0 + qpos_noise * jnp.asarray(qpos_width, dtype)
    return _place(spec, blank, model, qpos, qvel_noise * jnp.asarray(qvel_width, dtype))


def _advance(spec: MujocoSpec, model, data):
    """Takes one control step of physics."""
    if spec.frame_skip <= 2:
        for _ in range(spec.frame_skip):  # Unrolled: a fifth faster than a loop on CPU.
            data = mjx.step(model, data)
    else:  # Unrolled, these robots would take minutes to compile.
        data = jax.lax.fori_loop(0, spec.frame_skip, lambda _, d: mjx.step(model, d), data)
    return mjx.rne_postconstraint(model, data) if "cfrc_ext" in spec.derived else data


def _make_step(spec: MujocoSpec, blank, limits: np.ndarray) -> Callable:
    """Returns the task's `step`; `blank` is an `mjx.Data` that each step fills in anew."""

    def step(model, state: State, action: jax.Array) -> tuple[State, Timestep]:
        action = jnp.clip(action, limits[:, 0], limits[:, 1]).astype(state.qpos.dtype)
        data = _advance(
            spec,
            model,
            blank.replace(qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.qacc, ctrl=action),
        )
        qpos, qvel = data.qpos, data.qvel
        derived = derived_arrays(spec.derived, model, data)
        after = State(qpos, qvel, data.qacc_warmstart, state.steps + 1, derived)
        return after, timestep_of(spec, state, action, after)

    return step


def timestep_of(spec: MujocoSpec, before: State, action: jax.Array, after: State) -> Timestep:
    """What the control step from `before` to `after` by `action` (clipped) is worth and shows."""
    terminated = spec.terminated(jnp, after.qpos, after.qvel)
    reward, cost = spec.pay(
        *(jnp, before.qpos, after.qpos, after.qvel, action, terminated),
        *(before.derived, after.derived),
    )
    return Timestep(
        obs=spec.observe(jnp, after.qpos, after.qvel, after.derived),
        reward=reward.astype(jnp.float32),
        cost=cost.astype(jnp.float32),
        terminated=terminated,
        truncated=after.steps >= spec.max_episode_steps,
    )
