# SPDX-License-Identifier: Apache-2.0
"""The search in NumPy: dense Gaussian processes in 64 bits, every set built in full by loops.

Slow and plain on purpose: what `jaxsafe.pls` must agree with, step by step.
"""

import dataclasses
import math

import numpy as np


def rbf(a, b, lengthscale, variance):
    squares = (((a[:, None] - b[None]) / lengthscale) ** 2).sum(-1)
    return variance * np.exp(-squares / 2)


def dense_posterior(grid, picks, values, noise, mean, lengthscale, variance):
    """Mean and deviation on the grid after `values` at `picks`."""
    if not len(picks):
        return mean.copy(), np.full(len(grid), math.sqrt(variance))
    x = grid[picks]
    gram = rbf(x, x, lengthscale, variance) + np.diag(noise)
    cross = rbf(x, grid, lengthscale, variance)
    weights = np.linalg.solve(gram, cross)
    var = variance - (cross * weights).sum(0)
    return mean + weights.T @ (np.asarray(values) - mean[picks]), np.sqrt(np.maximum(var, 0))


@dataclasses.dataclass(frozen=True)
class Model:
    """One cost and one reward, unit prior variances; `seed` is the mask of points known as safe."""

    grid: np.ndarray
    seed: np.ndarray
    b: float
    delta: float
    lengthscale: float
    cost_mean: float
    noise_var: float
    floor: float = 0.0
    expander: str = "gp"
    lipschitz: float = 0.0
    intersect: bool = True
    factors: tuple = (1.0,)

    def bounds(self, alpha, picks, values, mean):
        """Least lower and greatest upper bound over the lengthscales, on the grid."""
        each = [
            dense_posterior(
                *(self.grid, picks, values, np.full(len(picks), self.noise_var)),
                *(np.full(len(self.grid), mean), self.lengthscale * factor, 1.0),
            )
            for factor in self.factors
        ]
        low = np.min([m - alpha * s for m, s in each], axis=0)
        return low, np.max([m + alpha * s for m, s in each], axis=0)

    def seeded(self, lower, upper):
        """Costs' bounds where the seed's safety is known, and the safe set."""
        lo, up, seed = lower.copy(), upper.copy(), self.seed
        if self.intersect:
            up[seed] = np.minimum(up[seed], self.b)
            lo[seed] = np.minimum(np.maximum(lo[seed], self.floor), up[seed])
        return lo, up, (up <= self.b) | seed

    def expands(self, i, alpha, picks, costs, lo, up, safe):
        """Whether an optimistic cost at point i would make another point safe."""
        if self.expander == "none":
            return True
        if self.expander == "lipschitz":
            distance = np.sqrt(((self.grid - self.grid[i]) ** 2).sum(-1))
            return bool(((lo[i] + self.lipschitz * distance <= self.b) & ~safe).any())
        _, lucky = self.bounds(alpha, [*picks, i], [*costs, lo[i]], self.cost_mean)
        if self.intersect:
            lucky = np.minimum(lucky, up)
        return bool(((lucky <= self.b) & ~safe).any())


def search(grid, seed, b, evaluate, *, steps, explore_steps, zeta, method="pls", **model):
    """Picks and safe sets; `model` are `Model`'s further fields."""
    model = Model(grid, seed, b, **model)
    picks, rewards, costs, sets = [], [], [], []
    lower, upper = np.full(len(grid), -np.inf), np.full(len(grid), np.inf)
    explored = False
    for j in range(1, steps + 2):
        alpha = math.sqrt(2 * math.log(len(grid) * j**2 * math.pi**2 / (6 * model.delta)))
        low, high = model.bounds(alpha, picks, costs, model.cost_mean)
        lower = np.maximum(lower, low) if model.intersect else low
        upper = np.minimum(upper, high) if model.intersect else high
        lo, up, safe = model.seeded(lower, upper)
        sets.append(safe)
        if j > steps:
            break
        reward_low, reward_high = model.bounds(alpha, picks, rewards, 0.0)
        known = (alpha, picks, costs, lo, up, safe)
        expanders = np.array([bool(safe[i]) and model.expands(i, *known) for i in range(len(grid))])
        if method == "safeopt":
            maximisers = safe & (reward_high >= reward_low[safe].max())
            score = np.maximum(up - lo, reward_high - reward_low)
            pick = int(np.argmax(np.where(maximisers | expanders, score, -np.inf)))
        else:
            wide = expanders & (up - lo > zeta)
            explored = explored or j > explore_steps or not wide.any()
            wanted, score = (safe, reward_high) if explored else (wide, up - lo)
            pick = int(np.argmax(np.where(wanted, score, -np.inf)))
        reward, cost = evaluate(j - 1, pick)
        picks.append(pick)
        rewards.append(reward)
        costs.append(cost)
    return np.array(picks), sets
