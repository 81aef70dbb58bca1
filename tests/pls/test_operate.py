# SPDX-License-Identifier: Apache-2.0
"""Ways to choose a target, on a made-up truth, and policies whose returns are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.core.checks import UserError
from jaxsafe.pls import comparison, operate, rollout, truth, worlds
from jaxsafe.pls.dsrl_study import Dsrl
from jaxsafe.pls.experiment import PRESETS, validate_experiment
from jaxsafe.pls.operate import Searches
from jaxsafe.pls.operation import Operation
from jaxsafe.pls.truth import Oracle

GRID = np.stack(np.meshgrid([0.0, 50.0, 100.0], [0.0, 10.0, 20.0], indexing="ij"), -1).reshape(
    -1, 2
)
# Two policies: the return is R, the cost is G of the first and 2 G of the second.
ORACLE = Oracle(
    np.stack([GRID, GRID * [1, 2]]),
    np.broadcast_to(np.array([3.0, 4.0]), (2, 9, 2)).copy(),
    np.full((2, 9), 16),
)
SMALL = dataclasses.replace(
    PRESETS["demo"], operation=Operation(thresholds=(10.0,), oracle_episodes=16)
)


def test_judging_by_hand():
    # The first ends at (100, 10), the second there too, which costs it 20.
    searches = Searches(np.array([[[0, 4, 8]], [[0, 1, 7]]]), np.array([[7], [7]]))
    operated = comparison.Operated(10.0, "pls", searches, 3.0)
    judged = comparison.judge(operated, ORACLE)
    np.testing.assert_array_equal(judged.costs, [[[0, 10, 20]], [[0, 20, 20]]])
    np.testing.assert_array_equal(judged.unsafe, [[1], [2]])
    np.testing.assert_array_equal(judged.deployed_unsafe, [[False], [True]])
    # Of the second policy only G = 0 is safe, at a return of 100.
    np.testing.assert_array_equal(judged.share, [[1.0], [1.0]])
    row = comparison.row("Circle-v0", operated, judged, ORACLE, SMALL)
    assert row["violations"] == row["searches"] == 2 and row["deployed_unsafe"] == 0.5
    assert row["unsafe_evaluations"] == 1.5 and row["cost"] == 15.0
    assert row["cost_error"] == 1.0 and row["violations_per_seed"] == [1, 1]
    lines = comparison.rows("Circle-v0", operated, judged, GRID, range(5, 7))
    assert [line["seed"] for line in lines] == [5, 6]
    assert (lines[0]["target_return"], lines[0]["target_cost"]) == (100.0, 10.0)


def test_naive_asks_for_everything_at_the_threshold():
    found = operate.naive(GRID, 10.0, 2)
    np.testing.assert_array_equal(GRID[found.final[:, 0]], [[100, 10], [100, 10]])


def test_the_seed_set_asks_for_little_at_no_cost():
    world = worlds.World(None, None, 100.0, worlds.PRIORS["Circle-v0"])
    z = worlds.grid(world, worlds.Targets(side=11, cost_side=11), (5.0, 20.0))
    assert z.shape == (121, 2) and z[:, 0].max() == 100.0 and z[:, 1].max() == 25.0
    seed = z[worlds.seed_set(z, worlds.Targets())]
    np.testing.assert_allclose(seed, [[10, 0], [20, 0], [30, 0]])


def test_no_unseen_target_is_safe_at_first_but_by_the_paper_s_numbers():
    world = worlds.World(None, None, 100.0, worlds.PRIORS["Circle-v0"])
    z = worlds.grid(world, worlds.Targets(side=11, cost_side=11), (10.0,))
    seed = worlds.seed_set(z, worlds.Targets())
    config = SMALL.search
    ours = operate.method_config("pls", config)
    state = pls.init(jax.random.key(0), worlds.problem(world, ours, z, seed, 10.0), ours)
    np.testing.assert_array_equal(state.safe[0], seed)
    literal = operate.method_config("literal", config)
    problem = worlds.literal_problem(literal, z, seed, 10.0)
    assert pls.init(jax.random.key(0), problem, literal).safe.all()


def test_the_problem_is_the_same_but_for_a_shift():
    world = worlds.World(None, None, 100.0, worlds.PRIORS["Run-v0"])
    z = worlds.grid(world, worlds.Targets(side=5, cost_side=5), (10.0,))
    seed = worlds.seed_set(z, worlds.Targets(seed_high=0.5))
    config = operate.method_config("pls", SMALL.search)
    a, b = (worlds.problem(world, config, z, seed, t) for t in (5.0, 20.0))
    np.testing.assert_allclose(b.prior_mean[1:] - a.prior_mean[1:], 15.0, rtol=1e-6)
    shifted = a.replace(thresholds=a.thresholds + 15, floor=a.floor + 15, prior_mean=b.prior_mean)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), shifted, b)


def test_the_cost_s_lengthscale_grows_with_the_threshold_where_it_is_told_to():
    prior = worlds.PRIORS["Run-v0"]._replace(cost_lengthscale=(0.2, 10.0), cost_growth=0.5)
    np.testing.assert_allclose(prior.cost_lengthscale_at(40.0), (0.4, 20.0))
    world = worlds.World(None, None, 100.0, prior)
    z = worlds.grid(world, worlds.Targets(side=5, cost_side=5), (10.0,))
    seed = worlds.seed_set(z, worlds.Targets(seed_high=0.5))
    config = operate.method_config("pls", SMALL.search)
    grown = worlds.problem(world, config, z, seed, 40.0)
    longer = prior._replace(cost_lengthscale=(0.4, 20.0), cost_growth=0.0)
    told = worlds.problem(world._replace(prior=longer), config, z, seed, 40.0)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), grown, told)


@pytest.fixture
def exact(monkeypatch):
    """Policies whose params `[S]` multiply their costs: return R, cost factor G, and noise of 1."""

    def returns(policy, key, task, z, config, num_episodes, model=None):
        del task, config, model
        noise = jax.random.normal(key, (2, num_episodes))
        return z[0] + noise[0], policy * z[1] + noise[1]

    def evaluate(policy, key, task, z, config, num_episodes):
        keys = jax.random.split(key, len(z))
        run = lambda k, z: returns(policy, k, task, z, config, num_episodes)  # noqa: E731
        return jnp.stack(jax.vmap(run)(keys, z), axis=-1)

    monkeypatch.setattr(rollout, "returns", returns)
    monkeypatch.setattr(rollout, "evaluate", evaluate)
    return jnp.array([1.0, 2.0])


def test_the_oracle_finds_what_policies_do(exact):
    how = Operation(oracle_episodes=400, oracle_more=0, batch=4)
    z = jnp.asarray(GRID, jnp.float32)
    found = truth.true_returns(exact, jax.random.key(0), None, z, None, how)
    np.testing.assert_allclose(found.mean, ORACLE.mean, atol=0.25)
    np.testing.assert_allclose(found.sd, 1.0, atol=0.15)
    assert (found.episodes == 400).all()


def test_the_oracle_looks_closer_near_thresholds(exact):
    """The first policy costs G, the second 2 G: six and three of nine lie near."""
    how = Operation((10.0, 19.0), oracle_episodes=9, oracle_more=20_000, oracle_band=2.5)
    z = jnp.asarray(GRID, jnp.float32)
    found = truth.true_returns(exact, jax.random.key(0), None, z, None, how)
    closer = found.episodes == 20_009
    # G of 10 and 20, and of the second policy 10 alone; it has as many as the first.
    near = np.abs(ORACLE.mean[..., 1, None] - np.array([10.0, 19.0])).min(-1) < 2
    assert near.sum(1).tolist() == [6, 3] and (closer >= near).all()
    assert closer.sum(1).tolist() == [6, 6] and (found.episodes[~closer] == 9).all()
    np.testing.assert_allclose(found.mean[closer], ORACLE.mean[closer], atol=0.04)
    np.testing.assert_allclose(found.sd[closer], 1.0, atol=0.03)
    assert np.abs(found.mean[~closer] - ORACLE.mean[~closer]).max() > 0.04


def test_searches_draw_from_recorded_episodes(exact):
    """Whose mean is the truth, exactly; a single recorded one is all that an evaluation sees."""
    z = jnp.asarray(GRID, jnp.float32)
    config = pls.SearchConfig(explore_steps=0, reward_steps=9, episodes=50)
    found = truth.true_returns(
        exact, jax.random.key(0), None, z, None, Operation(recorded=300, batch=4)
    )
    assert found.returns.shape == (2, 9, 300, 2) and (found.episodes == 300).all()
    np.testing.assert_allclose(found.mean, found.returns.mean(2), rtol=1e-5)
    np.testing.assert_allclose(found.mean, ORACLE.mean, atol=0.3)
    recorded = np.broadcast_to(np.stack([GRID[::-1]] * 2)[:, :, None], (2, 9, 1, 2))
    common = (jax.random.key(1), None, z, 10.0, config, None, 2)
    backwards = operate.unsafe_search(exact, *common, recorded)
    seen = GRID[::-1][backwards.final]  # two targets look equally good
    assert (seen[..., 0] == 100).all() and (seen[..., 1] <= 10).all()
    assert (GRID[backwards.final][..., 0] == 0).all()
    drawn = operate._evaluator(exact[0], jnp.asarray(found.returns[0]), None, None, 5000)(
        jax.random.key(2), jnp.array([4, 0]), z[jnp.array([4, 0])]
    )
    assert drawn.shape == (2, 5000, 2)
    np.testing.assert_allclose(drawn.mean(1), found.mean[0, [4, 0]], atol=0.06)
    assert set(np.unique(drawn[0, :, 0])) <= set(np.unique(found.returns[0, 4, :, 0]))


def test_one_recorded_episode_has_no_spread():
    with pytest.raises(UserError, match="recorded=1 has no spread"):
        validate_experiment(dataclasses.replace(SMALL, operation=Operation(recorded=1)))


def test_two_lots_of_episodes_are_merged_as_if_drawn_at_once():
    rng = np.random.default_rng(0)
    few, more = rng.normal(3, 2, (1, 5, 2, 7)), rng.normal(4, 2, (1, 2, 2, 11))
    first = Oracle(few.mean(-1), few.std(-1, ddof=1), np.full((1, 5), 7))
    places, how = np.array([[3, 1]]), Operation(oracle_episodes=7, oracle_more=11)
    found = truth._merged(first, places, more.mean(-1), more.var(-1, ddof=1), how)
    together = np.concatenate([few[0, [3, 1]], more[0]], -1)
    np.testing.assert_allclose(found.mean[0, [3, 1]], together.mean(-1), rtol=1e-12)
    np.testing.assert_allclose(found.sd[0, [3, 1]], together.std(-1, ddof=1), rtol=1e-12)
    np.testing.assert_array_equal(found.episodes, [[7, 18, 7, 18, 7]])
    np.testing.assert_array_equal(found.mean[0, [0, 2, 4]], first.mean[0, [0, 2, 4]])


def test_the_seed_check_drops_what_is_not_shown_to_be_safe(exact):
    task = type("Task", (), {"max_episode_steps": 100, "name": "made up"})
    world = worlds.World(task, None, 100.0, worlds.PRIORS["Run-v0"])
    seed = np.isin(np.arange(9), [0, 1, 2])  # costs of 0, 10 and 20, twice that for the second

    def positive(policy, key, task, z, config, num_episodes, model=None):
        return jnp.full(num_episodes, z[0]), jnp.full(num_episodes, policy * z[1])

    rollout.returns = positive  # undone by `exact`
    masks = operate.check_seed_set(
        exact, jax.random.key(0), world, GRID, seed, 15.0, None, worlds.Targets()
    )
    np.testing.assert_array_equal(masks[:, :3], [[True, True, False], [True, False, False]])
    assert not masks[:, 3:].any()


@pytest.mark.usefixtures("exact")
def test_searches_find_each_policy_s_own_best_target():
    """Both can reach the return of 100, the second, whose costs are higher, at less of G."""
    side = np.linspace(0, 1, 21)
    z = np.stack(np.meshgrid(100 * side, 20 * side, indexing="ij"), -1).reshape(-1, 2)
    seed = (z[:, 1] == 0) & (z[:, 0] <= 20)
    world = worlds.World(None, None, 100.0, worlds.PRIORS["Circle-v0"])
    factors = jnp.array([1.0, 1.25])
    config = pls.SearchConfig(
        explore_steps=15, reward_steps=15, episodes=20, alpha="constant", alpha_value=2.5
    )
    problem = worlds.problem(world, config, z, seed, 10.0)
    found = operate.run_searches(
        factors, jax.random.key(1), None, np.stack([seed] * 2), problem, config, None, 3
    )
    assert found.points.shape == (2, 3, 30) and found.final.shape == (2, 3)
    cost = np.asarray(factors)[:, None, None] * z[found.points][..., 1]
    assert (cost <= 10.0 + 1e-6).all()
    assert (z[found.final][..., 0] >= 90).all()


def test_unsafe_search_takes_the_best_that_looked_safe(exact):
    config = pls.SearchConfig(explore_steps=0, reward_steps=9, episodes=50)
    z = jnp.asarray(GRID, jnp.float32)
    found = operate.unsafe_search(exact, jax.random.key(0), None, z, 11.0, config, None, repeats=2)
    assert (np.sort(found.points, -1) == np.arange(9)).all()
    chosen = GRID[found.final]
    assert (chosen[..., 0] == 100).all()  # G = 20 would be too much for the first, 10 for the other
    assert (chosen[0, :, 1] <= 10).all() and (chosen[1, :, 1] == 0).all()


def test_data_are_made_once_and_read_again(tmp_path):
    policy = pls.PolicyConfig()
    data = worlds.Data(trajectories=20, folder=str(tmp_path))
    made = worlds.make("Circle-v0", data, policy)
    assert (tmp_path / "Circle-v0.hdf5").exists()
    worlds.make.cache_clear()
    read = worlds.make("Circle-v0", data, policy)
    jax.tree.map(np.testing.assert_array_equal, made.windows, read.windows)
    (tmp_path / "Circle-v0.hdf5").rename(tmp_path / "Run-v0.hdf5")
    with pytest.raises(UserError, match="it is of another task"):
        worlds.make("Run-v0", data, policy)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_sound_and_has_its_own_stages(preset):
    experiment = PRESETS[preset]
    validate_experiment(experiment)
    with pytest.raises(UserError, match="worlds='' is empty"):
        validate_experiment(dataclasses.replace(experiment, worlds=(), promises=(), dsrl=Dsrl()))


def test_calibrated_searches_keep_a_reserve():
    """Only they are told a lower threshold, at which their prior mean lies too."""
    world = worlds.World(None, None, 100.0, worlds.PRIORS["Run-v0"])
    z = worlds.grid(world, SMALL.targets, (10.0,))
    how = dataclasses.replace(SMALL, operation=Operation(thresholds=(10.0,), reserve=0.5))
    told = {m: comparison.problem_of(how, world, z, 10.0, m) for m in ("pls", "pls_calibrated")}
    assert [float(p.thresholds[0, 0]) for p in told.values()] == [10.0, 9.5]
    np.testing.assert_allclose(told["pls_calibrated"].prior_mean[1], 9.5)
    with pytest.raises(UserError, match=r"operation\.reserve=10 leaves nothing"):
        validate_experiment(
            dataclasses.replace(how, operation=Operation(thresholds=(10.0,), reserve=10.0))
        )
