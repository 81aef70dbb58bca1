# SPDX-License-Identifier: Apache-2.0
"""Small worlds for the search's tests: a reward and a cost on scattered points."""

import jax.numpy as jnp
import numpy as np

from jaxsafe import pls

LENGTHSCALE = 0.3


def scattered(size=200, seed=0):
    """Points of the unit square, nowhere symmetric, so that no two scores tie."""
    return np.random.default_rng(seed).uniform(size=(size, 2))


def smooth(grid, seed=0, num=2):
    """`[num, Z]` draws of a process with the worlds' lengthscale and unit variance."""
    squares = (((grid[:, None] - grid[None]) / LENGTHSCALE) ** 2).sum(-1)
    factor = np.linalg.cholesky(np.exp(-squares / 2) + 1e-9 * np.eye(len(grid)))
    return (factor @ np.random.default_rng(seed).normal(size=(len(grid), num))).T


class World:
    """Reward and cost (prior mean 1, threshold 1), with noise that is the same in every engine."""

    def __init__(self, size=200, seed=0, noise_sd=0.1, steps=40):
        self.grid = scattered(size, seed)
        reward, cost = smooth(self.grid, seed + 1)
        self.truth = np.stack([reward, 1.0 + cost])
        self.noise = noise_sd * np.random.default_rng(seed + 2).normal(size=(steps, 2))
        self.noise_sd = noise_sd
        # The seed: the point of the least cost, so that there is something to find.
        self.seed = np.zeros(size, bool)
        self.seed[np.argmin(self.truth[1])] = True

    def problem(self, config, **changes):
        arguments = {
            "thresholds": 1.0,
            "lengthscale": LENGTHSCALE,
            "episode_sd": self.noise_sd,
            "floor": -10.0,
        }
        return pls.make_problem(config, self.grid, self.seed, **(arguments | changes))

    def returns(self, step, point):
        """One episode, reward and cost, at steps and points of one shape."""
        return self.truth[:, point].T + self.noise[step]

    def evaluate(self):
        """The same, for `run_search`: the step is counted by the keys' order, so by a table."""
        truth = jnp.asarray(self.truth, float)

        def run(key, point, z):
            del key, z
            return truth[:, point].T[:, None, :]

        return run
