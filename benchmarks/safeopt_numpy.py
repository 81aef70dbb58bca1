# SPDX-License-Identifier: Apache-2.0
"""SafeOpt's rule in NumPy and SciPy, for timing beside ours.

What befelix/SafeOpt (commit 06f4579) computes at a step without a Lipschitz constant, written anew:
both posteriors by a dense Cholesky factor of all data, maximisers, and expanders tried by a fake
observation from the widest down, of those alone that are wider than the widest maximiser. Theirs
runs on GPy, which does the same algebra with more around it.
"""

import numpy as np
from scipy import linalg

from benchmarks.safe_game import Game


def _rbf(a: np.ndarray, b: np.ndarray, lengthscale: float) -> np.ndarray:
    squares = sum((a[:, None, d] - b[None, :, d]) ** 2 for d in range(a.shape[1]))
    return np.exp(squares / (-2 * lengthscale**2))


class SafeOpt:
    """One search: `step` takes an observation and returns the next point. In 64 bits."""

    def __init__(self, game: Game, alphas: np.ndarray):
        self.game, self.alphas = game, alphas
        self.points: list[int] = []
        self.values: list[np.ndarray] = []

    def _posterior(self, output: int, points, values, at) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation at grid points `at` by a new factor of all data."""
        game = self.game
        x, mean = game.grid[points], game.prior_mean[output]
        gram = _rbf(x, x, game.lengthscale)
        gram[np.diag_indices(len(x))] += game.noise_sd**2
        factor = linalg.cholesky(gram, lower=True)
        cross = _rbf(x, game.grid[at], game.lengthscale)
        both = np.column_stack([cross, np.asarray(values) - mean])
        solved = linalg.solve_triangular(factor, both, lower=True)
        rows, weights = solved[:, :-1], solved[:, -1]
        sd = np.sqrt(np.maximum(1.0 - (rows**2).sum(0), 0.0))
        return mean + weights @ rows, sd

    def _expands(self, point: int, lowest: float, unsafe: np.ndarray, alpha: float) -> bool:
        """Whether the lowest cost at a point would make another point safe."""
        values = [v[1] for v in self.values]
        mean, sd = self._posterior(1, [*self.points, point], [*values, lowest], unsafe)
        return bool((mean + alpha * sd <= self.game.threshold).any())

    def step(self, point: int, values: np.ndarray) -> int:
        """Takes reward and cost `[2]` observed at a place in the grid; returns the next place."""
        self.points.append(point)
        self.values.append(np.asarray(values, float))
        alpha = self.alphas[len(self.points)]
        observed = np.stack(self.values, 1)
        spread = [self._posterior(o, self.points, observed[o], slice(None)) for o in (0, 1)]
        low = np.stack([mean - alpha * sd for mean, sd in spread])
        high = np.stack([mean + alpha * sd for mean, sd in spread])
        safe = (high[1] <= self.game.threshold) | self.game.seed
        width = (high - low).max(0)
        maximiser = safe & (high[0] >= low[0][safe].max())
        widest = (high[0] - low[0])[maximiser].max()
        tried = np.flatnonzero(safe & ~maximiser & (width > widest))
        chosen, unsafe = maximiser.copy(), np.flatnonzero(~safe)
        for index in tried[np.argsort(-width[tried], kind="stable")] if len(unsafe) else ():
            if self._expands(int(index), low[1, index], unsafe, alpha):
                chosen[index] = True
                break
        return int(np.argmax(np.where(chosen, width, -np.inf)))
