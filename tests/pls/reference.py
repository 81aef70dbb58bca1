# SPDX-License-Identifier: Apache-2.0
"""The search in NumPy: dense Gaussian processes in 64 bits, every set built in full by loops.

Slow and plain on purpose: what `jaxsafe.pls` must agree with, step by step.
"""

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


def search(
    grid,
    seed,
    b,
    evaluate,
    *,
    steps,
    explore_steps,
    delta,
    zeta,
    lengthscale,
    cost_mean,
    noise_var,
    floor=0.0,
    expander="gp",
    lipschitz=0.0,
    intersect=True,
    method="pls",
    factors=(1.0,),
):
    """One cost and one reward, unit prior variances; returns picks and safe sets."""
    size = len(grid)
    means = [np.zeros(size), np.full(size, cost_mean)]
    picks, values = [], [[], []]
    lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
    explored, sets = False, []
    for j in range(1, steps + 2):
        alpha = math.sqrt(2 * math.log(size * j**2 * math.pi**2 / (6 * delta)))
        noise = np.full(len(picks), noise_var)

        def model(output, factor, picks=picks, values=values, noise=noise):
            return dense_posterior(
                grid, picks, values[output], noise, means[output], lengthscale * factor, 1.0
            )

        costs = [model(1, factor) for factor in factors]
        low = np.min([m - alpha * s for m, s in costs], axis=0)
        high = np.max([m + alpha * s for m, s in costs], axis=0)
        lower = np.maximum(lower, low) if intersect else low
        upper = np.minimum(upper, high) if intersect else high
        rewards = [model(0, factor) for factor in factors]
        reward_low = np.min([m - alpha * s for m, s in rewards], axis=0)
        reward_high = np.max([m + alpha * s for m, s in rewards], axis=0)
        lo, up = lower.copy(), upper.copy()
        if intersect:
            up[seed] = np.minimum(up[seed], b)
            lo[seed] = np.minimum(np.maximum(lo[seed], floor), up[seed])
        safe = (up <= b) | seed
        sets.append(safe)
        if j > steps:
            return np.array(picks), sets

        def expands(i, safe=safe, lo=lo, up=up, noise=noise, alpha=alpha):
            if expander == "none":
                return True
            if expander == "lipschitz":
                distance = np.sqrt(((grid - grid[i]) ** 2).sum(-1))
                return bool(((lo[i] + lipschitz * distance <= b) & ~safe).any())
            lucky = np.full(size, -np.inf)
            for factor in factors:
                m, s = dense_posterior(
                    grid,
                    [*picks, i],
                    [*values[1], lo[i]],
                    np.append(noise, noise_var),
                    means[1],
                    lengthscale * factor,
                    1.0,
                )
                lucky = np.maximum(lucky, m + alpha * s)
            if intersect:
                lucky = np.minimum(lucky, up)
            return bool(((lucky <= b) & ~safe).any())

        width = up - lo
        expanders = np.array([bool(safe[i]) and expands(i) for i in range(size)])
        if method == "safeopt":
            maximisers = safe & (reward_high >= reward_low[safe].max())
            score = np.maximum(width, reward_high - reward_low)
            pick = int(np.argmax(np.where(maximisers | expanders, score, -np.inf)))
        else:
            wide = expanders & (width > zeta)
            if not explored and j <= explore_steps and wide.any():
                pick = int(np.argmax(np.where(wide, width, -np.inf)))
            else:
                explored = True
                pick = int(np.argmax(np.where(safe, reward_high, -np.inf)))
        reward, cost = evaluate(j - 1, pick)
        picks.append(pick)
        values[0].append(reward)
        values[1].append(cost)
    raise AssertionError("unreachable")
