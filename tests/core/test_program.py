# SPDX-License-Identifier: Apache-2.0
"""A stage may bring a program of its own, which the loop then trains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import loop, parallel, program
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.run import Folder
from tests.core import toy


class FromOnes(program.Program):
    """Starts every seed from weights of 1, as a stage does that follows another."""

    def __post_init__(self):
        super().__post_init__()
        fresh = self.init

        def init(keys):
            state = fresh(keys)
            return state.replace(weights=jnp.ones_like(state.weights))

        self.init = init


def test_a_stage_without_one_gets_the_plain_program():
    mesh, options = parallel.seed_mesh(1), RunOptions(num_seeds=2)
    plain = program.build(toy.stage("line", toy.Config()), options, mesh)
    assert type(plain) is program.Program
    own = dataclasses.replace(toy.stage("line", toy.Config()), build=FromOnes)
    assert type(program.build(own, options, mesh)) is FromOnes


def test_the_loop_trains_what_the_stage_builds(tmp_path):
    config = toy.Config(steps=5, lr=0.0)
    own = dataclasses.replace(toy.stage("line", config), build=FromOnes)
    options = RunOptions(num_seeds=2, log_every=5, progress=False)
    built = program.build(own, options, parallel.seed_mesh(1))
    trained = loop.train(built, Folder(tmp_path), loop.Stop())
    np.testing.assert_array_equal(jax.device_get(trained.state.weights), 1.0)
    assert built.describe()["parameters"] == config.width


def test_parameters_may_be_a_part_of_an_array():
    part = dataclasses.replace(
        toy.stage("line", toy.Config()), parameters=lambda state: state.weights[:1]
    )
    built = program.build(part, RunOptions(num_seeds=2), parallel.seed_mesh(1))
    assert built.num_parameters() == 1
