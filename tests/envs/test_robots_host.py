# SPDX-License-Identifier: Apache-2.0
"""The legged robots in MuJoCo C, against Gymnasium."""

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import host, host_steps, mujoco_spec
from jaxsafe.envs.mujoco_tasks import SPECS

from .robots import TASKS, gymnasium_env, record, world

STEPS = 60
# Of these the observation needs more than positions and velocities.
DERIVED = [("Ant", "v4"), ("Ant", "v5"), ("HumanoidStandup", "v5")]


@pytest.mark.parametrize(("family", "version"), TASKS)
def test_trajectory_equals_gymnasium_exactly(family, version):
    theirs, (task, box) = record(family, version, STEPS), world(family, version)
    for row, omega in enumerate(theirs.omegas):
        model = box.apply_host(task.host.model, omega)
        ours = host.trajectory(
            task, model, theirs.qpos[row, 0], theirs.qvel[row, 0], theirs.actions[row]
        )
        np.testing.assert_array_equal(ours.obs, theirs.obs[row])
        np.testing.assert_array_equal(ours.reward, theirs.reward[row])
        np.testing.assert_array_equal(ours.terminated, theirs.terminated[row])
    can_end = family in ("Hopper", "Walker2d", "Ant")
    assert theirs.terminated.any() == can_end and not theirs.terminated.all()


@pytest.mark.parametrize(("family", "version"), TASKS)
def test_spaces_and_constants_equal_gymnasium(family, version):
    env, (task, _) = gymnasium_env(family, version), world(family, version)
    spec, model = task.host
    registry = pytest.importorskip("gymnasium").envs.registration.registry
    assert task.max_episode_steps == registry[task.name].max_episode_steps == 1000
    assert spec.frame_skip == env.frame_skip
    assert (task.obs_size,) == env.observation_space.shape == task.obs_scale.shape
    assert len(spec.explore_qpos) == model.nq and len(spec.explore_qvel) == model.nv
    np.testing.assert_array_equal(task.action_low, env.action_space.low)
    np.testing.assert_array_equal(task.action_high, env.action_space.high)
    assert spec.reset_noise == getattr(env, "_reset_noise_scale", 0.01)  # v4's is a literal


@pytest.mark.parametrize(("family", "version"), TASKS)
def test_starts_are_distributed_as_gymnasiums(family, version):
    env, (task, _) = gymnasium_env(family, version), world(family, version)
    theirs = []
    for seed in range(300):
        env.reset(seed=seed)
        theirs.append(np.concatenate([env.data.qpos - env.init_qpos, env.data.qvel]))
    qpos, qvel = host.initial_states(task, 300, seed=1)
    ours = np.concatenate([qpos - task.host.model.qpos0, qvel], 1)
    nq = task.host.model.nq
    for part in (np.s_[:, :nq], np.s_[:, nq:]):
        a, b = ours[part], np.array(theirs)[part]
        assert abs(a.mean()) < 0.1 * a.std() and abs(a.std() / b.std() - 1) < 0.05
        assert abs((a**4).mean() / a.var() ** 2 - (b**4).mean() / b.var() ** 2) < 0.3
        assert a.shape == b.shape


@pytest.mark.parametrize(("family", "version"), DERIVED)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_step_batch_equals_gymnasium(family, version, num_threads):
    theirs, (task, box) = record(family, version, 3), world(family, version)
    spec, nominal = task.host
    models = [box.apply_host(nominal, omega) for omega in theirs.omegas]
    qpos, qvel = theirs.qpos[:, 0], theirs.qvel[:, 0]
    before = host_steps.begin(spec, models, qpos, qvel)
    np.testing.assert_array_equal(spec.observe(np, qpos, qvel, before), theirs.first_obs)
    pool = host_steps.make_pool(nominal, num_threads)
    for t in range(3):
        after, qvel, derived = host_steps.step_batch_derived(
            spec, pool, models, qpos, qvel, theirs.actions[:, t]
        )
        ended = spec.terminated(np, after, qvel)
        obs = spec.observe(np, after, qvel, derived)
        reward = spec.reward(np, qpos, after, qvel, theirs.actions[:, t], ended, before, derived)
        # The solver starts cold; forces on a contact show it most.
        np.testing.assert_allclose(obs, theirs.obs[:, t], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(reward, theirs.reward[:, t], rtol=1e-6, atol=1e-6)
        qpos, before = after, derived
    pool.rollout.close()


@pytest.mark.parametrize("family", ["Hopper", "Ant"])
def test_score_equals_the_sum_of_a_trajectorys_rewards(family):
    task, box = world(family, "v5")
    omega = box.nominal(task.host.model)
    scores = host.score(
        task,
        lambda obs: np.full((1, len(obs[0]), task.action_size), 0.3),
        box,
        omega[None],
        episodes=2,
        seed=0,
        num_threads=1,
    )
    starts = zip(*host.initial_states(task, 2, 0), strict=True)
    for episode, (qpos, qvel) in enumerate(starts):
        length = scores.steps[0, 0, episode]
        plan = np.full((length, task.action_size), 0.3)
        path = host.trajectory(task, task.host.model, qpos, qvel, plan)
        assert path.terminated[-1] or length == task.max_episode_steps
        np.testing.assert_allclose(path.reward.sum(), scores.returns[0, 0, episode], rtol=1e-3)


def test_healthy_ranges_are_open_and_nan_ends():
    cases = {
        "Hopper-v5": ([[0, 0.7], [0, 0.71], [0, np.inf], [0, np.nan]], [1, 0, 1, 1]),
        "Walker2d-v5": ([[0, 0.8], [0, 0.81], [0, 2.0], [0, np.nan]], [1, 0, 1, 1]),
        "Ant-v5": ([[0, 0, 0.2], [0, 0, 1.0], [0, 0, 1.01], [np.nan, 0, 0.5]], [0, 0, 1, 1]),
        "HalfCheetah-v5": ([[0, 9], [0, np.nan]], [0, 0]),
    }
    for name, (heads, ended) in cases.items():
        nq = len(SPECS[name].explore_qpos)
        qpos = np.array([[*head, *[0.0] * (nq - len(head))] for head in heads])
        qvel = np.zeros((len(qpos), len(SPECS[name].explore_qvel)))
        np.testing.assert_array_equal(SPECS[name].terminated(np, qpos, qvel), np.bool_(ended))


def test_without_gymnasium_the_error_names_the_fix(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(mujoco_spec.importlib.resources, "files", absent)
    with pytest.raises(UserError, match=r"Hopper-v5 .*pip install 'gymnasium<1\.4'") as error:
        mujoco_spec.compile_model(SPECS["Hopper-v5"])
    assert "\n" not in str(error.value)
