# SPDX-License-Identifier: Apache-2.0
"""The counter of promises and the calibration, at sizes of seconds."""

import dataclasses
import sys

import jax
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.core import parallel
from jaxsafe.core.checks import UserError
from jaxsafe.core.stats import clopper_pearson
from jaxsafe.pls import counting, guarantee, simulate
from jaxsafe.pls.calibrate import allowed_failures
from jaxsafe.pls.counting import Counting

calibrate = sys.modules["jaxsafe.pls.calibrate"]  # the package has a function of this name
COARSE = guarantee.Study(side=15)
CONFIG = pls.SearchConfig(explore_steps=6, reward_steps=6, expander="none")
NUM = 100


def outcomes(config=CONFIG, study=COARSE, num=NUM, seeds=(0,), chunks=None, **changes):
    """Searches of `num` functions per seed, and the tally `[S, ...]`."""
    how = Counting(functions=num, block=min(num, 50), draws=200, halvings=6)
    how = dataclasses.replace(how, **changes)
    keys = jax.vmap(jax.random.key)(np.array(seeds))
    tally = jax.vmap(lambda key: counting.init(key, study, config, how))(keys)
    first = 0
    for length in chunks or [counting.num_steps(config, how)]:
        run = jax.vmap(counting.chunk, in_axes=(0, None, None, None, None, None))
        run = jax.jit(run, static_argnums=(2, 3, 4, 5))
        tally, metrics = run(tally, first, length, study, config, how)
        first += length
    assert first == counting.num_steps(config, how)
    return counting.counted(tally), tally, metrics


def count(config=CONFIG, study=COARSE, num=NUM, **changes):
    return guarantee.summarise(outcomes(config, study, num, **changes)[0], config.delta)


def constant(alpha, **changes):
    return dataclasses.replace(CONFIG, alpha="constant", alpha_value=alpha, **changes)


def test_worlds_are_draws_of_the_process():
    """Variance 1, and correlation exp(-d^2 / 2 l^2) between two points, over 400 draws."""
    problem, root = guarantee.make(COARSE, CONFIG), guarantee.root(COARSE)
    keys = jax.random.split(jax.random.key(0), 400)
    worlds = jax.vmap(lambda key: guarantee.draw(key, COARSE, problem, root))(keys)
    truth = np.asarray(worlds.truth)
    np.testing.assert_allclose(truth.mean((0, 2)), [0.0, 1.0], atol=0.1)
    np.testing.assert_allclose(truth.std((0, 2)), [1.0, 1.0], atol=0.1)
    gap = np.linalg.norm(problem.grid[100] - problem.grid[102])
    expected = np.exp(-(gap**2) / (2 * 0.2**2))
    got = np.corrcoef(truth[:, 0, 100], truth[:, 0, 102])[0, 1]
    assert abs(got - expected) < 0.1
    assert abs(np.corrcoef(truth[:, 0, 100], truth[:, 1, 100])[0, 1]) < 0.2
    seeds = np.asarray(worlds.seed)
    assert (seeds.sum(1) == 1).all() and (truth[:, 1][seeds] <= 1.0).all()


def test_srinivas_keeps_the_promise_and_a_small_alpha_does_not():
    kept, broken = count(), count(constant(1.0))
    assert kept["violations"] == 0 and kept["kept"] and kept["escapes"] <= CONFIG.delta
    assert broken["low"] > CONFIG.delta and not broken["kept"]
    assert broken["escapes"] >= broken["frequency"]
    assert kept["n"] == NUM and len(kept["regret_curve"]) == 12
    assert np.all(np.diff(kept["coverage_curve"]) >= -1e-6) and kept["coverage"] > 0.02


def test_a_search_is_broken_by_what_it_evaluates_or_would_deploy_in_the_end():
    """Four searches of two steps: one does either, one both, one only in between."""
    unsafe = np.array([[0, 0], [1, 0], [0, 1], [0, 0]], bool)
    deployed = np.array([[0, 1], [0, 0], [1, 1], [1, 0]], bool)
    none = np.zeros((4, 2))
    outcome = simulate.Outcome(unsafe, none > 0, none, deployed, none, np.zeros(4))
    row = guarantee.summarise(outcome, 0.1)
    assert (row["violations"], row["deployed_unsafe"], row["broken"]) == (2, 0.5, 0.75)


def test_baselines_are_what_they_are_called():
    rows = {m: count(dataclasses.replace(CONFIG, method=m)) for m in pls.METHODS}
    assert rows["ucb"]["frequency"] > 0.9 and rows["ucb"]["low"] > CONFIG.delta
    assert rows["seed"]["violations"] == rows["safeopt"]["violations"] == 0
    assert rows["pls"]["regret"] < rows["seed"]["regret"]
    assert rows["safeopt"]["regret"] < rows["seed"]["regret"]


def test_chunks_do_not_matter_and_seeds_differ():
    whole, _, metrics = outcomes(num=12, seeds=(3, 4), block=4)
    parts, _, _ = outcomes(num=12, seeds=(3, 4), block=4, chunks=(4, 8))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    alone, _, _ = outcomes(num=12, seeds=(4,), block=4)
    np.testing.assert_allclose(alone.regret, whole.regret[12:], atol=1e-4)
    assert len(np.unique(whole.regret[:, -1])) == 24
    np.testing.assert_array_equal(metrics["count/functions"], [12, 12])
    violations = whole.unsafe.any(1).reshape(2, 12).sum(1)
    np.testing.assert_array_equal(metrics["count/violations"], violations)


@pytest.mark.parametrize(("num", "delta"), [(1000, 0.1), (299, 0.01), (298, 0.01), (50, 0.2)])
def test_allowed_failures_are_the_most_whose_limit_is_delta(num, delta):
    allowed = allowed_failures(num, delta, 0.95)
    upper = [clopper_pearson(k, num, level=0.9)[1] for k in range(num)]
    assert allowed == sum(u <= delta for u in upper) - 1
    assert (allowed < 0) == (num == 298)


def test_a_run_s_calibration_is_the_library_s():
    """On the same functions; here the draws differ, so both lie in the noise of 200 of them."""
    config = dataclasses.replace(CONFIG, alpha="calibrated")
    _, tally, metrics = outcomes(config, num=50, seeds=range(4))
    problem = guarantee.make(COARSE, config)
    theirs = pls.calibrate(jax.random.key(7), problem, config, num_draws=200, random_seed=True)
    assert np.abs(tally.high - theirs.alpha).max() < 0.35 and np.ptp(tally.high) > 0
    np.testing.assert_array_equal(metrics["count/alpha"], tally.high)
    assert (tally.high - tally.low < 5.5 / 2**6).all() and not tally.failed.any()


@pytest.mark.slow
def test_a_calibration_over_lengthscales_is_stricter():
    config = dataclasses.replace(CONFIG, alpha="calibrated")
    wrong = dataclasses.replace(COARSE, model_lengthscale=2.0)
    trusting, robust = (
        outcomes(dataclasses.replace(config, lengthscale_factors=f), wrong, num=200, seeds=(0, 1))
        for f in ((1.0,), (0.5, 1.0))
    )
    trusted = guarantee.summarise(trusting[0], 0.1)
    kept = guarantee.summarise(robust[0], 0.1)
    assert trusted["low"] > 0.1 and kept["frequency"] <= 0.1


def test_a_calibrated_alpha_is_held_on_other_functions_and_cuts_regret():
    config = dataclasses.replace(CONFIG, alpha="calibrated")
    problem = guarantee.make(COARSE, config)
    found = pls.calibrate(
        jax.random.key(7), problem, config, num_draws=200, random_seed=True, num_halvings=6
    )
    assert found.upper <= config.delta and 1.5 < found.alpha < 3.5
    held_out = count(dataclasses.replace(config, alpha_value=found.alpha), num=300)
    assert held_out["low"] < config.delta and held_out["frequency"] <= config.delta
    assert held_out["regret"] < count(num=300)["regret"] / 1.5
    # A touch less would have failed on the draws it was found on.
    strict = pls.calibrate(
        jax.random.key(7),
        problem,
        config,
        num_draws=200,
        random_seed=True,
        num_halvings=4,
        criterion="bounds",
    )
    assert strict.alpha > found.alpha + 0.3


def test_calibration_on_a_given_seed_set_draws_functions_safe_there():
    config = dataclasses.replace(CONFIG, alpha="calibrated", delta=0.2)
    problem = guarantee.make(COARSE, config)
    seed = (problem.grid < 0.2).all(1)
    found = pls.calibrate(
        jax.random.key(1), problem.replace(seed=seed), config, num_draws=50, num_halvings=3
    )
    assert found.upper <= 0.2


def calibrated(**changes):
    config = dataclasses.replace(CONFIG, alpha="calibrated", lengthscale_factors=(0.7, 1.0))
    problem = guarantee.make(COARSE, config)
    how = {"num_draws": 64, "random_seed": True, "num_halvings": 6} | changes
    return pls.calibrate(jax.random.key(3), problem, config, **how)


def test_a_calibration_counts_no_further_than_it_must_and_its_batches_do_not_matter(monkeypatch):
    """Beside halvings whose counts are all that fail, of which none is refused."""
    found, asked, ends = calibrated(), {}, {}

    def exact(*args):
        *others, _, batch_size = args
        ends[batch_size] = counter(*args)(1.0)
        count = counter(*others, 64, batch_size)
        return lambda alpha: asked.setdefault(alpha, count(alpha))

    counter = calibrate._counter
    monkeypatch.setattr(calibrate, "_counter", exact)
    assert calibrated(batch_size=7) == found == calibrated(batch_size=1)
    allowed = allowed_failures(64, 0.1, 0.95)
    assert max(asked.values()) > 3 * allowed and ends[1] == allowed + 1
    assert allowed < ends[7] <= allowed + 7
    assert found.failures == asked[found.alpha] <= allowed
    assert all(fails > allowed for alpha, fails in asked.items() if alpha < found.alpha)


def test_draws_that_fail_at_any_alpha_end_a_calibration(monkeypatch):
    monkeypatch.setattr(calibrate, "_counter", lambda *_: lambda alpha: 5)
    with pytest.raises(UserError, match=r"5 of 64 searches fail even at alpha=[56]\.\d+: raise"):
        calibrated()


@pytest.mark.device8
def test_eight_devices_calibrate_as_one_does(monkeypatch):
    shared = calibrated()
    assert parallel.own_mesh(64).size == 8
    monkeypatch.setattr(parallel, "own_mesh", lambda _: parallel.seed_mesh(1))
    assert calibrated() == shared


def test_too_few_draws_cannot_show_a_small_delta():
    config = dataclasses.replace(CONFIG, alpha="calibrated", delta=0.01)
    problem = guarantee.make(COARSE, config)
    with pytest.raises(UserError, match="at least 299"):
        pls.calibrate(jax.random.key(0), problem, config, num_draws=100)
    with pytest.raises(UserError, match="batch_size"):
        calibrated(batch_size=0)


def test_a_lengthscale_twice_too_long_breaks_the_promise_and_the_robust_bounds_keep_it():
    """With a constant alpha, where the matched row keeps it too."""
    wrong = dataclasses.replace(COARSE, model_lengthscale=2.0)
    alpha, factors = 3.0, (0.5, 1.0)
    matched, broken = count(constant(alpha)), count(constant(alpha), wrong)
    robust = count(constant(alpha, lengthscale_factors=factors), wrong)
    assert matched["frequency"] <= 0.1 < broken["low"]
    assert robust["frequency"] <= 0.1


@pytest.mark.parametrize("name", guarantee.STUDIES)
def test_every_row_runs(name):
    study = dataclasses.replace(guarantee.STUDIES[name], side=10)
    config = dataclasses.replace(CONFIG, explore_steps=2, reward_steps=2, episodes=3)
    row = count(dataclasses.replace(config, noise="episodes"), study, 10)
    assert row["n"] == 10 and np.isfinite(row["regret_curve"]).all()
    assert 0.0 <= row["low"] <= row["frequency"] <= row["high"] <= 1.0


def test_kinds_of_truths_and_noise_are_as_named():
    problem, root = guarantee.make(COARSE, CONFIG), guarantee.root(COARSE)
    step, capped, plain, uneven = (
        guarantee.draw(jax.random.key(0), dataclasses.replace(COARSE, **k), problem, root)
        for k in ({"truth": "step"}, {"truth": "capped"}, {}, {"heteroscedastic": True})
    )
    assert set(np.unique(step.truth[1]).tolist()) == {0.0, 2.0}
    assert np.abs(capped.truth[1] - 1.0).max() == 0.5
    np.testing.assert_array_equal(step.truth[0], plain.truth[0])
    assert plain.noise_sd.std() < 1e-6
    np.testing.assert_allclose(uneven.noise_sd.max() / uneven.noise_sd.min(), 9.0, rtol=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"functions": 120},
            "counting.functions=120 is no multiple of counting.block=50: give 150",
        ),
        ({"draws": 250}, "counting.draws=250 cannot show a frequency below delta=0.01"),
    ],
)
def test_what_cannot_be_counted_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        counting.validate(dataclasses.replace(Counting(), **changes), (0.1, 0.01))


def test_a_part_of_a_block_is_refused():
    with pytest.raises(UserError, match="set --log_every"):
        outcomes(num=12, block=4, chunks=(6, 6))
