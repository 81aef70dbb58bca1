# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import host, host_steps
from jaxsafe.envs.mujoco_tasks import make
from jaxsafe.envs.uncertainty import make_set

from .recordings import GAINS, OMEGAS, controller


def weak(obs):
    return 0.1 * controller(obs)


@pytest.mark.parametrize("version", ["v4", "v5"])
def test_trajectory_equals_gymnasium_exactly(version, request):
    recording = request.getfixturevalue(f"gym_{version}")
    task = make(f"InvertedPendulum-{version}")
    box = make_set(task, {"pole_mass": (1, 31), "cart_mass": (1, 11)})
    for omega, start, actions, obs, reward, terminated in zip(
        recording.omegas,
        recording.start,
        recording.actions,
        recording.obs,
        recording.reward,
        recording.terminated,
        strict=True,
    ):
        model = box.apply_host(task.host.model, omega)
        ours = host.trajectory(task, model, start[:2], start[2:], actions)
        np.testing.assert_array_equal(ours.obs, obs)
        np.testing.assert_array_equal(ours.reward, reward)
        np.testing.assert_array_equal(ours.terminated, terminated)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_step_batch_equals_trajectory(pendulum, gym_v5, num_threads):
    task, box = pendulum
    spec, nominal = task.host
    models = [box.apply_host(nominal, omega) for omega in gym_v5.omegas]
    qpos, qvel = gym_v5.start[:, :2], gym_v5.start[:, 2:]
    pool = host_steps.make_pool(nominal, num_threads)
    for t in range(20):
        qpos, qvel = host_steps.step_batch(spec, pool, models, qpos, qvel, gym_v5.actions[:, t])
        # Cold solver starts show at the rail only; measured 8e-15.
        np.testing.assert_allclose(np.concatenate([qpos, qvel], 1), gym_v5.obs[:, t], atol=1e-10)
    pool.rollout.close()


def test_known_controller_attains_the_ceiling_on_the_whole_grid(pendulum):
    task, box = pendulum
    scores = host.score(task, controller_of_one, box, box.grid(10), episodes=1, seed=21)
    assert scores.returns.shape == scores.steps.shape == (1, 100, 1)
    assert (scores.returns == 1000).all() and (scores.steps == 1000).all()


def controller_of_one(obs):
    assert obs.dtype == np.float32 and obs.shape[0] == 1
    return controller(obs)


def test_every_omega_and_policy_gets_the_same_starts(pendulum):
    task, box = pendulum
    omegas = OMEGAS[[0, 2, 0]]
    scores = host.score(task, weak, box, omegas, episodes=4, seed=0, num_policies=2)
    np.testing.assert_array_equal(scores.returns[0], scores.returns[1])
    np.testing.assert_array_equal(scores.returns[:, 0], scores.returns[:, 2])
    assert len(np.unique(scores.returns[0, 0])) > 1 and (scores.returns < 1000).all()
    other = host.score(task, weak, box, omegas, episodes=4, seed=1)
    assert (other.returns != scores.returns[:1]).any()


def test_each_policy_may_have_omegas_of_its_own(pendulum):
    task, box = pendulum
    own = np.stack([OMEGAS[:2], OMEGAS[2:4]])
    scores = host.score(task, weak, box, own, episodes=2, seed=0, num_policies=2)
    shared = host.score(task, weak, box, OMEGAS[:4], episodes=2, seed=0)
    np.testing.assert_array_equal(scores.returns.reshape(4, 2), shared.returns[0])
    assert len(np.unique(shared.returns)) > 2


def test_scores_do_not_depend_on_threads_or_on_the_other_rows(pendulum):
    task, box = pendulum
    one = host.score(task, weak, box, OMEGAS, 3, seed=0, num_threads=1)
    two = host.score(task, weak, box, OMEGAS, 3, seed=0, num_threads=2)
    alone = host.score(task, weak, box, OMEGAS[1:2], 3, seed=0)
    np.testing.assert_array_equal(one.returns, two.returns)
    np.testing.assert_array_equal(one.returns[:, 1:2], alone.returns)


def test_policies_are_told_apart(pendulum):
    task, box = pendulum
    gains = np.stack([GAINS, 0 * GAINS])

    def policy(obs):
        assert obs.shape == (2, 2, 4)
        return np.einsum("pbo,po->pb", obs, gains)[..., None]

    scores = host.score(task, policy, box, OMEGAS[:1], 2, seed=0, num_policies=2)
    assert (scores.returns[0] == 1000).all() and (scores.returns[1] < 200).all()


def test_nan_actions_make_nan_scores_of_that_policy_only(pendulum):
    task, box = pendulum
    gains = np.stack([GAINS, np.nan * GAINS])

    def policy(obs):
        return np.einsum("pbo,po->pb", obs, gains)[..., None]

    scores = host.score(task, policy, box, OMEGAS[:2], 2, seed=0, num_policies=2)
    assert (scores.returns[0] == 1000).all() and np.isnan(scores.returns[1]).all()
    assert not scores.steps[1].any()


def test_v4_pays_one_more_for_a_fall(pendulum):
    task, box = pendulum
    v4 = make("InvertedPendulum-v4")
    a, b = (host.score(t, weak, box, OMEGAS[:1], 2, seed=0) for t in (v4, task))
    np.testing.assert_array_equal(a.steps, b.steps)
    np.testing.assert_array_equal(a.returns, b.returns + 1)
    np.testing.assert_array_equal(a.returns, a.steps)


@pytest.mark.parametrize("policy", [weak, controller])
def test_progress_rises_to_one(pendulum, policy):
    task, box = pendulum
    seen: list[float] = []
    host.score(task, policy, box, OMEGAS[:1], 1, seed=0, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0 and seen.count(1.0) == 1
    assert len(seen) <= 100


def test_initial_states_are_the_tasks_reset_noise(pendulum):
    qpos, qvel = host.initial_states(pendulum[0], 1000, seed=4)
    both = np.concatenate([qpos, qvel], 1)
    assert both.shape == (1000, 4) and 0.0099 < np.abs(both).max() <= 0.01
    np.testing.assert_array_equal(qpos, host.initial_states(pendulum[0], 1000, seed=4)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "episodes=0 is out of range"),
        ({"num_policies": 0}, "num_policies=0 is out of range"),
        ({"num_threads": 0}, "num_threads=0 is out of range"),
        ({"omegas": np.ones(2)}, r"shape \(2,\): give \[N, 2\].*pole_mass, cart_mass"),
        ({"omegas": np.ones((0, 2))}, r"shape \(0, 2\): give \[N, 2\], N >= 1"),
        ({"omegas": [[1, 1], [np.nan, 1]]}, r"omegas\[1\]=\[nan, 1.0\] is not finite"),
        ({"omegas": np.ones((2, 3, 2))}, r"shape \(2, 3, 2\): give \[N, 2\]"),
        ({"omegas": np.ones((1, 2, 2, 2))}, r"shape \(1, 2, 2, 2\): give \[N, 2\]"),
        ({"policy": lambda obs: obs}, r"shape \(1, 1, 4\), expected \(1, 1, 1\)"),
        ({"episodes": 10**12}, r"GiB.*Lower episodes"),
    ],
)
def test_errors(pendulum, change, message):
    task, box = pendulum
    good = {"policy": weak, "uncertainty": box, "omegas": np.ones((1, 2)), "episodes": 1, "seed": 0}
    with pytest.raises(UserError, match=message) as error:
        host.score(task, **(good | change))
    assert "\n" not in str(error.value)
