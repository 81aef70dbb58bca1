# SPDX-License-Identifier: Apache-2.0
"""Legged robots stepped by Gymnasium, at the nominal model and at corners of their scenarios."""

import importlib
import itertools
from typing import NamedTuple

import mujoco
import numpy as np
import pytest

from jaxsafe.envs.host import initial_states
from jaxsafe.envs.host_steps import derived_of, stack
from jaxsafe.envs.mujoco_tasks import make
from jaxsafe.envs.uncertainty import make_set, scenario

# Family: Gymnasium's module and class, and the scenario with most parameters, or ranges of our own.
FAMILIES = {
    "HalfCheetah": ("half_cheetah", "HalfCheetahEnv", "HalfCheetah-3"),
    "Hopper": ("hopper", "HopperEnv", "Hopper-3"),
    "Walker2d": ("walker2d", "Walker2dEnv", "Walker2d-3"),
    "Ant": ("ant", "AntEnv", "Ant-3"),
    "Swimmer": (
        "swimmer",
        "SwimmerEnv",
        {"torso_mass": (20, 70), "mid_mass": (20, 70), "back_mass": (20, 70)},
    ),
    "HumanoidStandup": ("humanoidstandup", "HumanoidStandupEnv", "HumanoidStandup-3"),
}
TASKS = tuple(itertools.product(FAMILIES, ("v4", "v5")))


class Recording(NamedTuple):
    """Gymnasium's answer in B models over T steps, on through termination.

    Paths begin with the start; so do those of `derived`, which has what the spec names.
    """

    omegas: np.ndarray  # [B, D], the nominal one first, then every corner of the box
    qpos: np.ndarray  # [B, T + 1, nq]
    qvel: np.ndarray  # [B, T + 1, nv]
    derived: dict[str, np.ndarray]  # [B, T + 1, ...]
    actions: np.ndarray  # [B, T, A]
    first_obs: np.ndarray  # [B, O], at the start
    obs: np.ndarray  # [B, T, O]
    reward: np.ndarray  # [B, T]
    terminated: np.ndarray  # [B, T]


def gymnasium_env(family: str, version: str):
    """Gymnasium's bare environment, with the one solver that both engines have."""
    reason = "parity needs gymnasium[mujoco]"
    pytest.importorskip("gymnasium", reason=reason)
    module, name, _ = FAMILIES[family]
    path = f"gymnasium.envs.mujoco.{module}_{version}"
    pytest.importorskip(path, reason=reason)
    mujoco.set_mju_user_warning(lambda _: None)  # or it would log to a file in this folder
    env = getattr(importlib.import_module(path), name)()
    mujoco.set_mju_user_warning(None)
    env.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return env


def world(family: str, version: str):
    """(task, set) of the family's largest scenario."""
    ranges = FAMILIES[family][2]
    if isinstance(ranges, str):
        return scenario(ranges, version)
    task = make(f"{family}-{version}")
    return task, make_set(task, ranges)


def omegas_of(task, box) -> np.ndarray:
    """The nominal omega and every corner, [1 + 2**D, D]."""
    corners = itertools.product(*zip(box.low, box.high, strict=True))
    return np.array([box.nominal(task.host.model), *corners])


def record(family: str, version: str, steps: int) -> Recording:
    """Steps Gymnasium's robot with uniformly random actions."""
    env, (task, box) = gymnasium_env(family, version), world(family, version)
    omegas = omegas_of(task, box)
    qpos, qvel = initial_states(task, len(omegas), seed=3)
    shape = (len(omegas), steps, task.action_size)
    actions = np.random.default_rng(4).uniform(task.action_low, task.action_high, shape)
    rows, derived = [], []
    for omega, q, v, plan in zip(omegas, qpos, qvel, actions, strict=True):
        for leaf, value in zip(box.leaves, omega, strict=True):
            getattr(env.model, leaf.field)[leaf.slices] = value
        mujoco.mj_resetData(env.model, env.data)
        env.set_state(q, v)
        first, out, states = env._get_obs(), [], [_state(env, task)]
        for action in plan:
            out.append(env.step(action)[:3])
            states.append(_state(env, task))
        path, velocities, more = zip(*states, strict=True)
        derived.append(stack(more))
        columns = (np.array(x) for x in zip(*out, strict=True))
        rows.append((np.array(path), np.array(velocities), first, *columns))
    env.close()
    path, velocities, *answer = map(np.stack, zip(*rows, strict=True))
    return Recording(omegas, path, velocities, stack(derived), actions, *answer)


def _state(env, task):
    return env.data.qpos.copy(), env.data.qvel.copy(), derived_of(task.host.spec, env.data)
