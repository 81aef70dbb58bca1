# SPDX-License-Identifier: Apache-2.0
"""Trained policies as arrays: they act as the learner that made them, and pass through a file."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import source_policy
from jaxsafe import m2td3
from jaxsafe.core.checks import UserError
from jaxsafe.image_to_semantics import controllers, evaluate, worlds
from jaxsafe.image_to_semantics.collect import Recipe
from jaxsafe.image_to_semantics.experiment import Data, Experiment, Source
from jaxsafe.m2td3.networks import init_actor

OBS = np.random.default_rng(0).normal(size=(7, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def arm():
    return worlds.make("reacher")


@pytest.fixture(scope="module")
def learnt(arm):
    """An actor of the binary's TD3, and what it is among arrays."""
    config = source_policy.config_of(Experiment())
    task = arm.task
    world = m2td3.make_world(task.obs_scale, task.action_low, task.action_high, [1.0], [1.0])
    actor = jax.tree.map(lambda x: 3 * x, init_actor(jax.random.key(0), config, world))
    mine = controllers.of_perceptron(actor, world.obs_scale, world.action_low, world.action_high)
    return m2td3.act(actor, OBS, config, world), mine


def test_a_controller_acts_as_the_learner_it_comes_from(learnt, arm):
    expected, mine = learnt
    assert np.abs(expected).max() > 0.02
    np.testing.assert_allclose(controllers.act(jnp, mine, OBS), expected, atol=1e-6)
    as_arrays = jax.tree.map(np.asarray, mine)
    np.testing.assert_allclose(controllers.control(arm, as_arrays, np, OBS), expected, atol=1e-6)


def test_without_a_controller_the_world_acts_itself(arm):
    np.testing.assert_array_equal(controllers.control(arm, None, np, OBS), arm.policy(np, OBS))


def test_limits_by_hand():
    """One layer without inputs' say: the middle plus half the range times tanh of the bias."""
    one = controllers.Controller(
        np.ones(2), np.array([0.0]), np.array([4.0]), (np.zeros((2, 1)),), (np.array([0.5]),)
    )
    found = controllers.act(np, one, np.ones((3, 2)))
    np.testing.assert_allclose(found, np.full((3, 1), 2 + 2 * np.tanh(0.5)))


def test_a_file_gives_it_back(learnt, arm, tmp_path):
    path = controllers.save(tmp_path / "policy.hdf5", learnt[1])
    for a, b in zip(
        jax.tree.leaves(controllers.load(path, arm)), jax.tree.leaves(learnt[1]), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_files_that_do_not_fit_are_refused(learnt, arm, tmp_path):
    with pytest.raises(UserError, match=r"there is no such file"):
        controllers.load(tmp_path / "none.hdf5", arm)
    path = controllers.save(tmp_path / "policy.hdf5", learnt[1])
    with pytest.raises(UserError, match=r"key 'scale' has shape \(8,\).*hopper has \(11,\) there"):
        controllers.load(path, worlds.make("hopper"))
    with h5py.File(path, "r+") as file:
        file["bias_1"][0] = np.nan
    with pytest.raises(UserError, match=r"key 'bias_1' has shape \(128,\), or is not finite"):
        controllers.load(path, arm)
    with h5py.File(path, "r+") as file:
        del file["bias_1"]
    with pytest.raises(UserError, match=r"key 'bias_1' is missing"):
        controllers.load(path, arm)
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(UserError, match=r"key 'scale' is missing"):
        controllers.load(path, arm)


@pytest.mark.slow
def test_td3_solves_the_arm(arm):
    """Half of the default's steps: the return on fresh starts comes near the policy by hand."""
    experiment = Experiment()
    stage = source_policy.stage(experiment)
    run = jax.jit(stage.init)(jax.random.key(0))
    chunk = jax.jit(stage.chunk, static_argnums=2, donate_argnums=0)
    for first in range(0, 10_000, 2000):
        run, _ = chunk(run, jnp.int32(first), 2000)
    learnt = jax.tree.map(np.asarray, stage.result(run))
    recipe = Recipe("reacher", 0, 12345)
    by_hand = evaluate.true_state_returns(recipe, 50).mean()
    trained = evaluate.true_state_returns(recipe, 50, learnt).mean()
    assert trained > by_hand - 4 > -20


@pytest.mark.parametrize("name", ["reacher", "half_cheetah"])
def test_a_policy_can_be_trained_in_worlds_whose_parameters_are_of_many_bodies(name):
    """The half-cheetah's first parameter, friction, is that of all its geoms."""
    stage = source_policy.stage(Experiment(data=Data(world=name), source=Source(num_envs=4)))
    assert stage.num_steps == Source().steps and stage.name == source_policy.NAME
