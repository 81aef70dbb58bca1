# SPDX-License-Identifier: Apache-2.0
"""What every system promises: pure updates that jit, vmap, shard and survive a restart."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

import jaxsafe
from jaxsafe.core import checkpoint, parallel
from jaxsafe.core import config as config_lib
from jaxsafe.core import flags as flags_lib
from tests.contract.systems import SYSTEMS, Small, System
from tests.core.test_checkpoint import assert_same, raw

# One update in float32 whose sums run in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
SLOW_WITHOUT_JIT = ("pls", "sacpo", "image_to_semantics")

every_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
# Without jit every primitive compiles alone, which takes these half a minute and more.
quick_or_slow = pytest.mark.parametrize(
    "system",
    [
        pytest.param(s, marks=[pytest.mark.slow] * (s.name in SLOW_WITHOUT_JIT), id=s.name)
        for s in SYSTEMS
    ],
)
every_preset = pytest.mark.parametrize(
    ("system", "preset"),
    [(system, preset) for system in SYSTEMS for preset in system.presets],
    ids=lambda x: getattr(x, "name", x),
)


class Kit:
    """A small system with its compiled functions, shared by the tests."""

    def __init__(self, small: Small):
        self.small, self.traces = small, 0
        self.init, self.batch = jax.jit(small.init), jax.jit(small.batch)
        self.update = jax.jit(self.traced)

    def traced(self, state, batch):
        self.traces += 1
        return self.small.update(state, batch, self.small.config)

    def start(self, seed=0):
        """A state two updates old, so that no optimizer is fresh, and the next batch."""
        state = self.init(jax.random.key(seed))
        for i in range(2):
            state, _ = self.update(state, self.batch_at(seed, i))
        return state, self.batch_at(seed, 2)

    def batch_at(self, seed, step):
        return self.batch(jax.random.fold_in(jax.random.key(1000 + seed), step))


@functools.cache
def kit(system: str) -> Kit:
    return Kit(next(s for s in SYSTEMS if s.name == system).make())


def assert_close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(raw(a)), jax.tree.leaves(raw(b)), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_allclose(np.float64(x), np.float64(y), **CLOSE)


def differ(a, b):
    pairs = zip(jax.tree.leaves(raw(a)), jax.tree.leaves(raw(b)), strict=True)
    return any(not np.array_equal(x, y) for x, y in pairs)


def rebuilt(words, like):
    """A tree of arrays from what `raw` gave; its keys count as never used."""

    def one(leaf, word):
        return jax.random.wrap_key_data(jnp.asarray(word)) if is_key(leaf) else jnp.asarray(word)

    return jax.tree.map(one, like, words)


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def copy(tree):
    return rebuilt(raw(tree), tree)


def stack(trees):
    return rebuilt(jax.tree.map(lambda *x: np.stack(x), *map(raw, trees)), trees[0])


def pick(tree, i):
    """Element `i` of every leaf, as `raw` words."""
    return jax.tree.map(lambda leaf: leaf[i], raw(tree))


def test_every_system_is_asked():
    folders = pathlib.Path(jaxsafe.__file__).parent.glob("*/README.md")
    assert sorted(s.name for s in SYSTEMS) == sorted(path.parent.name for path in folders)


@every_system
def test_the_state_is_arrays_with_typed_keys(system: System):
    state, _ = kit(system.name).start()
    leaves = jax.tree.leaves(state)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves)
    assert dataclasses.is_dataclass(state) and hash(kit(system.name).small.config)


@every_system
def test_metrics_are_a_flat_dict_of_scalars(system: System):
    _, metrics = kit(system.name).update(*kit(system.name).start())
    assert metrics and all("/" in name and "." not in name for name in metrics)
    assert all(value.shape == () for value in metrics.values())


@every_system
def test_update_is_pure(system: System):
    """Nothing that goes in changes, and the same in gives the same out."""
    k = kit(system.name)
    state, batch = k.start()
    before = jax.tree.map(np.copy, raw((state, batch)))
    again = copy(state)
    first = k.update(state, batch)
    jax.tree.map(np.testing.assert_array_equal, raw((state, batch)), before)
    assert_same(first, k.update(again, batch))
    assert differ(first[0], again)


@every_system
def test_the_second_update_compiles_nothing(system: System):
    """Shapes, dtypes and weak types of the state are the same after an update."""
    fresh = Kit(kit(system.name).small)
    state = fresh.init(jax.random.key(0))
    for step in range(3):
        state, _ = fresh.update(state, fresh.batch_at(0, step))
        assert fresh.traces == 1 and fresh.update._cache_size() == 1


@quick_or_slow
def test_jit_changes_no_numbers(system: System):
    k = kit(system.name)
    state, batch = k.start()
    with jax.disable_jit():
        plain = k.small.update(copy(state), batch, k.small.config)
    assert_close(plain, k.update(state, batch))


@every_system
def test_seeds_map_like_a_loop(system: System):
    k = kit(system.name)
    states, batches = zip(*(k.start(seed) for seed in range(3)), strict=True)
    mapped = jax.jit(jax.vmap(k.traced))(stack(states), stack(batches))
    for i in range(3):
        assert_close(pick(mapped, i), raw(k.update(states[i], batches[i])))


@every_system
def test_init_maps_like_a_loop(system: System):
    k = kit(system.name)
    mapped = jax.jit(jax.vmap(k.small.init))(parallel.seed_keys(0, 3))
    for seed in range(3):
        assert_close(pick(mapped, seed), raw(k.init(jax.random.key(seed))))


@pytest.mark.device8
@every_system
def test_shard_map_and_pmap_on_eight_devices(system: System):
    """One seed per device has the bits of the seed alone, by either way."""
    k = kit(system.name)
    states, batches = zip(*(k.start(seed) for seed in range(8)), strict=True)
    mesh = parallel.seed_mesh(8)
    sharded = jax.jit(parallel.map_seeds(lambda both: k.traced(*both), mesh))
    both = stack(states), stack(batches)
    by_shard_map = sharded(jax.device_put(both, parallel.seed_sharding(mesh)))
    assert len(jax.tree.leaves(by_shard_map)[0].sharding.device_set) == 8
    by_pmap = jax.pmap(k.traced)(stack(states), stack(batches))
    assert_same(by_shard_map, by_pmap)
    for i in range(8):
        alone = raw(k.update(states[i], batches[i]))
        jax.tree.map(np.testing.assert_array_equal, pick(by_shard_map, i), alone)


@every_system
def test_a_restored_state_goes_on_bit_for_bit(system: System, tmp_path):
    k = kit(system.name)
    state, _ = k.start()
    checkpoint.save(tmp_path, 2, state)
    restored = checkpoint.restore(tmp_path, 2, jax.eval_shape(lambda: state))
    assert_same(restored, state)
    for step in range(2, 5):
        batch = k.batch_at(0, step)
        (state, expected), (restored, found) = k.update(state, batch), k.update(restored, batch)
        assert_same(found, expected)
    assert_same(restored, state)


@every_system
def test_fifty_updates_stay_finite_and_move(system: System):
    k = kit(system.name)
    state, _ = k.start()
    start = copy(state)
    for step in range(50):
        state, metrics = k.update(state, k.batch_at(0, step))
        assert all(np.isfinite(value) for value in metrics.values()), (step, metrics)
    for name, leaf in checkpoint.flatten(state).items():
        assert np.isfinite(np.asarray(leaf, np.float64)).all(), name
    assert differ(state, start)


@every_system
def test_a_seed_repeats_and_two_seeds_differ(system: System):
    k = kit(system.name)
    one, again, other = (k.init(jax.random.key(seed)) for seed in (0, 0, 1))
    assert_same(one, again)
    batch = k.batch_at(0, 0)
    ends = [k.update(copy(state), batch) for state in (one, again, other)]
    assert_same(ends[0], ends[1])
    assert differ(ends[0][0], ends[2][0]) and differ(ends[0][1], ends[2][1])
    # With all else equal, the key decides.
    swapped = one.replace(key=other.key)
    assert differ(k.update(swapped, batch)[1], ends[0][1])


@every_system
def test_no_key_is_used_twice(system: System):
    """The checker is on in every test; here it is shown to be, and to see into the update."""
    assert jax.config.jax_debug_key_reuse
    Kit(kit(system.name).small).start()  # traced anew, so that the checker sees it here

    def careless(key):
        return jax.random.normal(key) + jax.random.uniform(key)

    with pytest.raises(jax.errors.KeyReuseError):
        jax.jit(careless)(jax.random.key(0))


@every_system
def test_there_is_a_demo_and_the_papers_own(system: System):
    assert {"demo", "paper"} <= set(system.presets)
    assert len({type(preset) for preset in system.presets.values()}) == 1


@every_preset
def test_every_preset_is_valid(system: System, preset: str):
    system.validate(system.presets[preset])
    assert dataclasses.is_dataclass(system.presets[preset]) and hash(system.presets[preset])


@every_preset
def test_every_field_has_a_help_text(system: System, preset: str):
    for leaf in config_lib.leaves(system.presets[preset]):
        text = leaf.meta.get("help", "")
        assert len(text) > 3 and text.endswith("."), leaf.path


@every_preset
def test_configs_survive_flags_and_json(system: System, preset: str):
    """From any preset to any other through its flags alone, and through JSON."""
    wanted = system.presets[preset]
    assert config_lib.from_dict(type(wanted), config_lib.to_dict(wanted)) == wanted
    for base in system.presets.values():
        for arguments in (flags_lib.flag_args(wanted, ""), flags_lib.flag_args(wanted, "", base)):
            values = flags.FlagValues()
            flags_lib.define_config_flags(base, "", values)
            values(["program", *arguments])
            assert flags_lib.overlay(base, "", values) == wanted
