# SPDX-License-Identifier: Apache-2.0
"""The closed forms against dense searches, and the games as tasks against their formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import game_tasks, games, rollout
from jaxsafe.envs.games import QuadraticGame, ScalarRegulator, closed_form

GAMES = [
    QuadraticGame(),
    QuadraticGame(base=2.0, slope=0.0, low=-1.0, high=3.0, nominal=0.0),
    QuadraticGame(base=9.0, slope=-8.0),
    QuadraticGame(base=1.0, slope=2.0, low=-0.4, high=2.0, nominal=1.0),
    ScalarRegulator(),
    ScalarRegulator(nominal=0.5),
    ScalarRegulator(a=0.9, rho=1.0, gamma=0.95, low=0.2, high=3.0, start=2.0, nominal=0.4),
    ScalarRegulator(a=1.1, rho=0.5, gamma=0.9, low=0.5, high=0.9, nominal=0.6),
]


def test_the_numbers_of_the_two_games():
    found = closed_form(QuadraticGame())
    assert found.minimax == pytest.approx(23 / 32)
    assert found.minimax_worst == pytest.approx(-729 / 1024)
    np.testing.assert_allclose(found.worst_at, [5 / 32, 1])
    assert (found.randomised, found.nominal) == (pytest.approx(19 / 30), 0.5)
    assert found.randomised_worst == pytest.approx(-1.21)
    assert found.nominal_worst == pytest.approx(-2.25)
    found = closed_form(ScalarRegulator())
    assert found.minimax == pytest.approx(1.2)
    assert found.minimax_worst == pytest.approx(-1.144 / 0.301456)
    np.testing.assert_allclose(found.worst_at, [0.3, 1.7])
    assert found.randomised == pytest.approx(1.076, abs=1e-3)
    assert found.randomised_worst == pytest.approx(-4.68, abs=0.01)
    assert found.nominal == pytest.approx(1.1017, abs=1e-4)
    assert found.nominal_worst == pytest.approx(-4.458, abs=1e-3)
    assert closed_form(ScalarRegulator(nominal=0.5)).nominal_worst == -np.inf


def dense(game, x, w):
    """Returns on arrays, written anew."""
    if isinstance(game, QuadraticGame):
        return -(game.base + game.slope * w) * (x - w) ** 2
    shrink = 1 - game.gamma * (game.a - w * x) ** 2
    cost = game.start**2 * (1 + game.rho * x**2)
    return np.where(shrink > 0, -cost / np.maximum(shrink, 1e-12), -np.inf)


@pytest.mark.parametrize("game", GAMES, ids=repr)
def test_closed_forms_equal_a_dense_search(game):
    found = closed_form(game)
    reach = (game.low, game.high) if isinstance(game, QuadraticGame) else (0.0, 4.0)
    x, w = np.linspace(*reach, 6001)[:, None], np.linspace(game.low, game.high, 2001)
    table = dense(game, x, w)
    worst, mean = table.min(1), table.mean(1)
    step = x[1, 0] - x[0, 0]
    assert found.minimax_worst == pytest.approx(worst.max(), rel=1e-3)
    assert abs(x[worst.argmax(), 0] - found.minimax) < 3 * step
    assert abs(x[mean.argmax(), 0] - found.randomised) < 3 * step
    at_nominal = dense(game, x[:, 0], game.nominal)
    assert abs(x[at_nominal.argmax(), 0] - found.nominal) < 3 * step
    for x_, value in zip(found[:8:2], found[1:8:2], strict=True):
        assert value == pytest.approx(dense(game, x_, w).min(), rel=1e-4)


@pytest.mark.parametrize("game", [g for g in GAMES if isinstance(g, ScalarRegulator)], ids=repr)
def test_the_gain_for_redrawn_w_equals_value_iteration(game):
    """V(x) = P x^2, where a step's mean over w stands in place of one w."""
    w = game.low + (game.high - game.low) * (np.arange(4000) + 0.5) / 4000
    p = 1.0
    for _ in range(2000):
        first, second = w.mean(), (w**2).mean()
        k = game.gamma * p * game.a * first / (game.rho + game.gamma * p * second)
        p = 1 + game.rho * k**2 + game.gamma * p * ((game.a - w * k) ** 2).mean()
    assert closed_form(game).redrawn == pytest.approx(k, rel=1e-4)


def test_the_gain_for_redrawn_w_in_the_game_of_one_step_is_the_mean():
    found = closed_form(QuadraticGame())
    assert found.redrawn == found.randomised and found.redrawn_worst == found.randomised_worst


@pytest.mark.parametrize(
    ("game", "words"),
    [
        (QuadraticGame(low=1.0), "low=1 is not below high=1"),
        (QuadraticGame(nominal=2.0), "nominal=2 is outside"),
        (QuadraticGame(slope=-8.0), "below 0 in the set"),
        (QuadraticGame(base=float("nan")), "base=nan is not finite"),
        (ScalarRegulator(low=0.0), "give low > 0"),
        (ScalarRegulator(a=5.0, low=0.1, high=9.0), "no gain keeps the cost finite"),
    ],
)
def test_bad_constants_are_named(game, words):
    with pytest.raises(UserError, match=words):
        closed_form(game)


def test_the_games_as_tasks_pay_what_the_formulas_say():
    for game, x in ((GAMES[0], 0.3), (GAMES[3], 1.4), (GAMES[4], 1.1), (GAMES[7], 1.0)):
        task, uncertainty = game_tasks.make(game)
        for w in (game.low, (game.low + game.high) / 2, game.high):
            model = uncertainty.apply(task.model, jnp.array([w]))
            state = task.reset(model, jax.random.key(0))
            if isinstance(game, QuadraticGame):
                policy = lambda obs, x=x: jnp.array([x])  # noqa: E731
                got = rollout.episode_return(task, policy, model, state)[0]
            else:
                got = discounted(task, model, state, x, game.gamma)
            assert got == pytest.approx(games.returns(game, x, w), rel=1e-3)


def discounted(task, model, state, gain, gamma):
    total = 0.0
    for t in range(200):
        state, timestep = task.step(model, state, -gain * state.inner)
        total += gamma**t * float(timestep.reward)
        assert not timestep.terminated and timestep.truncated == (t >= 39)
    return total


def test_training_starts_of_the_regulator_fill_their_range():
    task, _ = game_tasks.make(ScalarRegulator())
    keys = jax.random.split(jax.random.key(0), 1000)
    x = jax.vmap(task.explore, in_axes=(None, 0))(task.model, keys).inner
    assert x.shape == (1000, 1) and abs(x.mean()) < 0.1 and 1.95 < abs(x).max() <= 2


def test_policy_numbers_come_from_actions_at_the_start():
    game = dataclasses.replace(ScalarRegulator(), start=2.0)
    assert game_tasks.policy_number(game, -2.4) == pytest.approx(1.2)
    assert game_tasks.policy_number(QuadraticGame(), 0.7) == 0.7
