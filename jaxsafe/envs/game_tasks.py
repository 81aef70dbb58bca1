# SPDX-License-Identifier: Apache-2.0
"""The games of `games`, as tasks that can be learned."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsafe.envs.games import Game, QuadraticGame, check, weight
from jaxsafe.envs.types import AdaptedState, Leaf, Task, Timestep
from jaxsafe.envs.uncertainty import UncertaintySet, make_set


@struct.dataclass
class GameModel:
    """The one uncertain number, so that it can be a set's parameter."""

    w: jnp.ndarray  # [1]


_REACH, _BOUND, _FORCE, _STEPS = 2.0, 4.0, 3.0, 40


def make(game: Game) -> tuple[Task, UncertaintySet]:
    """Builds a game as a task with its set.

    The regulator's x stays within 4 and u within 3, its training starts lie in [-2, 2], and its
    episodes of 40 steps are truncated, never terminated.

    Raises:
      UserError: as `check`.
    """
    check(game)
    quadratic = isinstance(game, QuadraticGame)
    # The quadratic game shows a constant 1, so that a linear policy can play any a.
    start = 1.0 if isinstance(game, QuadraticGame) else game.start

    def place(x) -> AdaptedState:
        return AdaptedState(jnp.reshape(x, (1,)), jnp.int32(0))

    def explore(model, key) -> AdaptedState:
        if quadratic:
            return place(jnp.float32(start))
        return place(jax.random.uniform(key, (), minval=-_REACH, maxval=_REACH))

    limits = (game.low, game.high) if quadratic else (-_FORCE, _FORCE)
    task = Task(
        name=type(game).__name__,
        model=GameModel(jnp.array([game.nominal], jnp.float32)),
        reset=lambda model, key: place(jnp.float32(start)),
        explore=explore,
        step=lambda model, state, action: _step(game, model, state, action),
        observe=lambda model, state: state.inner,
        obs_size=1,
        action_size=1,
        action_low=np.array(limits[:1], np.float32),
        action_high=np.array(limits[1:], np.float32),
        obs_scale=np.ones(1, np.float32),
        max_episode_steps=1 if quadratic else _STEPS,
        parameters={"w": Leaf("w", (0,))},
        host=None,
    )
    return task, make_set(task, {"w": (game.low, game.high)})


def _step(
    game: Game, model: GameModel, state: AdaptedState, action
) -> tuple[AdaptedState, Timestep]:
    w, x, u, steps = model.w[0], state.inner[0], action[0], state.steps + 1
    if isinstance(game, QuadraticGame):
        reward, after = -weight(game, w) * (u - w) ** 2, x
        terminated, truncated = jnp.bool_(True), jnp.bool_(False)
    else:
        reward = -(x**2 + game.rho * u**2)
        after = jnp.clip(game.a * x + w * u, -_BOUND, _BOUND)
        terminated, truncated = jnp.bool_(False), steps >= _STEPS
    state = AdaptedState(after[None], steps)
    return state, Timestep(state.inner, reward, jnp.float32(0), terminated, truncated)


def policy_number(game: Game, action: float) -> float:
    """The policy number of a policy that plays `action` at the start; the regulator's is linear."""
    return action if isinstance(game, QuadraticGame) else -action / game.start
