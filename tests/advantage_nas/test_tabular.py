# SPDX-License-Identifier: Apache-2.0
"""Search on tables: random search is the exact one, the others look up what they say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import enumeration, oracle, report, tables, tabular
from jaxsafe.advantage_nas.strings import PAPER_OPS
from jaxsafe.core.checks import UserError
from tests import real_data

CONFIG = tabular.TabularConfig(selection="valid", score="test", queries=20, searches=400)


@pytest.fixture(scope="module")
def table():
    """A space of 256 cells whose edges count independently, but for some noise."""
    rng = np.random.default_rng(0)
    choice = enumeration.architectures(4, 4)
    worth = rng.normal(size=(4, 4))
    valid = 60 + 5 * worth[np.arange(4), choice].sum(axis=1) + rng.normal(size=256)
    test = valid + rng.normal(size=256)
    return tables.Table(PAPER_OPS, choice, {"valid": valid, "test": test})


def search(table, method, **changes):
    """The reported scores of all searches, and the final states."""
    config = dataclasses.replace(CONFIG, method=method, **changes)
    steps = config.queries // tabular.queries_per_step(config)

    @jax.jit
    def whole(key):
        states = tabular.init_searches(key, config, table)
        return tabular.chunk(states, steps, config, table)

    states, metrics = whole(jax.random.key(0))
    found = tabular.found(states, config, table)
    assert metrics["search/score"] == pytest.approx(found.mean(), rel=1e-5)
    np.testing.assert_allclose(states.best_score, table.column("valid")[states.best], rtol=1e-5)
    return found, states


def test_random_search_agrees_with_the_exact_curve(table):
    for queries in (2, 20, 256):
        found, _ = search(table, "random", queries=queries)
        exact = oracle.random_search(table.column("valid"), table.column("test"), [queries])
        error = max(exact.sd[0] / len(found) ** 0.5, 1e-9)
        assert abs(found.mean() - exact.mean[0]) < 4 * error, queries
    # Distinct architectures: a search of all of them has found the best.
    assert np.ptp(found) == 0


def test_the_curve_of_random_search_agrees_with_the_exact_one_along_its_way(table):
    """By intervals over seeds, as a run tells; a better search is out of them."""

    def share(method):
        config = dataclasses.replace(CONFIG, method=method, queries=60, searches=50, lr=0.2)

        @jax.jit
        def of_seed(key):
            def part(states, _):
                states, metrics = tabular.chunk(states, 5, config, table)
                return states, metrics["search/score"]

            return jax.lax.scan(part, tabular.init_searches(key, config, table), None, 12)[1]

        curves = np.array([of_seed(key) for key in jax.random.split(jax.random.key(4), 10)])
        exact = oracle.random_search(
            table.column("valid"), table.column("test"), list(range(5, 61, 5))
        )
        return report.agreement(curves, exact.mean)

    assert share("random") >= 0.75  # of points that go together, each within by 95%
    assert share("reinforce") <= 0.5


def test_evolution_and_gradients_beat_random_search_at_equal_queries(table):
    means = {m: search(table, m, queries=60, lr=0.2)[0].mean() for m in tabular.METHODS}
    assert min(means[m] for m in ("evolution", "reinforce", "rloo")) > means["random"] + 0.1


def test_evolution_changes_one_edge_and_buries_the_oldest(table):
    config = dataclasses.replace(CONFIG, method="evolution", population=5, tournament=5)
    state = tabular.init(jax.random.key(3), config, table)
    step = jax.jit(lambda s: tabular.step(s, config, table))
    for _ in range(5):
        state = step(state)
    for number in range(5, 15):
        before, state = state, step(state)
        slot = number % 5
        others = np.delete(np.arange(5), slot)
        np.testing.assert_array_equal(before.memory.place[others], state.memory.place[others])
        # A tournament of all takes the best as the parent.
        parent = table.choice[before.memory.place[np.argmax(before.memory.score)]]
        child = table.choice[state.memory.place[slot]]
        assert (parent != child).sum() == 1
        assert state.memory.score[slot] == pytest.approx(
            table.column("valid")[state.memory.place[slot]], rel=1e-6
        )


def test_a_row_of_the_table_is_an_architectures_index(table):
    np.testing.assert_array_equal(table.place(table.choice), np.arange(256))
    assert int(jnp.asarray([3, 0, 1, 2]) @ jnp.asarray(tables.strides(4, 4))) == 198


def test_bad_configs_are_named(table):
    with pytest.raises(UserError, match=r"tabular\.queries=21 is odd .*: give 22"):
        tabular.validate(dataclasses.replace(CONFIG, queries=21))
    with pytest.raises(UserError, match="queries=300 is more than the table's 256"):
        search(table, "random", queries=300)
    with pytest.raises(UserError, match=r"column='vald' is unknown\. Did you mean 'valid'"):
        search(table, "random", selection="vald")


def test_the_interval_of_a_mean():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        _, low, high = report.interval(rng.normal(1.0, 2.0, 8))
        covered += low <= 1.0 <= high
    assert 270 <= covered <= 297  # of 285
    assert report.interval(np.array([3.0])) == (3.0, 3.0, 3.0)


@pytest.mark.slow
def test_random_search_agrees_on_the_real_table():
    whole = tables.load(real_data.file("nas_bench_201/accuracy_12_epochs.csv"))
    names = {"selection": "cifar10_valid", "score": "cifar10_test"}
    config = tabular.TabularConfig(queries=100, searches=1000, **names)
    states = jax.jit(lambda k: tabular.init_searches(k, config, whole))(jax.random.key(1))
    states, _ = jax.jit(lambda s: tabular.chunk(s, 100, config, whole))(states)
    found = tabular.found(states, config, whole)
    assert abs(found.mean() - 88.0940) < 4 * 0.4806 / 1000**0.5
    assert found.std() == pytest.approx(0.4806, rel=0.1)
