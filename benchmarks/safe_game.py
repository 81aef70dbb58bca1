# SPDX-License-Identifier: Apache-2.0
"""A drawn reward and cost on a square grid, played alike by every engine of `pls_search`.

Ours is among them; JAX is only imported when it is made, after the cores are pinned.
"""

import time
from typing import NamedTuple

import numpy as np

LENGTHSCALE, NOISE_SD, THRESHOLD = 0.2, 0.1, 1.0

RULES = {
    "stage 1, expander gp": {"expander": "gp"},
    "stage 1, expander none": {"expander": "none"},
    "safe UCB": {"explore_steps": 0, "intersect": False},
    "SafeOpt": {"method": "safeopt", "intersect": False},
}


class Game(NamedTuple):
    """Functions of unit prior variance; the cost's prior mean is the threshold."""

    grid: np.ndarray  # [Z, 2] of the unit square
    truth: np.ndarray  # [2, Z] reward and cost
    noise: np.ndarray  # [T, 2] of each step's observation
    seed: np.ndarray  # [Z] bool, the point of the least cost
    prior_mean: np.ndarray  # [2]
    lengthscale: float = LENGTHSCALE
    noise_sd: float = NOISE_SD
    threshold: float = THRESHOLD

    @property
    def first(self) -> int:
        """Where every search begins."""
        return int(np.argmax(self.seed))

    def observe(self, step: int, point: int) -> np.ndarray:
        """Returns reward and cost `[2]` of the episode at a step."""
        return self.truth[:, point] + self.noise[step]


def draw(number: int, side: int, steps: int) -> Game:
    """Returns game `number`, the same in every process.

    The axes are those of all games and uneven, so that no two points are alike to a rule. On such a
    product grid the kernel is a Kronecker product, and its root that of each axis.
    """
    axes = np.sort(np.random.default_rng(side).uniform(size=(2, side)))
    rng = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    left, right = map(_root, axes)
    prior_mean = np.array([0.0, THRESHOLD])
    draws = left @ rng.normal(size=(2, side, side)) @ right.T
    truth = prior_mean[:, None] + draws.reshape(2, -1)
    noise = NOISE_SD * rng.normal(size=(steps, 2))
    seed = np.arange(len(grid)) == np.argmin(truth[1])
    return Game(grid, truth, noise, seed, prior_mean)


def _root(axis: np.ndarray) -> np.ndarray:
    gram = np.exp(-((axis[:, None] - axis) ** 2) / (2 * LENGTHSCALE**2))
    values, vectors = np.linalg.eigh(gram)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def config_of(rule: str, steps: int):
    """The search of a rule, with room for some observations and the choice after them."""
    from jaxsafe import pls

    room = steps + 1
    length = {"explore_steps": room, "reward_steps": 0}
    if "explore_steps" in RULES[rule]:
        length["reward_steps"] = room
    return pls.SearchConfig(**(length | RULES[rule]))


def problem_of(game: Game, config):
    """What our search is told of a game."""
    from jaxsafe import pls

    return pls.make_problem(
        config,
        game.grid,
        game.seed,
        game.threshold,
        lengthscale=game.lengthscale,
        episode_sd=game.noise_sd,
        floor=game.threshold - 10.0,
    )


class Ours:
    """One search of `jaxsafe.pls` as a loop outside of JAX drives it."""

    def __init__(self, game: Game, config):
        import jax

        from jaxsafe import pls

        self.config, self.pls = config, pls
        state = pls.init(jax.random.key(0), problem_of(game, config), config)
        _, self.state = pls.ask(state, config)

    def temporary_mb(self) -> float | None:
        """What a step allocates beside arguments and results, in 1e6 bytes."""
        from benchmarks import timing

        told = self.pls.Evaluation(np.zeros(1, np.int32), np.zeros((1, 1, 2)))
        step = lambda state: self.pls.advance(state, told, self.config)  # noqa: E731
        return timing.compiled(step, self.state)[1]["temporary_mb"]

    def step(self, point: int, values: np.ndarray) -> int:
        """Takes reward and cost `[2]` observed at a place in the grid; returns the next place."""
        told = self.pls.Evaluation(np.array([point], np.int32), np.asarray(values)[None, None])
        query, self.state, _ = self.pls.advance(self.state, told, self.config)
        return int(query.point[0])


def play(engine, game: Game, steps: int) -> tuple[list[int], np.ndarray]:
    """Runs one search; returns its points and `[T, 2]` wall and CPU seconds of each step."""
    points, seconds = [game.first], []
    for step in range(steps):
        values = game.observe(step, points[-1])
        wall, cpu = time.perf_counter(), time.process_time()
        points.append(engine.step(points[-1], values))
        seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    return points, np.array(seconds)
