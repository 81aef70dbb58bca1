# SPDX-License-Identifier: Apache-2.0
"""The search against the same rules in NumPy, step by step, and what holds of every search."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import pls
from tests.pls import reference
from tests.pls.worlds import LENGTHSCALE, World

SMALL = pls.SearchConfig(explore_steps=6, reward_steps=6)


def play(world, config, problem=None, key=0):
    """Asks and tells by hand; returns picks, the safe sets, the last state and all metrics."""
    ask, tell = jax.jit(pls.ask, static_argnums=1), jax.jit(pls.tell, static_argnums=2)
    problem = world.problem(config) if problem is None else problem
    state = pls.init(jax.random.key(key), problem, config)
    picks, sets, rows = [], [np.asarray(state.safe[0])], []
    for step in range(config.num_steps):
        query, state = ask(state, config)
        returns = world.returns(step, np.asarray(query.point))[:, None, :]
        state, metrics = tell(
            state, pls.Evaluation(query.point, jnp.asarray(returns, float)), config
        )
        picks.append(np.asarray(query.point))
        sets.append(np.asarray(state.safe[0]))
        rows.append(metrics)
    return np.concatenate(picks), sets, state, rows


CASES = {
    "gp": {},
    "none": {"expander": "none"},
    "lipschitz": {"expander": "lipschitz", "lipschitz": 2.0},
    "widening": {"intersect": False},
    "robust": {"lengthscale_factors": (0.6, 1.0)},
    "safeopt": {"method": "safeopt"},
    "safeopt, no expanders' test": {"method": "safeopt", "expander": "none"},
}


@pytest.mark.parametrize("case", CASES)
def test_every_step_is_that_of_the_reference(case):
    """Same points and same safe sets as dense algebra and full sets give, in 64 bits."""
    options, world = CASES[case], World()
    config = dataclasses.replace(SMALL, alpha="srinivas", zeta=1.0, **options)
    with jax.enable_x64(True):
        picks, sets, _, _ = play(world, config)
    known = {"expander", "lipschitz", "intersect", "method"}
    expected, expected_sets = reference.search(
        world.grid,
        world.seed,
        1.0,
        lambda step, point: world.returns(step, point),
        steps=config.num_steps,
        explore_steps=config.explore_steps,
        delta=config.delta,
        zeta=config.zeta,
        lengthscale=LENGTHSCALE,
        cost_mean=1.0,
        noise_var=world.noise_sd**2,
        floor=-10.0,
        factors=config.lengthscale_factors,
        **{name: value for name, value in options.items() if name in known},
    )
    np.testing.assert_array_equal(picks, expected)
    for got, want in zip(sets, expected_sets, strict=True):
        np.testing.assert_array_equal(got, want)
    # The world says something: the set grew, and the search left the seed.
    assert sets[-1].sum() > 1 and len(set(picks.tolist())) > 2


def test_one_scan_is_asking_and_telling():
    world, config = World(), SMALL
    world.noise[:] = 0.0
    picks, sets, state, rows = play(world, config)
    last, trace = jax.jit(
        lambda key: pls.run_search(key, world.evaluate(), world.problem(config), config)
    )(jax.random.key(0))
    np.testing.assert_array_equal(trace.point[:, 0], picks)
    np.testing.assert_array_equal(last.safe[0], sets[-1])
    np.testing.assert_allclose(last.posterior.mean, state.posterior.mean, atol=1e-4)
    for name in rows[0]:
        np.testing.assert_allclose(
            trace.metrics[name], [r[name] for r in rows], rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("batch", [1, 2])
def test_advancing_in_place_is_telling_and_asking(batch):
    """The same points, numbers and metrics; the problem's arrays live on, the state's do not."""
    world, config = World(), dataclasses.replace(SMALL, batch=batch, explore_steps=4)
    picks, sets, expected, rows = play(world, config)
    problem = world.problem(config)
    query, state = pls.ask(pls.init(jax.random.key(0), problem, config), config)
    for step in range(config.num_steps):
        points = np.asarray(query.point)
        np.testing.assert_array_equal(points, picks[step * batch : (step + 1) * batch])
        returns = jnp.asarray(world.returns(step, points)[:, None], float)
        old = state
        query, state, metrics = pls.advance(state, pls.Evaluation(query.point, returns), config)
        np.testing.assert_array_equal(state.safe[0], sets[step + 1])
        for name, value in rows[step].items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.posterior.mean, expected.posterior.mean, atol=1e-4)
    assert old.posterior.rows.is_deleted() and not problem.grid.is_deleted()
    assert state.safe[0, query.point].all() and not query.expanding


def test_stage_1_ends_once_and_for_all():
    world = World()
    config = dataclasses.replace(SMALL, explore_steps=10, reward_steps=2, zeta=1.0)
    _, trace = pls.run_search(jax.random.key(0), world.evaluate(), world.problem(config), config)
    expanding = np.asarray(trace.expanding)
    assert expanding[0] and not expanding[-1]
    assert (np.diff(expanding.astype(int)) <= 0).all()


def test_a_safe_set_only_grows_and_holds_the_seeds():
    world = World()
    _, sets, state, _ = play(world, SMALL)
    for before, after in itertools.pairwise(sets):
        assert not (before & ~after).any() and (after & world.seed).any()
    assert state.alarms == 0
    assert not (sets[-1] & (world.truth[1] > 1.0)).any()


def test_searches_map_like_a_loop():
    worlds = [World(seed=s) for s in range(3)]
    problems = [w.problem(SMALL) for w in worlds]
    truths = jnp.stack([jnp.asarray(w.truth, float) for w in worlds])

    def run(key, problem, truth):
        def evaluate(key, point, z):
            noise = 0.1 * jax.random.normal(key, (1, 1, 2))
            return truth[:, point].T[:, None, :] + noise

        return pls.run_search(key, evaluate, problem, SMALL)

    keys = jax.random.split(jax.random.key(0), 3)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    mapped, traces = jax.jit(jax.vmap(run))(keys, stacked, truths)
    again = jax.random.split(jax.random.key(0), 3)
    for i in range(3):
        alone, trace = jax.jit(run)(again[i], problems[i], truths[i])
        np.testing.assert_array_equal(traces.point[i], trace.point)
        np.testing.assert_allclose(mapped.upper[i], alone.upper, atol=1e-4)


@pytest.mark.parametrize("method", ["ucb", "seed"])
def test_the_unsafe_and_the_idle_baseline(method):
    world = World()
    config = dataclasses.replace(SMALL, method=method, explore_steps=0, reward_steps=12)
    world.seed[np.argsort(world.truth[1])[:5]] = True
    picks, _, _, _ = play(world, config)
    if method == "seed":
        assert world.seed[picks].all() and len(set(picks.tolist())) > 1
    else:
        assert (world.truth[1, picks] > 1.0).any()
        assert world.truth[0, picks].max() > np.quantile(world.truth[0], 0.95)


@pytest.mark.parametrize("rule", ["mean", "lower", "last"])
def test_what_is_recommended(rule):
    world, config = World(), dataclasses.replace(SMALL, recommend=rule)
    picks, _, state, _ = play(world, config)
    got = int(pls.recommend(state, config)[0])
    mean = np.asarray(state.posterior.mean[0, 0])
    sd = np.sqrt(np.asarray(state.posterior.var[0, 0]))
    score = mean - float(state.problem.alpha[config.num_steps, 0]) * sd * (rule == "lower")
    best = int(np.argmax(np.where(np.asarray(state.safe[0]), score, -np.inf)))
    assert got == (picks[-1] if rule == "last" else best)
