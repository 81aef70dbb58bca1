# SPDX-License-Identifier: Apache-2.0
"""Hopper, HalfCheetah, Walker2d, Ant, Swimmer and HumanoidStandup, as in Gymnasium by default.

The functions follow Gymnasium's `envs/mujoco/*_v5.py` and `*_v4.py` term by term, in its order of
summation, so that MuJoCo C gives the same bits. The robots themselves are Gymnasium's files.
"""

import dataclasses

from jaxsafe.envs.mujoco_spec import MujocoSpec


def _control(xp, weight, action):
    return weight * xp.square(action).sum(-1)


def _flat(array):
    """Joins the last two axes."""
    return array.reshape(*array.shape[:-2], -1)


def _without_x(xp, qpos, qvel, derived=()):
    return xp.concatenate([qpos[..., 1:], qvel], axis=-1)


def _without_x_clipped(xp, qpos, qvel, derived=()):
    return _without_x(xp, qpos, xp.clip(qvel, -10, 10))


def _never(xp, qpos, qvel):
    return xp.zeros(qpos.shape[:-1], bool)


def _run(xp, before, qpos, qvel, action, terminated, derived_before=(), derived=()):
    return (qpos[..., 0] - before[..., 0]) / 0.05 - _control(xp, 0.1, action)


def _walk(xp, before, qpos, qvel, action, terminated, derived_before=(), derived=()):
    healthy = xp.where(terminated, 0.0, 1.0)
    return (qpos[..., 0] - before[..., 0]) / 0.008 + healthy - _control(xp, 1e-3, action)


def _walk_v4(xp, before, qpos, qvel, action, terminated, derived_before=(), derived=()):
    return _walk(xp, before, qpos, qvel, action, xp.zeros_like(terminated))


_HALF_CHEETAH_V5 = MujocoSpec(
    name="HalfCheetah-v5",
    asset="gymnasium:half_cheetah.xml",
    frame_skip=5,
    max_episode_steps=1000,
    reset_noise=0.1,
    reset_normal=True,
    explore_qpos=(0.0, *[0.2] * 8),
    explore_qvel=(1.0,) * 9,
    obs_scale=(*[1.0] * 8, *[0.3] * 3, *[0.1] * 6),
    ls_iterations=20,
    parameters=(
        ("friction", "geom_friction", None),
        ("torso_mass", "body_mass", "torso"),
        ("back_thigh_mass", "body_mass", "bthigh"),
    ),
    observe=_without_x,
    terminated=_never,
    reward=_run,
)


def _hopper_terminated(xp, qpos, qvel):
    others = xp.concatenate([qpos[..., 2:], qvel], axis=-1)
    z, angle = qpos[..., 1], qpos[..., 2]
    bounded = (xp.abs(others) < 100).all(-1)
    return ~(bounded & (z > 0.7) & (z < xp.inf) & (xp.abs(angle) < 0.2))


_HOPPER_V5 = MujocoSpec(
    name="Hopper-v5",
    asset="gymnasium:hopper.xml",
    frame_skip=4,
    max_episode_steps=1000,
    reset_noise=5e-3,
    explore_qpos=(0.0, 0.05, 0.1, 0.1, 0.1, 0.1),
    explore_qvel=(0.5,) * 6,
    obs_scale=(1.0, 5.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3),
    ls_iterations=20,
    parameters=(
        ("floor_friction", "geom_friction", "floor"),
        ("friction", "geom_friction", None),
        ("torso_mass", "body_mass", "torso"),
        ("thigh_mass", "body_mass", "thigh"),
    ),
    observe=_without_x_clipped,
    terminated=_hopper_terminated,
    reward=_walk,
)


def _walker_terminated(xp, qpos, qvel):
    z, angle = qpos[..., 1], qpos[..., 2]
    return ~((z > 0.8) & (z < 2.0) & (xp.abs(angle) < 1.0))


_WALKER_V5 = dataclasses.replace(
    _HOPPER_V5,
    name="Walker2d-v5",
    asset="gymnasium:walker2d_v5.xml",
    explore_qpos=(0.0, 0.05, 0.2, *[0.1] * 6),
    explore_qvel=(0.5,) * 9,
    obs_scale=(1.0, 2.0, *[1.0] * 6, 0.3, 0.3, *[0.15] * 7),
    terminated=_walker_terminated,
)


def _ant_terminated(xp, qpos, qvel):
    finite = xp.isfinite(qpos).all(-1) & xp.isfinite(qvel).all(-1)
    return ~(finite & (qpos[..., 2] >= 0.2) & (qpos[..., 2] <= 1.0))


def _without_xy(xp, qpos, qvel, derived=()):
    return xp.concatenate([qpos[..., 2:], qvel], axis=-1)


def _contact_forces(xp, derived):
    return xp.clip(derived["cfrc_ext"], -1.0, 1.0)


def _ant_obs(xp, qpos, qvel, derived):
    forces = _flat(_contact_forces(xp, derived)[..., 1:, :])
    return xp.concatenate([qpos[..., 2:], qvel, forces], axis=-1)


def _torso_speed(derived_before, derived):
    return (derived["xpos"][..., 1, 0] - derived_before["xpos"][..., 1, 0]) / 0.05


def _ant_reward(xp, before, qpos, qvel, action, terminated, derived_before, derived):
    contact = 5e-4 * _flat(xp.square(_contact_forces(xp, derived))).sum(-1)
    healthy = xp.where(terminated, 0.0, 1.0)
    costs = _control(xp, 0.5, action) + contact
    return _torso_speed(derived_before, derived) + healthy - costs


def _ant_reward_v4(xp, before, qpos, qvel, action, terminated, derived_before, derived):
    return _torso_speed(derived_before, derived) + 1.0 - _control(xp, 0.5, action)


_ANT_V5 = MujocoSpec(
    name="Ant-v5",
    asset="gymnasium:ant.xml",
    frame_skip=5,
    max_episode_steps=1000,
    reset_noise=0.1,
    reset_normal=True,
    explore_qpos=(0.0, 0.0, 0.1, *[0.2] * 12),
    explore_qvel=(1.0,) * 14,
    obs_scale=(*[1.0] * 13, *[0.3] * 14, *[1.0] * 78),
    ls_iterations=20,
    parameters=(
        ("torso_mass", "body_mass", "torso"),
        ("front_left_leg_mass", "body_mass", "front_left_leg"),
        ("front_left_ankle_mass", "body_mass", 4),  # the MJCF gives it no name
        ("front_right_leg_mass", "body_mass", "front_right_leg"),
    ),
    observe=_ant_obs,
    terminated=_ant_terminated,
    reward=_ant_reward,
    derived=("xpos", "cfrc_ext"),
)


def _swim(xp, before, qpos, qvel, action, terminated, derived_before=(), derived=()):
    return (qpos[..., 0] - before[..., 0]) / 0.04 - _control(xp, 1e-4, action)


_SWIMMER_V5 = MujocoSpec(
    name="Swimmer-v5",
    asset="gymnasium:swimmer.xml",
    frame_skip=4,
    max_episode_steps=1000,
    reset_noise=0.1,
    explore_qpos=(0.0, 0.0, 0.5, 0.5, 0.5),
    explore_qvel=(0.5, 0.5, 1.0, 1.0, 1.0),
    obs_scale=(*[1.0] * 5, *[0.5] * 3),
    ls_iterations=20,
    parameters=(
        ("torso_mass", "body_mass", "torso"),
        ("mid_mass", "body_mass", "mid"),
        ("back_mass", "body_mass", "back"),
    ),
    observe=_without_xy,
    terminated=_never,
    reward=_swim,
)


def _humanoid_obs(xp, qpos, qvel, derived):
    """Leaves out the world's rows and the root's actuator forces, all zeros, unlike v4."""
    bodies = [_flat(derived[name][..., 1:, :]) for name in ("cinert", "cvel")]
    forces = [derived["qfrc_actuator"][..., 6:], _flat(derived["cfrc_ext"][..., 1:, :])]
    return xp.concatenate([qpos[..., 2:], qvel, *bodies, *forces], axis=-1)


def _humanoid_obs_v4(xp, qpos, qvel, derived):
    bodies = [_flat(derived[name]) for name in ("cinert", "cvel")]
    forces = [derived["qfrc_actuator"], _flat(derived["cfrc_ext"])]
    return xp.concatenate([qpos[..., 2:], qvel, *bodies, *forces], axis=-1)


def _stand_up(xp, before, qpos, qvel, action, terminated, derived_before, derived):
    impact = xp.minimum(0.5e-6 * _flat(xp.square(derived["cfrc_ext"])).sum(-1), 10.0)
    return qpos[..., 2] / 0.003 - _control(xp, 0.1, action) - impact + 1


# Inertias of a body: six moments, three mass times offset, the mass; then velocities, forces.
_CINERT_SCALE = (*[1.0] * 9, 0.2)
_HUMANOID_V5 = MujocoSpec(
    name="HumanoidStandup-v5",
    asset="gymnasium:humanoidstandup.xml",
    frame_skip=5,
    max_episode_steps=1000,
    reset_noise=0.01,
    explore_qpos=(0.0, 0.0, 0.05, *[0.1] * 21),
    explore_qvel=(0.5,) * 23,
    obs_scale=(
        *[1.0] * 22,
        *[0.1] * 23,
        *_CINERT_SCALE * 13,
        *[0.1] * 78,
        *[0.02] * 17,
        *[0.01] * 78,
    ),
    ls_iterations=20,
    parameters=(
        ("torso_mass", "body_mass", "torso"),
        ("right_foot_mass", "body_mass", "right_foot"),
        ("left_thigh_mass", "body_mass", "left_thigh"),
    ),
    observe=_humanoid_obs,
    terminated=_never,
    reward=_stand_up,
    derived=("cinert", "cvel", "qfrc_actuator", "cfrc_ext"),
    newton=True,
)

LOCOMOTION = (
    _HALF_CHEETAH_V5,
    dataclasses.replace(_HALF_CHEETAH_V5, name="HalfCheetah-v4"),
    _HOPPER_V5,
    dataclasses.replace(_HOPPER_V5, name="Hopper-v4", reward=_walk_v4),
    _WALKER_V5,
    dataclasses.replace(
        _WALKER_V5, name="Walker2d-v4", asset="gymnasium:walker2d.xml", reward=_walk_v4
    ),
    _ANT_V5,
    dataclasses.replace(
        _ANT_V5,
        name="Ant-v4",
        observe=_without_xy,
        reward=_ant_reward_v4,
        obs_scale=_ANT_V5.obs_scale[:27],
        derived=("xpos",),
    ),
    _SWIMMER_V5,
    dataclasses.replace(_SWIMMER_V5, name="Swimmer-v4"),
    _HUMANOID_V5,
    dataclasses.replace(
        _HUMANOID_V5,
        name="HumanoidStandup-v4",
        observe=_humanoid_obs_v4,
        obs_scale=(
            *_HUMANOID_V5.obs_scale[:45],
            *_CINERT_SCALE * 14,
            *[0.1] * 84,
            *[0.02] * 23,
            *[0.01] * 84,
        ),
    ),
)
