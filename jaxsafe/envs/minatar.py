# SPDX-License-Identifier: Apache-2.0
"""gymnax's MinAtar Breakout as a task whose observation is the game's whole state, in numbers.

An observation `[36]` is the ball's column and row (0 to 9, from the upper left), its direction
across and down (-1 or 1), the paddle's column, whether the last step struck a brick, and which of
the 30 bricks in rows 1 to 3 are there. An action `[1]` is 0 to stay, 1 for left and 2 for right,
rounded. Steps draw nothing; a start has the ball at either side.
"""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.envs.types import AdaptedState, Task, Timestep

if TYPE_CHECKING:
    from gymnax.environments.minatar.breakout import EnvState

CELLS = 10  # rows and columns
BRICKS = (1, 4)  # first row of them, and the first below
NAMES = (
    *("ball x", "ball y", "across", "down", "paddle", "strike"),
    *(f"brick {row},{column}" for row in range(*BRICKS) for column in range(CELLS)),
)
LOW = np.array([0, 0, -1, -1, 0, 0] + [0] * 30, np.float32)
HIGH = np.array([9, 9, 1, 1, 9, 1] + [1] * 30, np.float32)


@functools.cache
def _breakout() -> Any:
    """gymnax's module. To import it makes arrays, and the host's devices are split before that."""
    with jax.ensure_compile_time_eval():
        from gymnax.environments.minatar import breakout
    return breakout


def observe(inner: "EnvState") -> jax.Array:
    """The numbers `[36]` of a state of gymnax's."""
    direction = inner.ball_dir
    across = jnp.where((direction == 1) | (direction == 2), 1, -1)
    down = jnp.where(direction >= 2, 1, -1)
    first = [inner.ball_x, inner.ball_y, across, down, inner.pos, inner.strike]
    bricks = inner.brick_map[slice(*BRICKS)].reshape(-1)
    return jnp.concatenate([jnp.stack([jnp.asarray(x, jnp.float32) for x in first]), bricks])


def place(obs: jax.Array) -> "EnvState":
    """`observe` the other way; numbers `[36]` that no state has go to the nearest that one has."""
    near = jnp.clip(jnp.round(obs), LOW, HIGH).astype(jnp.int32)
    right, falls = obs[2] > 0, obs[3] > 0
    bricks = jnp.zeros((CELLS, CELLS))
    fields: dict[str, Any] = {  # gymnax declares some as Python's numbers
        "ball_x": near[0],
        "ball_y": near[1],
        "ball_dir": jnp.where(falls, jnp.where(right, 2, 3), jnp.where(right, 1, 0)),
        "pos": near[4],
        "strike": near[5] > 0,
        "brick_map": bricks.at[slice(*BRICKS)].set(near[6:].reshape(-1, CELLS).astype(float)),
        "last_x": near[0],  # a step sets both before it reads them
        "last_y": near[1],
        "time": jnp.int32(0),
        "terminal": jnp.bool_(False),
    }
    return _breakout().EnvState(**fields)


def follow(xp, obs):
    """A policy written by hand: to where the ball will land, or below it while it rises.

    Args:
      xp: `numpy` or `jax.numpy`.
      obs: `[..., 36]`.

    Returns:
      Actions 0, 1 or 2, `[..., 1]`.
    """
    ball, row, paddle = (xp.round(obs[..., i]) for i in (0, 1, 4))
    across = xp.where(obs[..., 2] > 0, 1.0, -1.0)
    # A ball stays in the last column for a step, so a round trip takes 20.
    far = xp.mod(ball + across * (CELLS - 1 - row), 2 * CELLS)
    lands = xp.where(far < CELLS, far, 2 * CELLS - 1 - far)
    goal = xp.where(obs[..., 3] > 0, lands, ball)
    return xp.where(goal < paddle, 1.0, xp.where(goal > paddle, 2.0, 0.0))[..., None]


@functools.cache
def make() -> Task:
    """Builds the task `Breakout-MinAtar`; one object, however often it is asked for."""
    env = _breakout().MinBreakout()
    params = env.default_params

    def reset(model, key: jax.Array) -> AdaptedState:
        _, inner = env.reset_env(key, params)
        return AdaptedState(place(observe(inner)), jnp.int32(0))

    def step(model, state: AdaptedState, action: jax.Array) -> tuple[AdaptedState, Timestep]:
        index = jnp.clip(jnp.round(action[0]), 0, 2).astype(jnp.int32)
        _, inner, reward, _, _ = env.step_env(jax.random.key(0), state.inner, index, params)
        after = AdaptedState(inner, state.steps + 1)
        ended = jnp.asarray(inner.terminal, bool)
        late = after.steps >= params.max_steps_in_episode
        return after, Timestep(observe(inner), reward, jnp.float32(0), ended, late)

    return Task(
        name="Breakout-MinAtar",
        model=(),
        reset=reset,
        explore=reset,
        step=step,
        observe=lambda model, state: observe(state.inner),
        obs_size=len(NAMES),
        action_size=1,
        action_low=np.zeros(1, np.float32),
        action_high=np.full(1, 2, np.float32),
        obs_scale=1 / HIGH,
        max_episode_steps=int(params.max_steps_in_episode),
        parameters={},
        host=None,
    )


def start(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws a start: the numbers `[36]` of a reset, and no speeds `[0]`."""
    right = rng.integers(2)
    first = [9 * right, 3, -1 if right else 1, 1, 4, 0]
    return np.array(first + [1] * 30, np.float64), np.zeros(0)
