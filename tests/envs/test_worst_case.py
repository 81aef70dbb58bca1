# SPDX-License-Identifier: Apache-2.0
"""Worst case, CVaR and what the grid missed, against closed forms and in both engines."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs.uncertainty import make_set
from jaxsafe.envs.worst_case import Search, cvar, worst_case, worst_case_host
from tests.m2td3 import games

from .recordings import GAINS

FINE = Search(random=20, rounds=6, proposals=16)
GRID_ONLY = Search(random=0, rounds=0)
A = 23 / 32  # the quadratic game's minimax action, worst at w = 5/32 = 0.15625 and at w = 1
TENTHS = np.linspace(0, 0.9, 10)


def cost(a, w):
    return (1 + 8 * w) * (a - w) ** 2


@pytest.fixture(scope="module")
def game():
    """The quadratic game on [0, 0.9]: there 5/32 alone is worst, between two points of the grid."""
    task, _ = games.quadratic()
    return task, make_set(task, {"w": (0.0, 0.9)})


def solve(game, a, search=FINE, seed=0, **options):
    """The worst case of the constant action `a` [], or of each of them [P]."""

    def one(a):
        act = lambda obs: jnp.full((1,), a)  # noqa: E731
        return worst_case(jax.random.key(seed), act, *game, search=search, **options)

    return jax.device_get(jax.jit(one if np.ndim(a) == 0 else jax.vmap(one))(a))


def test_search_finds_the_worst_case_between_the_grid_points(game):
    found = solve(game, A)
    np.testing.assert_allclose(found.values, -cost(A, TENTHS), rtol=1e-5)
    assert found.worst_omega == pytest.approx(0.2) and found.refined_omega.shape == (1,)
    assert found.refined_omega == pytest.approx(5 / 32, abs=5e-3)
    # The closed form of the cost's inner maximum, (8a + 1)^3 / 432.
    assert found.refined == pytest.approx(-729 / 1024, rel=1e-4)
    assert found.gap == pytest.approx(729 / 1024 - cost(A, 0.2), rel=0.02)
    assert found.average == pytest.approx(-cost(A, TENTHS).mean(), rel=1e-5)


def test_the_corner_of_a_set_is_found_exactly():
    task, whole = games.quadratic()
    found = solve((task, whole), 0.5)  # worst at w = 1, where the grid ends
    assert found.worst_omega == found.refined_omega == 1.0
    assert found.worst == found.refined == pytest.approx(games.quadratic_worst(0.5))
    assert found.gap == 0.0
    # Without the grid's end the search is drawn to the edge, and no further.
    found = solve((task, whole), 0.5, dataclasses.replace(FINE, rounds=8), grid=1)
    assert found.refined_omega == pytest.approx(1.0, abs=0.01) and found.refined_omega <= 1.0


def test_without_a_search_the_grid_is_all(game):
    found = solve(game, A, GRID_ONLY)
    assert found.gap == 0.0 and found.refined == found.worst == found.values.min()
    assert found.refined_omega == found.worst_omega == pytest.approx(0.2)


@pytest.mark.parametrize("search", [Search(5, 0), Search(0, 2, 3), Search(7, 3, 5)])
@pytest.mark.parametrize("batch", [1, 4, 1000])
def test_blocks_of_any_size_give_the_grid_values_and_never_a_negative_gap(game, search, batch):
    found = solve(game, A, search, grid=7, episodes=2, batch=batch)
    np.testing.assert_allclose(found.values, -cost(A, np.linspace(0, 0.9, 7)), rtol=1e-5)
    assert found.gap >= 0 and found.refined <= found.worst
    assert found.refined == pytest.approx(-cost(A, found.refined_omega[0]), rel=1e-5)
    assert 0 <= found.refined_omega <= np.float32(0.9)


def test_the_search_halves_its_radius_each_round():
    from jaxsafe.envs.worst_case import _blocks

    search = Search(rounds=3, proposals=2000, radius=0.4)
    known = jnp.zeros((1500, 2))
    fixed, is_local, noise = _blocks(jax.random.key(0), known, 1000, search)
    assert fixed.shape == noise.shape == (8, 1000, 2)
    assert is_local.tolist() == [False] * 2 + [True] * 6
    np.testing.assert_allclose(noise[2:].std((1, 2)), np.repeat([0.4, 0.2, 0.1], 2), rtol=0.05)


def test_policies_side_by_side_equal_each_alone(game):
    actions = np.array([0.3, A, 0.9], np.float32)
    together = solve(game, actions)
    for i, action in enumerate(actions):
        for a, b in zip(together, solve(game, action), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-6)
    assert len(set(together.worst_omega.ravel())) > 1


def test_all_rounds_are_one_compiled_loop(game):
    task, box = game
    traced = []

    def step(model, state, action):
        traced.append(None)
        return task.step(model, state, action)

    watched = dataclasses.replace(task, step=step)
    run = jax.jit(
        lambda key, a: worst_case(key, lambda obs: jnp.full((1,), a), watched, box, search=FINE)
    )
    first = run(jax.random.key(0), 0.5)
    # JAX traces a loop's body a few times to settle its types; seven stages would double that.
    assert len(traced) <= 4
    traced.clear()
    second = run(jax.random.key(1), 0.7)
    assert not traced and first.worst != second.worst


def test_every_point_gets_the_same_starts(game):
    task, box = game

    def reset(model, key):
        return task.reset(model, key).replace(qpos=jax.random.uniform(key, (1,)))

    def step(model, state, action):
        state, timestep = task.step(model, state, action)
        return state, timestep._replace(reward=state.qpos[0])

    noisy = dataclasses.replace(task, reset=reset, step=step)
    found = solve((noisy, box), A, episodes=3)
    assert 0 < found.values[0] < 1
    np.testing.assert_array_equal(found.values, found.values[0])
    assert found.gap == 0.0 and solve((noisy, box), A, episodes=3, seed=1).worst != found.worst


def test_a_nan_is_the_worst_case_wherever_it_is(game):
    found = solve(game, np.nan)
    assert np.isnan(found.values).all()
    for name in ("worst", "average", "cvar", "refined", "gap"):
        assert np.isnan(getattr(found, name)), name
    task, box = game
    seeing = dataclasses.replace(task, observe=lambda model, state: model.w)

    def breaks(low, high):
        act = lambda w: jnp.where((w > low) & (w < high), jnp.nan, A)  # noqa: E731
        return worst_case(jax.random.key(0), act, seeing, box, episodes=1, search=FINE)

    off_grid, on_grid = breaks(0.71, 0.79), breaks(0.65, 0.75)
    assert np.isnan(off_grid.refined) and 0.71 < off_grid.refined_omega < 0.79
    assert np.isfinite(off_grid.worst) and np.isfinite(off_grid.cvar)
    assert np.isnan([on_grid.worst, on_grid.cvar, on_grid.average, on_grid.refined]).all()
    assert on_grid.worst_omega == pytest.approx(0.7)


def test_cvar_is_the_mean_of_the_worst_share():
    values = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    cases = {0.2: 1.0, 0.1: 1.0, 0.4: 1.5, 0.5: (1 + 2 + 0.5 * 3) / 2.5, 1.0: 3.0}
    for alpha, expected in cases.items():
        assert cvar(values, alpha, np) == pytest.approx(expected)
        np.testing.assert_allclose(cvar(jnp.stack([values, -values[::-1]]), alpha)[0], expected)
        # Rockafellar and Uryasev: the greatest over t of t - E[(t - X)+] / alpha.
        bound = [t - np.maximum(t - values, 0).mean() / alpha for t in np.linspace(0, 6, 6001)]
        assert max(bound) == pytest.approx(expected, abs=1e-3)
    assert np.isnan(cvar(np.append(values, np.nan), 0.2, np))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": 0}, "grid=0 is out of range"),
        ({"episodes": 0}, "episodes=0 is out of range"),
        ({"batch": 0}, "batch=0 is out of range"),
        ({"search": Search(alpha=0.0)}, r"search\.alpha=0\.0 is out of range"),
        ({"search": Search(random=-1)}, r"search\.random=-1 is out of range"),
        ({"search": Search(proposals=0)}, r"search\.proposals=0 is out of range"),
        ({"grid": 10**12}, r"GiB.*Lower n="),
    ],
)
def test_errors(game, change, message):
    with pytest.raises(UserError, match=message) as error:
        worst_case(jax.random.key(0), lambda obs: obs, *game, **change)
    assert "\n" not in str(error.value)


def test_mujoco_c_needs_a_mujoco_model(game):
    with pytest.raises(UserError, match="quadratic has no MuJoCo model: score it by worst_case"):
        worst_case_host(lambda obs: obs, *game)


# The pendulum. The known controller holds it everywhere; without its gains on the cart it drifts.
HOLDS, DRIFTS = GAINS, GAINS * [0, 1, 0, 1]


def linear(gains):
    def policy(obs):
        return np.clip(np.einsum("pro,po->pr", obs, gains), -3, 3)[..., None]

    return policy


def test_known_controller_attains_the_ceiling_in_mujoco_c(pendulum):
    seen = []
    found = worst_case_host(
        linear(np.stack([HOLDS, 0 * HOLDS])),
        *pendulum,
        episodes=1,
        seed=21,
        search=Search(random=20, rounds=2, proposals=5),
        num_policies=2,
        progress=seen.append,
    )
    assert found.values.shape == (2, 100) and found.refined_omega.shape == (2, 2)
    assert (found.values[0] == 1000).all()
    for summary in (found.worst, found.average, found.cvar, found.refined):
        assert summary[0] == 1000 and summary[1] < 200
    assert (found.gap >= 0).all() and found.gap[0] == 0
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)


def test_host_search_finds_what_the_grid_misses(pendulum):
    """Each policy's own point, at which a fresh score of that policy gives the value told."""
    from jaxsafe.envs import host

    task, box = pendulum
    policies = np.stack([0.3 * GAINS, DRIFTS])
    search = Search(random=10, rounds=3, proposals=6, radius=0.3)
    found = worst_case_host(
        linear(policies), task, box, 3, 2, seed=3, search=search, num_policies=2
    )
    assert (found.gap >= 0).all() and found.gap.max() > 0
    for i in range(2):
        alone = host.score(
            task, linear(policies[i : i + 1]), box, found.refined_omega[i : i + 1], 2, 3
        )
        assert alone.returns.mean() == found.refined[i]
        assert box.project(found.refined_omega[i]) == pytest.approx(found.refined_omega[i])
    single = worst_case_host(linear(policies[:1]), task, box, 3, 2, seed=3, search=GRID_ONLY)
    np.testing.assert_array_equal(single.values[0], found.values[0])


def test_host_nan_stays(pendulum):
    gains = np.stack([np.nan * GAINS, GAINS])
    found = worst_case_host(linear(gains), *pendulum, 2, 1, search=Search(2, 1, 2), num_policies=2)
    for name in ("worst", "average", "cvar", "refined", "gap"):
        assert np.isnan(getattr(found, name)).tolist() == [True, False], name


@pytest.fixture(scope="module")
def mjx_pendulum(pendulum):
    """The worst cases of three policies in MJX on a coarse grid, one compiled call."""

    def run(gains):
        act = lambda obs: jnp.clip(obs @ gains, -3, 3)[None]  # noqa: E731
        search = Search(random=3, rounds=1, proposals=4)
        return worst_case(jax.random.key(0), act, *pendulum, 2, 2, search, batch=8)

    gains = jnp.asarray([HOLDS, np.nan * HOLDS, 0.3 * HOLDS], jnp.float32)
    return jax.device_get(jax.jit(jax.vmap(run))(gains))


@pytest.mark.slow
def test_known_controller_attains_the_ceiling_in_mjx(mjx_pendulum):
    assert mjx_pendulum.values.shape == (3, 4)
    for name in ("worst", "average", "cvar", "refined"):
        holds, _, weak = getattr(mjx_pendulum, name)
        assert holds == 1000 and weak < 1000, name


@pytest.mark.slow
def test_a_nan_policy_is_not_hidden_in_mjx(mjx_pendulum):
    for name in ("worst", "average", "cvar", "refined", "gap"):
        assert np.isnan(getattr(mjx_pendulum, name)).tolist() == [False, True, False], name
