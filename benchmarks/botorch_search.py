# SPDX-License-Identifier: Apache-2.0
"""Safe UCB by BoTorch's exact models, for timing beside ours; in 64 bits, as it recommends."""

import warnings
from collections.abc import Collection

import numpy as np
import torch
from botorch.exceptions import BotorchWarning
from botorch.models import SingleTaskGP
from gpytorch.kernels import RBFKernel, ScaleKernel
from gpytorch.means import ZeroMean

from benchmarks.safe_game import Game

HOW = ("rebuild", "condition", "rebuild, points apart", "condition, points apart")


class SafeUCB:
    """One search with two `SingleTaskGP`, hyperparameters fixed.

    `rebuild` makes both models anew from all data at each step, `condition` extends them by
    `condition_on_observations`. Their posterior is asked of the grid `[Z, D]` at once, or, `points
    apart`, of `[Z, 1, D]`: the form of acquisition functions, without the covariances of the points
    with each other. With `timed`, the grid is asked at once only when that many observations are
    in, and points apart else: the choices are the same, and a search takes a tenth of the time.
    """

    def __init__(
        self,
        game: Game,
        alphas: np.ndarray,
        how: str,
        threads: int,
        timed: Collection[int] | None = None,
    ):
        torch.set_num_threads(threads)
        # It warns of data that are not standardised; the prior is known here.
        warnings.simplefilter("ignore", BotorchWarning)
        self.game, self.alphas, self.how = game, alphas, how
        self.grid = torch.as_tensor(game.grid)
        self.timed = () if how.endswith("apart") else timed
        self.seed = torch.as_tensor(game.seed)
        self.points: list[int] = []
        self.values: list[np.ndarray] = []
        self.models: list[SingleTaskGP] = []

    def _model(self, x: torch.Tensor, y: torch.Tensor) -> SingleTaskGP:
        kernel = ScaleKernel(RBFKernel()).double()
        kernel.base_kernel.lengthscale = self.game.lengthscale
        kernel.outputscale = 1.0
        noise = torch.full_like(y, self.game.noise_sd**2)
        plain = {"outcome_transform": None, "input_transform": None}
        model = SingleTaskGP(x, y, noise, covar_module=kernel, mean_module=ZeroMean(), **plain)
        return model.eval()

    def _learn(self) -> None:
        values = torch.as_tensor(np.stack(self.values) - self.game.prior_mean)
        if self.models and self.how.startswith("condition"):
            x, y = self.grid[self.points[-1:]], values[-1:, :, None]
            noise = torch.full_like(y[:, 0], self.game.noise_sd**2)
            self.models = [
                model.condition_on_observations(x, y[:, o], noise=noise)
                for o, model in enumerate(self.models)
            ]
        else:
            x = self.grid[self.points]
            self.models = [self._model(x, values[:, o : o + 1]) for o in (0, 1)]

    @torch.no_grad()
    def step(self, point: int, values: np.ndarray) -> int:
        """Takes reward and cost `[2]` observed at a place in the grid; returns the next place."""
        self.points.append(point)
        self.values.append(np.asarray(values, float))
        self._learn()
        alpha = float(self.alphas[len(self.points)])
        at_once = self.timed is None or len(self.points) in self.timed
        asked = self.grid if at_once else self.grid[:, None]
        upper = []
        for model, prior_mean in zip(self.models, self.game.prior_mean, strict=True):
            posterior = model.posterior(asked)
            mean, sd = posterior.mean.flatten(), posterior.variance.flatten().sqrt()
            upper.append(prior_mean + mean + alpha * sd)
        safe = (upper[1] <= self.game.threshold) | self.seed
        return int(torch.where(safe, upper[0], -torch.inf).argmax())
