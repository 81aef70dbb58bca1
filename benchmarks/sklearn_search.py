# SPDX-License-Identifier: Apache-2.0
"""Safe UCB by scikit-learn's Gaussian process regression, for timing beside ours; in 64 bits."""

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from benchmarks.safe_game import Game


class SafeUCB:
    """One search with two regressors, hyperparameters fixed; both are fitted anew at each step."""

    def __init__(self, game: Game, alphas: np.ndarray):
        self.game, self.alphas = game, alphas
        self.models = [
            GaussianProcessRegressor(RBF(game.lengthscale), alpha=game.noise_sd**2, optimizer=None)
            for _ in range(2)
        ]
        self.points: list[int] = []
        self.values: list[np.ndarray] = []

    def step(self, point: int, values: np.ndarray) -> int:
        """Takes reward and cost `[2]` observed at a place in the grid; returns the next place."""
        self.points.append(point)
        self.values.append(np.asarray(values, float))
        alpha, game = self.alphas[len(self.points)], self.game
        residuals = np.stack(self.values) - game.prior_mean
        upper = []
        for output, model in enumerate(self.models):
            model.fit(game.grid[self.points], residuals[:, output])
            mean, sd = model.predict(game.grid, return_std=True)
            upper.append(game.prior_mean[output] + mean + alpha * sd)
        safe = (upper[1] <= game.threshold) | game.seed
        return int(np.argmax(np.where(safe, upper[0], -np.inf)))
