# SPDX-License-Identifier: Apache-2.0
"""A stage over eight devices against the same stage on one, and what its program does."""

import jax
import numpy as np
import pytest

from jaxsafe.core import parallel
from jaxsafe.core.checks import UserError
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Stage as CoreStage
from jaxsafe.lm import decoder, hf
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.optimiser import Optimiser
from jaxsafe.sacpo import collectives, sharded, train
from jaxsafe.sacpo.config import Stage

from .rows import some

MODEL = DecoderConfig(
    vocab_size=16,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=24,
)


def a_plan(loss="dpo", reference="cached"):
    fast = Optimiser(learning_rate=1e-2, schedule="constant", warmup_ratio=0.0)
    stage = Stage(
        loss=loss, batch_size=16, accumulation=2, epochs=2, reference=reference, optimiser=fast
    )
    return train.plan(MODEL, stage, some(32, 2))


def core_stage(plan):
    return CoreStage(
        "s", lambda key: train.begin(key, None, plan), None, plan.config.steps, train.trained, None
    )


@pytest.fixture
def start(tmp_path):
    """A folder to start from, and its tree."""
    params = decoder.init(jax.random.key(5), MODEL)
    hf.save(tmp_path / "start", MODEL, params)
    return tmp_path / "start", params


@pytest.mark.device8
@pytest.mark.parametrize("reference", ["cached", "online"])
def test_eight_devices_train_as_one_does(start, tmp_path, reference):
    plan, (folder, params) = a_plan(reference=reference), start
    options = RunOptions(out=str(tmp_path), progress=False)
    program = sharded.Sharded(core_stage(plan), options, plan, folder)
    assert program.devices.size == 8
    state = program.init(program.keys())
    kernel = state.learner.params["layers"]["q"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 8 == kernel.size
    alone = train.begin(program.keys(), params, plan)
    if reference == "cached":
        np.testing.assert_allclose(state.reference, alone.reference, rtol=2e-5)
        assert (tmp_path / "checkpoints" / "s.references" / "rows.bin").is_file()
    state, metrics = program.chunk(3)(state, jax.numpy.int32(0))
    alone, expected = jax.jit(lambda run: train.chunk(run, jax.numpy.int32(0), 3, plan))(alone)
    for name, value in expected.items():
        # At the first update margins are 0 up to rounding, and so their signs are chance.
        atol = 0.05 if name == "policy/accuracy" else 1e-5
        np.testing.assert_allclose(metrics[name][0], value, rtol=1e-4, atol=atol)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4),
        parallel.to_host(state.learner.params),
        parallel.to_host(alone.learner.params),
    )


@pytest.mark.device8
def test_a_dry_run_tells_bytes_and_collectives(tmp_path):
    plan = a_plan()
    options = RunOptions(out=str(tmp_path), dry_run=True)
    program = sharded.Sharded(core_stage(plan), options, plan, tmp_path / "none")
    program.check_memory()
    told = program.describe()
    assert told["devices"] == 8 and told["parameters"] == program.num_parameters()
    # Weights and two moments of float32, in eighths, but for norms and small things.
    share = 3 * 4 * told["parameters"] / 8
    assert share < program.bytes_per_device() < 1.6 * share
    assert told["all_gather"] > 0 and told["all_reduce"] + told["reduce_scatter"] > 0


def test_what_does_not_fit_is_named(tmp_path):
    plan = a_plan()
    stage = core_stage(plan)
    with pytest.raises(UserError, match="--num_seeds=2: a folder's model trains one"):
        sharded.Sharded(stage, RunOptions(num_seeds=2), plan, tmp_path)
    blank = sharded.Sharded(stage, RunOptions(), plan, tmp_path, blank=True)
    with pytest.raises(UserError, match="there is nothing to train on"):
        blank.check_memory()


HLO = """\
HloModule m

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %g = f32[4]{0} all-gather(%x), dimensions={0}
  ROOT %t = (s32[], f32[4]) tuple(%i, %g)
}

%cond (p: (s32[], f32[4])) -> pred[] {
  ROOT %c = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %r = f32[4]{0} all-reduce(%a), to_apply=%add
  %s = (f32[4], f32[4]) all-reduce-start(%a), to_apply=%add
  %e = f32[4]{0} all-reduce-done(%s)
  %w = (s32[], f32[4]) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %v = (s32[], f32[4]) while(%t), condition=%cond, body=%body
  ROOT %o = f32[4]{0} get-tuple-element(%w), index=1
}
"""  # noqa: E501


def test_collectives_count_as_often_as_loops_turn():
    found = collectives.executed(HLO)
    assert found["all_reduce"] == 2 and found["all_gather"] == 6
    assert found["loops_of_unknown_length"] == 1 and found["reduce_scatter"] == 0
