# SPDX-License-Identifier: Apache-2.0
"""A drawn reward and cost on a square grid, played alike by every engine of `pls_search`."""

from typing import NamedTuple

import numpy as np

LENGTHSCALE, NOISE_SD, THRESHOLD = 0.2, 0.1, 1.0


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
