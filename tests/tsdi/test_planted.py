# SPDX-License-Identifier: Apache-2.0
"""A bias planted on a random Llama: found within its error, and taken off exactly."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import tsdi
from jaxsafe.tsdi import decode, planted
from tests.tsdi import llamas

MANY = dataclasses.replace(llamas.BIAS, draws=2048, batch_size=64)


@pytest.mark.parametrize("space", ["logprob", "centred_logit"])
def test_a_bias_free_of_context_is_found_and_taking_it_off_gives_the_reference(space):
    world, config = llamas.drawn(), dataclasses.replace(llamas.BIAS, space=space)
    state = llamas.estimate(world, config)
    table = tsdi.table(state, config)
    assert planted.rmse(table, world, state.reference) < 3e-6
    before, after = planted.distances(world, table, llamas.ids(seed=9)[0], config)
    assert (before > 0.1).all() and (after < 2e-6).all()


def test_probabilities_leave_a_distance():
    config = dataclasses.replace(llamas.BIAS, space="prob")
    world = llamas.drawn()
    table = tsdi.table(llamas.estimate(world, config), config)
    ids = llamas.ids(seed=9)[0]
    _, after = planted.distances(world, table, ids, config)
    assert after.mean() > 0.02 and 0.01 < planted.clipped(world, table, ids, config) < 0.5


def test_the_error_is_the_stated_one_and_falls_as_the_root_of_the_draws():
    world, misses, stated = llamas.drawn(noise=1.0), [], []
    for draws in (128, 2048):
        config = dataclasses.replace(MANY, draws=draws)
        states = [llamas.estimate(world, config, seed) for seed in range(3)]
        tables = [tsdi.table(state, config) for state in states]
        pairs = zip(tables, states, strict=True)
        misses.append(np.mean([planted.rmse(t, world, s.reference) for t, s in pairs]))
        stated.append(np.mean([t.error for t in tables]))
    assert misses[1] / misses[0] == pytest.approx(0.25, abs=0.05)
    np.testing.assert_allclose(np.array(misses) / stated, 1.0, atol=0.15)
    assert stated[1] == pytest.approx(1.0 / np.sqrt(2048), rel=0.15)


def test_a_bias_of_some_prompts_needs_a_gate():
    """Half the prompts have it: plain correction leaves half of it there and spoils the rest."""
    world = llamas.drawn(hot=54)
    table = tsdi.table(llamas.estimate(world, MANY), MANY)
    ids = llamas.ids(MANY, seed=9)[:4].reshape(-1, llamas.SLOTS + 3)
    hot = (ids[:, : llamas.SLOTS] >= 54).any(1)
    share = hot.mean()
    assert 0.3 < share < 0.7
    before, after = planted.distances(world, table, ids, MANY)
    assert before[~hot].max() < 1e-6 and after[~hot].min() > 0.05
    assert 0.05 < after[hot].mean() < before[hot].mean()
    gated = decode.gate(jnp.where(hot, 0.0, 1.0), 0.0, 1.0, 1 / share)
    _, spared = planted.distances(world, table, ids, MANY, gated)
    # The share among the estimate's prompts is known to a few per cent.
    assert spared[~hot].max() < 1e-6 and spared[hot].mean() < 0.1 * before[hot].mean()
