# SPDX-License-Identifier: Apache-2.0
"""Stages that train adapters: what moves, what the reference is, and what is written."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.core.flags import RunOptions
from jaxsafe.lm import decoder, hf, lora
from jaxsafe.sacpo import algorithm, sharded, stages, train
from jaxsafe.sacpo.config import Adapter, Stage, adapter_of, validate_stage

from .rows import FAST, MODEL, config, device, some
from .test_algorithm import moved
from .test_sharded import a_plan, core_stage

ADAPTER = Adapter(rank=2, alpha=8.0, targets=("q", "down"))


def adapted(loss="dpo", **changes):
    faster = dataclasses.replace(FAST, learning_rate=0.1)
    return config(loss, lora=ADAPTER, temperature=0.3, optimiser=faster, **changes)


@pytest.fixture(scope="module")
def pairs():
    return device(some(4, 2))


@pytest.fixture(scope="module")
def start():
    return decoder.init(jax.random.key(5), MODEL)


def alike(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_adapters_alone_move_and_have_moments(pairs, start):
    c = adapted()
    begun = algorithm.init(jax.random.key(0), c, start)
    after = moved(begun, c, pairs)
    alike(after.params, start)
    assert after.reference is None
    for name, pair in after.adapters.items():
        assert name in ADAPTER.targets
        for part in "ab":
            assert np.abs(pair[part] - begun.adapters[name][part]).max() > 1e-3
    trained = jax.tree.leaves(after.adapters)
    moments = [x for x in jax.tree.leaves(after.opt_state) if x.ndim]
    assert sorted(x.shape for x in moments) == sorted(x.shape for x in [*trained, *trained])


def test_the_gradient_is_that_of_the_whole_loss_on_the_adapters(pairs, start):
    """Its norm by finite differences."""
    c = adapted()
    state = moved(algorithm.init(jax.random.key(0), c, start), c, pairs, 1)

    @jax.jit
    def told(adapters):
        return algorithm.update(state.replace(adapters=adapters), pairs, c)[1]

    def loss(adapters):
        return float(told(adapters)["policy/loss"])

    metrics = told(state.adapters)
    total, h = 0.0, 2e-2
    for name, pair in state.adapters.items():
        for part in "ab":
            for i in np.ndindex(pair[part].shape):
                ends = []
                for sign in (1, -1):
                    changed = pair | {part: pair[part].at[i].add(sign * h)}
                    ends.append(loss(state.adapters | {name: changed}))
                total += ((ends[0] - ends[1]) / (2 * h)) ** 2
    np.testing.assert_allclose(metrics["policy/grad_norm"], np.sqrt(total), rtol=0.02)


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_the_reference_is_the_policy_with_its_adapters_off(loss, start):
    """Online equals cached sums of the start, after the adapters have moved."""
    batch = device(some(4, 2, labels=loss == "kto"))
    c = adapted(loss)
    state = moved(algorithm.init(jax.random.key(0), c, start), c, batch)
    known = batch._replace(reference=algorithm.answer_sums(start, batch, c))
    (_, online), (_, cached) = (algorithm.update(state, x, c) for x in (batch, known))
    assert abs(online["policy/margin"]) > 1e-3
    for name, value in online.items():
        np.testing.assert_allclose(value, cached[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_policy_is_the_start_with_adapters_merged(pairs, start):
    c = adapted()
    state = moved(algorithm.init(jax.random.key(0), c, start), c, pairs)
    merged = algorithm.policy(state, c)
    attached = lora.attach(start, state.adapters, adapter_of(c.stage))
    sums = [algorithm.answer_sums(params, pairs, c) for params in (merged, attached, start)]
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-5, atol=1e-5)
    assert np.abs(sums[0] - sums[2]).max() > 1e-2
    # Seeds are an axis ahead.
    two = jax.tree.map(lambda x: jax.numpy.stack([x, x]), state)
    alike(jax.tree.map(lambda x: x[1], algorithm.policy(two, c)), merged)


def test_what_stays_has_no_masters_in_bfloat16(start):
    c = adapted()
    c = dataclasses.replace(c, model=dataclasses.replace(MODEL, dtype="bfloat16"))
    state = algorithm.init(jax.random.key(0), c, start)
    assert {str(x.dtype) for x in jax.tree.leaves(state.params)} == {"bfloat16"}
    assert {str(x.dtype) for x in jax.tree.leaves(state.adapters)} == {"float32"}


def test_written_adapters_and_the_base_make_the_policy(tmp_path, start):
    c = adapted()
    state = algorithm.init(jax.random.key(0), c, start)
    state = state.replace(adapters=jax.tree.map(lambda x: x + 0.1, state.adapters))
    hf.save(tmp_path / "start", MODEL, start)
    host = jax.device_get(state.adapters)
    stages.save_adapters(tmp_path / "policy", c, host, tmp_path / "start")
    options, back = lora.load(tmp_path / "policy" / "adapter", MODEL)
    alike(lora.merge(hf.load(tmp_path / "start")[1], back, options), algorithm.policy(state, c))
    stages.save_adapters(tmp_path / "none", config("dpo"), None, tmp_path / "start")
    assert not (tmp_path / "none").exists()


def test_bad_adapters_are_named():
    for change, message in (
        ({"targets": ()}, "helpful.lora.targets=.* is empty"),
        ({"targets": ("q", "q")}, "helpful.lora.targets"),
        ({"targets": ("x",)}, "helpful.lora.targets"),
        ({"rank": -1}, "helpful.lora.rank"),
        ({"alpha": 0.0}, "helpful.lora.alpha"),
    ):
        with pytest.raises(UserError, match=message):
            validate_stage(Stage(lora=dataclasses.replace(ADAPTER, **change)), "helpful.")


@pytest.mark.device8
def test_eight_devices_hold_no_second_copy_nor_moments_of_the_base(tmp_path):
    whole = a_plan()
    stage = dataclasses.replace(whole.config.stage, lora=Adapter(rank=1, targets=("q", "o")))
    plan = dataclasses.replace(whole, config=dataclasses.replace(whole.config, stage=stage))
    params = decoder.init(jax.random.key(5), whole.config.model)
    hf.save(tmp_path / "start", whole.config.model, params)
    options = RunOptions(out=str(tmp_path), progress=False)
    program, full = (
        sharded.Sharded(core_stage(x), options, x, tmp_path / "start") for x in (plan, whole)
    )
    told = program.describe()
    adapters = lora.init(jax.random.key(0), whole.config.model, adapter_of(stage))
    assert told["parameters"] == sum(x.size for x in jax.tree.leaves(adapters))
    # Its own three times and the base in eighths, in place of three times the whole.
    assert program.bytes_per_device() < full.bytes_per_device() / 2
    state = program.init(program.keys())
    alone = train.begin(program.keys(), params, plan)
    state, metrics = program.chunk(3)(state, jax.numpy.int32(0))
    alone, expected = jax.jit(lambda run: train.chunk(run, jax.numpy.int32(0), 3, plan))(alone)
    np.testing.assert_allclose(metrics["policy/loss"][0], expected["policy/loss"], rtol=1e-4)
    kernel = state.learner.params["layers"]["q"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 8 == kernel.size
    alike(jax.device_get(state.learner.params), params)
