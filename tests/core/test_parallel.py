# SPDX-License-Identifier: Apache-2.0
"""Seeds, devices and processes: what may be asked for, and that it changes no numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core import parallel
from jaxsafe.core.checks import UserError
from tests.core import toy
from tests.core.test_checkpoint import assert_same


@pytest.fixture
def devices(monkeypatch):
    """Pretends that there are so many devices, and processes."""

    def pretend(count, processes=1):
        monkeypatch.setattr(jax, "device_count", lambda: count)
        monkeypatch.setattr(jax, "process_count", lambda: processes)

    return pretend


@pytest.mark.parametrize(
    ("seeds", "have", "chosen"),
    [(1, 8, 1), (4, 8, 4), (8, 8, 8), (16, 8, 8), (6, 4, 3), (7, 4, 1), (12, 8, 6), (3, 1, 1)],
)
def test_the_largest_divisor_is_chosen(devices, seeds, have, chosen):
    devices(have)
    assert parallel.choose_num_devices(seeds) == chosen


def test_a_number_that_is_asked_for_is_taken_or_refused(devices):
    devices(4)
    assert parallel.choose_num_devices(8, 2) == 2
    for requested, seeds in ((8, 8), (3, 8), (5, 5)):
        with pytest.raises(UserError) as caught:
            parallel.choose_num_devices(seeds, requested)
        divisors = [n for n in (1, 2, 3, 4) if seeds % n == 0]
        assert str(caught.value) == (
            f"--devices={requested} does not fit --num_seeds={seeds} on 4 devices: choose one of "
            f"{divisors}, or 0."
        )


def test_several_processes_take_all_their_devices(devices):
    devices(8, processes=2)
    for requested in (0, 8):
        assert parallel.choose_num_devices(16, requested) == 8
    with pytest.raises(UserError, match=r"--num_seeds=9 does not divide .* 2 processes: set .* 16"):
        parallel.choose_num_devices(9)
    with pytest.raises(UserError, match=r"--devices=4 is not the 8 devices of 2 .*: set it to 8"):
        parallel.choose_num_devices(16, 4)


@pytest.mark.parametrize("given", [("h:1", None, None), ("h:1", 2, None), (None, None, 0)])
def test_parts_of_an_address_are_refused(given):
    with pytest.raises(UserError, match=r"needs --coordinator, --num_processes and --process_id"):
        parallel.initialize_distributed(*given)


def test_no_cluster_is_one_line(monkeypatch):
    def undetected(*_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", undetected)
    with pytest.raises(UserError, match=r"no cluster detected .* Give --coordinator=HOST:PORT"):
        parallel.initialize_distributed()


@pytest.mark.parametrize("seed", [0, 3, 2**31 - 1, 4_000_000_000])
def test_key_i_is_that_of_the_lone_run_with_seed_plus_i(seed):
    keys = parallel.seed_keys(seed, 3)
    lone = [jax.random.key_data(parallel.seed_keys(seed + i, 1))[0] for i in range(3)]
    np.testing.assert_array_equal(jax.random.key_data(keys), lone)
    if seed < 2**31:
        np.testing.assert_array_equal(lone[0], jax.random.key_data(jax.random.key(seed)))


def test_the_cpu_is_split_only_where_it_can_be(monkeypatch):
    changes = []
    monkeypatch.setattr(jax.config, "update", lambda *change: changes.append(change))
    monkeypatch.setenv("XLA_FLAGS", "")
    parallel.split_host_cpu(1)
    assert changes == []
    parallel.split_host_cpu(4)
    assert changes == [("jax_num_cpu_devices", 4)]
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    parallel.split_host_cpu(4)
    assert len(changes) == 1


def test_a_seed_among_others_agrees_with_itself_alone_to_rounding():
    """float32 sums in another order: within 1e-5 of the weights' size after 20 Adam steps."""
    program = toy.program(num_seeds=3)
    state, rows = program.chunk(20)(program.init(program.keys()), jnp.int32(0))
    for i in range(3):
        alone = toy.program(num_seeds=1, seed=i)
        one, row = alone.chunk(20)(alone.init(alone.keys()), jnp.int32(0))
        np.testing.assert_allclose(one.weights[0], state.weights[i], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(row["loss/mean"][0], rows["loss/mean"][i], rtol=1e-5)
        keys = [jax.random.key_data(k) for k in (one.key[0], state.key[i])]
        np.testing.assert_array_equal(*keys)


def test_seeds_in_turn_equal_themselves_alone_exactly():
    batch, turn = (toy.program(num_seeds=3, in_turn=t) for t in (False, True))
    states = [p.chunk(20)(p.init(p.keys()), jnp.int32(0))[0] for p in (batch, turn)]
    np.testing.assert_allclose(states[0].weights, states[1].weights, rtol=1e-5, atol=1e-6)
    for i in range(3):
        alone = toy.program(num_seeds=1, seed=i)
        one, _ = alone.chunk(20)(alone.init(alone.keys()), jnp.int32(0))
        np.testing.assert_array_equal(one.weights[0], states[1].weights[i])


def test_shared_arguments_are_not_mapped():
    mesh = parallel.seed_mesh(1)
    mapped = parallel.map_seeds(lambda x, a, b: (x * a + b).sum(), mesh, num_shared=2)
    out = mapped(jnp.arange(6.0).reshape(3, 2), jnp.array([1.0, 2.0]), jnp.float32(3))
    np.testing.assert_array_equal(out, [8.0, 14.0, 20.0])


def test_to_host_gives_numpy():
    tree = parallel.to_host({"a": jnp.arange(3), "b": (jnp.float32(1),)})
    assert isinstance(tree["a"], np.ndarray) and tree["b"][0] == 1
    assert parallel.largest(7) == 7 and parallel.is_main_process()


def test_the_first_state_is_the_same_however_it_is_asked_for():
    program = toy.program()
    state, shapes = program.init(program.keys()), program.shapes()
    assert jax.tree.structure(state) == jax.tree.structure(shapes)
    for leaf, shape in zip(jax.tree.leaves(state), jax.tree.leaves(shapes), strict=True):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
        assert leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim)
    assert_same(state, program.init(program.keys()))
