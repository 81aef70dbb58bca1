# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsafe.core.checks import UserError
from jaxsafe.envs.types import Leaf
from jaxsafe.envs.uncertainty import SCENARIOS, UncertaintySet, make_set, scenario

from .recordings import controller, states

few = settings(max_examples=40, deadline=None, database=None)
numbers = st.floats(-1e3, 1e3, width=32)


@st.composite
def boxes(draw):
    """A set of 1 to 3 parameters, some of them constant, on no particular model."""
    pair = st.tuples(st.integers(-8000, 8000), st.integers(0, 800))
    pairs = draw(st.lists(pair, min_size=1, max_size=3))
    names = tuple(f"p{i}" for i in range(len(pairs)))
    low = tuple(lo / 8 for lo, _ in pairs)  # eighths are exact in 32 bits
    high = tuple((lo + width) / 8 for lo, width in pairs)
    return UncertaintySet(names, low, high, tuple(Leaf("x", (i,)) for i in range(len(pairs))))


def changed_fields(a, b):
    """Paths of the leaves that differ between two models."""
    pairs = zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True)
    return [
        jax.tree_util.keystr(path)
        for (path, x), y in pairs
        if np.shape(x) != np.shape(y) or not np.array_equal(x, y)
    ]


class TestBox:
    @few
    @given(boxes(), st.lists(numbers, min_size=3, max_size=3))
    def test_project_stays_inside_and_is_idempotent(self, box, point):
        omega = jnp.asarray(point[: box.size])
        inside = box.project(omega)
        assert (inside >= jnp.asarray(box.low)).all() and (inside <= jnp.asarray(box.high)).all()
        np.testing.assert_array_equal(box.project(inside), inside)

    @few
    @given(boxes(), st.integers(0, 2**31 - 1))
    def test_samples_are_inside_and_normalise_into_the_unit_box(self, box, seed):
        omegas = box.sample(jax.random.key(seed), (5, 2))
        assert omegas.shape == (5, 2, box.size)
        np.testing.assert_array_equal(box.project(omegas), omegas)
        assert (jnp.abs(box.normalise(omegas)) <= 1).all()

    @few
    @given(boxes(), st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3))
    def test_normalise_inverts_denormalise(self, box, unit):
        omega = box.denormalise(jnp.asarray(unit[: box.size]))
        back = box.denormalise(box.normalise(omega))
        scale = np.maximum(np.abs(box.low), np.abs(box.high)).max() + 1
        np.testing.assert_allclose(back, omega, atol=1e-6 * scale)

    @few
    @given(boxes())
    def test_bounds_map_to_the_corners_exactly(self, box):
        constant = np.asarray(box.low, np.float32) == np.asarray(box.high, np.float32)
        for sign, bound in ((-1, box.low), (1, box.high)):
            expected = np.where(constant, 0, sign)
            np.testing.assert_array_equal(box.normalise(jnp.asarray(bound)), expected)
            np.testing.assert_array_equal(
                box.denormalise(jnp.full(box.size, float(sign))), np.asarray(bound, np.float32)
            )

    @few
    @given(boxes(), st.integers(2, 5))
    def test_grid_has_every_corner_and_stays_inside(self, box, n):
        grid = np.asarray(box.grid(n))
        assert grid.shape == (n**box.size, box.size)
        np.testing.assert_array_equal(grid[0], np.asarray(box.low, np.float32))
        np.testing.assert_array_equal(grid[-1], np.asarray(box.high, np.float32))
        np.testing.assert_array_equal(box.project(grid), grid)

    def test_grid_is_the_papers_linspace_mesh(self, pendulum):
        grid = np.asarray(pendulum[1].grid(10))
        np.testing.assert_allclose(np.unique(grid[:, 0]), np.linspace(1, 31, 10), rtol=1e-6)
        np.testing.assert_allclose(grid[:10, 1], np.linspace(1, 11, 10), rtol=1e-6)
        assert len(np.unique(grid, axis=0)) == 100

    def test_grid_of_one_is_the_midpoint(self, pendulum):
        np.testing.assert_array_equal(pendulum[1].grid(1), [[16, 6]])

    def test_point_set_normalises_to_zero(self, pendulum):
        point = make_set(pendulum[0], {"pole_mass": (9, 9)})
        np.testing.assert_array_equal(point.normalise(jnp.array([9.0])), [0])
        np.testing.assert_array_equal(point.denormalise(jnp.array([[0.3]])), [[9]])
        np.testing.assert_array_equal(point.sample(jax.random.key(0), (3,)), np.full((3, 1), 9))
        gradient = jax.grad(lambda w: point.normalise(w).sum())(jnp.array([9.0]))
        np.testing.assert_array_equal(gradient, [0])

    def test_sample_is_uniform(self, pendulum):
        omegas = np.asarray(pendulum[1].sample(jax.random.key(0), (20000,)))
        np.testing.assert_allclose(omegas.mean(0), [16, 6], rtol=0.02)
        np.testing.assert_allclose(omegas.std(0), np.array([30, 10]) / np.sqrt(12), rtol=0.02)

    def test_is_hashable_by_value(self, pendulum):
        task, box = pendulum
        again = make_set(task, SCENARIOS["InvertedPendulum-2"][1])
        assert box == again and hash(box) == hash(again)


class TestModels:
    def test_apply_changes_the_named_masses_and_nothing_else(self, pendulum):
        task, box = pendulum
        model = box.apply(task.model, jnp.array([7.0, 3.0]))
        assert changed_fields(task.model, model) == [".body_mass"]
        np.testing.assert_array_equal(model.body_mass, [0, 3, 7])
        np.testing.assert_array_equal(box.nominal(model), [7, 3])

    def test_apply_host_copies_and_changes_body_mass_alone(self, pendulum):
        task, box = pendulum
        nominal = task.host.model
        before = nominal.body_mass.copy()
        model = box.apply_host(nominal, np.array([7.0, 3.0]))
        np.testing.assert_array_equal(model.body_mass, [0, 3, 7])
        np.testing.assert_array_equal(nominal.body_mass, before)
        for name in ("body_inertia", "body_invweight0", "dof_invweight0", "body_subtreemass"):
            np.testing.assert_array_equal(getattr(model, name), getattr(nominal, name))
        np.testing.assert_allclose(box.nominal(nominal), [5.01859164, 10.47197551], rtol=1e-8)

    def test_batched_batches_only_the_changed_arrays(self, pendulum):
        task, box = pendulum
        models, axes = box.batched(task.model, box.grid(2))
        assert changed_fields(task.model, models) == [".body_mass"]
        assert models.body_mass.shape == (4, 3)
        np.testing.assert_array_equal(models.body_mass[:, [2, 1]], box.grid(2))
        assert jax.tree.leaves(axes) == [0] and axes.body_mass == 0

    def test_apply_inside_vmap_batches_only_the_changed_arrays(self, pendulum):
        task, box = pendulum
        traced = []

        def record_traced(omega):
            for path, leaf in jax.tree_util.tree_flatten_with_path(box.apply(task.model, omega))[0]:
                if isinstance(leaf, jax.core.Tracer):
                    traced.append(jax.tree_util.keystr(path))
            return omega

        jax.vmap(record_traced)(box.grid(2))
        assert traced == [".body_mass"]

    def test_each_row_steps_as_its_own_model(self, pendulum, compiled_step, mjx32, gym_v5):
        task, box = pendulum
        start = states(gym_v5.start.astype(np.float32))
        for row in range(0, 15, 2):
            model = box.apply(task.model, jnp.asarray(gym_v5.omegas[row]))
            push = gym_v5.gain[row] * controller(gym_v5.start[row]) + gym_v5.push[row, 0]
            state = jax.tree.map(lambda x, row=row: x[row], start)
            _, timestep = compiled_step(model, state, jnp.asarray(push, jnp.float32))
            np.testing.assert_allclose(timestep.obs, mjx32.obs[row, 0], atol=3e-6, rtol=1e-5)

    def test_each_parameter_has_an_effect(self, pendulum, compiled_step):
        task, box = pendulum
        state = jax.tree.map(lambda x: x[0], states(np.full((1, 4), 0.01, np.float32)))
        nominal = box.nominal(task.model)
        after = {}
        for i, name in enumerate(box.names):
            for bound in (box.low[i], box.high[i]):
                omega = jnp.asarray(nominal).at[i].set(bound)
                model = box.apply(task.model, omega)
                after[name, bound] = compiled_step(model, state, jnp.ones(1))[1].obs
            low, high = after[name, box.low[i]], after[name, box.high[i]]
            assert np.abs(low - high).max() > 1e-2, name

    def test_whole_axis_and_nested_leaves(self, pendulum):
        task, _ = pendulum
        leaves = (Leaf("geom_friction", (None, 0)), Leaf("opt.gravity", (2,)))
        box = UncertaintySet(("friction", "gravity"), (0.1, -12.0), (4.0, -6.0), leaves)
        model = box.apply(task.model, jnp.array([0.5, -7.0]))
        host = box.apply_host(task.host.model, np.array([0.5, -7.0]))
        assert set(changed_fields(task.model, model)) == {".geom_friction", ".opt.gravity"}
        for m in (model, host):
            np.testing.assert_array_equal(m.geom_friction[:, 0], 0.5)
            np.testing.assert_array_equal(m.opt.gravity, [0, 0, -7])
        models, axes = box.batched(task.model, box.grid(2))
        assert models.opt.gravity.shape == (4, 3) and axes.opt.gravity == 0


class TestScenarios:
    def test_the_papers_pendulums(self):
        for name, names, low, high in (
            ("InvertedPendulum-1", ("pole_mass",), (1,), (31,)),
            ("InvertedPendulum-2", ("pole_mass", "cart_mass"), (1, 1), (31, 11)),
        ):
            task, box = scenario(name)
            assert (box.names, box.low, box.high) == (names, low, high)
            assert task.name == "InvertedPendulum-v5"
        assert scenario("InvertedPendulum-1", version="v4")[0].name == "InvertedPendulum-v4"
        assert box.leaves == (Leaf("body_mass", (2,), "kg"), Leaf("body_mass", (1,), "kg"))


class TestErrors:
    @pytest.mark.parametrize(
        ("ranges", "message"),
        [
            ({}, "ranges is empty: name at least one of pole_mass, cart_mass."),
            ({"pole_mas": (1, 2)}, "Did you mean 'pole_mass'"),
            ({"pole_mass": (31, 1)}, "pole_mass: low=31 is above high=1; swap them."),
            ({"cart_mass": (1, np.inf)}, r"cart_mass: range \(1, inf\) is not finite"),
            ({"cart_mass": (np.nan, 1)}, r"cart_mass: range \(nan, 1\) is not finite"),
            ({"cart_mass": (1, 2, 3)}, r"cart_mass=\(1, 2, 3\) is no range: give \(low, high\)."),
        ],
    )
    def test_make_set(self, pendulum, ranges, message):
        with pytest.raises(UserError, match=message) as error:
            make_set(pendulum[0], ranges)
        assert "\n" not in str(error.value)

    def test_grid(self, pendulum):
        with pytest.raises(UserError, match="n=0 is out of range"):
            pendulum[1].grid(0)
        leaves = tuple(Leaf("x", (i,)) for i in range(5))
        box = UncertaintySet(tuple("abcde"), (0.0,) * 5, (1.0,) * 5, leaves)
        with pytest.raises(UserError, match=r"1,000,000,000,000,000 points.*Lower n=1000") as error:
            box.grid(1000)
        assert "\n" not in str(error.value)

    def test_omega_shapes(self, pendulum):
        task, box = pendulum
        with pytest.raises(UserError, match=r"shape \(3, 2\), expected \(2,\).*batched"):
            box.apply(task.model, jnp.ones((3, 2)))
        with pytest.raises(UserError, match=r"shape \(1,\), expected \(2,\) for pole_mass"):
            box.apply_host(task.host.model, np.ones(1))

    def test_unknown_scenario_and_version(self):
        with pytest.raises(UserError, match="Did you mean 'InvertedPendulum-2'"):
            scenario("InvertedPendulum-3")
        with pytest.raises(UserError, match="InvertedPendulum-v9"):
            scenario("InvertedPendulum-2", version="v9")
