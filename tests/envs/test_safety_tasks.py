# SPDX-License-Identifier: Apache-2.0
"""Velocity tasks: Safety-Gymnasium's limits, and one cost in both engines."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import host, mujoco_tasks, safety_tasks
from jaxsafe.envs.mujoco_tasks import state_at
from jaxsafe.envs.uncertainty import make_set

pytest.importorskip("gymnasium", reason="the robots are Gymnasium's")

# As in Safety-Gymnasium's tasks/safe_velocity/*_v1.py.
LIMITS = {
    "HalfCheetah": 3.2096,
    "Hopper": 0.7402,
    "Walker2d": 2.3415,
    "Ant": 2.6222,
    "Swimmer": 0.2282,
}
make = functools.cache(safety_tasks.make)


def task_of(robot: str):
    return make(f"Safety{robot}Velocity-v1")


@pytest.mark.parametrize("robot", LIMITS)
def test_cost_is_one_above_the_limit_only(robot):
    spec, model = task_of(robot).host
    seconds = model.opt.timestep * spec.frame_skip
    shift = LIMITS[robot] * seconds * np.array([1 - 1e-6, 1 + 1e-6, -2, 0])
    before, after = np.zeros((4, model.nq)), np.zeros((4, model.nq))
    after[:, 0] = shift
    derived_before, derived = ({"xpos": np.zeros((4, 2, 3))} for _ in range(2))
    derived["xpos"][:, 1, 0] = shift
    others = (np.zeros((4, model.nv)), np.zeros((4, model.nu)), np.zeros(4, bool))
    for xp in (np, jnp):
        cost = spec.cost(xp, before, after, *others, derived_before, derived)
        backwards = float(robot == "Ant")  # only its speed has no sign
        with jax.enable_x64(True):
            np.testing.assert_array_equal(cost, [0, 1, backwards, 0])


def test_ant_s_speed_is_planar():
    spec = task_of("Ant").host.spec
    before, derived = {"xpos": np.zeros((3, 2, 3))}, {"xpos": np.zeros((3, 2, 3))}
    step = 0.05 * 2.6222
    derived["xpos"][:, 1] = [
        [0.7, 0.72, 0],
        [0.6, -0.81, 0],
        [0.7, 0.7, 9],
    ]
    derived["xpos"] *= step
    nothing = np.zeros((3, 15)), np.zeros((3, 15)), np.zeros((3, 14)), None, None
    np.testing.assert_array_equal(spec.cost(np, *nothing, before, derived), [1, 1, 0])


@pytest.mark.parametrize("robot", LIMITS)
def test_all_but_name_and_cost_is_gymnasium_s_v4(robot):
    spec = task_of(robot).host.spec
    theirs = mujoco_tasks.SPECS[f"{robot}-v4"]
    for name in ("asset", "frame_skip", "observe", "terminated", "reward", "derived", "obs_scale"):
        assert getattr(spec, name) == getattr(theirs, name)
    assert theirs.cost is None and task_of(robot).max_episode_steps == 1000


def crossing(robot: str, speeds: np.ndarray):
    """Starts that move along x at `speeds` [B]: `(qpos [B, nq], qvel [B, nv])`."""
    task = task_of(robot)
    qpos, qvel = host.initial_states(task, len(speeds), seed=0)
    qvel[:] = 0
    qvel[:, 0] = speeds
    return task, qpos, qvel


@pytest.mark.parametrize(
    "robot",
    [
        "Swimmer",
        "HalfCheetah",
        *(pytest.param(r, marks=pytest.mark.slow) for r in ("Hopper", "Ant")),
    ],
)
def test_cost_in_mjx_equals_mujoco_c(robot):
    speeds = LIMITS[robot] * np.linspace(0.2, 3, 24)
    task, qpos, qvel = crossing(robot, speeds)
    plan = np.random.default_rng(1).uniform(-0.5, 0.5, (24, 1, task.action_size))
    rows = zip(qpos, qvel, plan, strict=True)
    theirs = [host.trajectory(task, task.host.model, *row) for row in rows]
    theirs_cost = np.array([x.cost[0] for x in theirs])
    place = jax.vmap(lambda q, v: state_at(task, task.model, q, v))
    state = place(jnp.asarray(qpos, jnp.float32), jnp.asarray(qvel, jnp.float32))
    step = jax.jit(jax.vmap(task.step, in_axes=(None, 0, 0)))
    _, timestep = step(task.model, state, jnp.asarray(plan[:, 0], jnp.float32))
    np.testing.assert_array_equal(timestep.cost, theirs_cost)
    assert 0 < theirs_cost.sum() < 24 and timestep.cost.dtype == np.float32


def test_scores_hold_the_costs_of_a_trajectory():
    task = safety_tasks.make("SafetySwimmerVelocity-v1", max_episode_steps=40)
    box = make_set(task, {"torso_mass": (20, 70)})
    omega = box.nominal(task.host.model)[None]

    def swim(obs):
        return np.sign(obs[..., 1:3] + obs[..., 5:7])

    scores = host.score(task, swim, box, omega, episodes=3, seed=0, num_threads=1)
    assert scores.costs.shape == scores.returns.shape and scores.costs.max() > 0
    for episode, start in enumerate(zip(*host.initial_states(task, 3, 0), strict=True)):
        plan, obs, (qpos, qvel) = [], None, start
        obs = task.host.spec.observe(np, qpos, qvel, {}).astype(np.float32)
        for _ in range(40):
            plan.append(swim(obs))
            path = host.trajectory(task, task.host.model, *start, np.array(plan))
            obs = path.obs[-1].astype(np.float32)
        assert path.cost.sum() == scores.costs[0, 0, episode]
        assert set(path.cost) <= {0.0, 1.0}


def test_tasks_without_a_cost_score_zero(pendulum):
    task, _ = pendulum
    path = host.trajectory(task, task.host.model, np.zeros(2), np.zeros(2), np.ones((3, 1)))
    np.testing.assert_array_equal(path.cost, np.zeros(3))


def test_a_shorter_episode_is_truncated_sooner():
    task = safety_tasks.make("SafetyHalfCheetahVelocity-v1", max_episode_steps=200)
    assert task.max_episode_steps == 200 and task.name == "SafetyHalfCheetahVelocity-v1"
    assert safety_tasks.make("Run-v0", 30).max_episode_steps == 30
    assert safety_tasks.make("Run-v0").max_episode_steps == 100


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("SafetyAntVelocity-v0", None, "Did you mean 'SafetyAntVelocity-v1'"),
        ("SafetyAntVelocity-v1", 0, "max_episode_steps=0 is out of range"),
    ],
)
def test_errors(name, steps, message):
    with pytest.raises(UserError, match=message):
        safety_tasks.make(name, steps)
