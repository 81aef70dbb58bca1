# SPDX-License-Identifier: Apache-2.0
"""A policy trained in a source world by TD3; where image-to-semantics meets M2TD3."""

import numpy as np

from jaxsafe.core.program import Stage
from jaxsafe.envs import uncertainty
from jaxsafe.image_to_semantics import controllers, worlds
from jaxsafe.image_to_semantics.experiment import Experiment
from jaxsafe.m2td3 import algorithm, train
from jaxsafe.m2td3 import config as td3

NAME = "policy"  # of the stage
# Of the order of discounted returns; the reacher's are metres.
_CRITIC_SCALE = {"reacher": 5.0, "hopper": 20.0, "half_cheetah": 20.0}


def config_of(experiment: Experiment) -> td3.Config:
    """TD3 as M2TD3 has it: the set is a point, and its critics see no omega."""
    how, envs = experiment.source, experiment.source.num_envs
    return td3.Config(
        method="td3",
        total_steps=how.steps,
        num_envs=envs,
        updates_per_step=how.updates,
        replay_capacity=4000 * envs,
        batch_size=256,
        hidden=how.hidden,
        gamma=how.gamma,
        critic_scale=_CRITIC_SCALE[experiment.data.world],
        policy_noise=0.1,
        noise_clip=0.2,
        episode_steps=worlds.STEPS[experiment.data.world],
    )


def stage(experiment: Experiment) -> Stage:
    """Trains a policy on semantics in the source world."""
    config, task = config_of(experiment), worlds.make(experiment.data.world).task
    # One that is a single number: some stand for all bodies, which differ.
    name, leaf = next((n, leaf) for n, leaf in task.parameters.items() if None not in leaf.index)
    nominal = float(np.asarray(getattr(task.model, leaf.field))[leaf.slices])
    point = uncertainty.make_set(task, {name: (nominal, nominal)})

    def result(run: train.Run) -> controllers.Controller:
        world = run.learner.world
        actor = algorithm.scored_actor(run.learner, config)
        scales = world.obs_scale, world.action_low, world.action_high
        return controllers.of_perceptron(actor, *scales)

    return train.stage(NAME, config, task, point, result)
