# SPDX-License-Identifier: Apache-2.0
"""Tasks with a cost, their offline data, and what a safe search over targets is told there."""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.data import generate, trajectories
from jaxsafe.envs import safety_tasks
from jaxsafe.envs.types import Task
from jaxsafe.pls import windows
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Windows
from jaxsafe.pls.problem import make_problem
from jaxsafe.pls.types import Problem


@dataclasses.dataclass(frozen=True)
class Data:
    """Where offline trajectories come from."""

    trajectories: int = field(1000, "Episodes to make, by scripted behaviours.", low=2)
    seed: int = field(0, "Of their starts, behaviours and noise.", low=0)
    folder: str | None = field(
        None, "HDF5 files of DSRL's format, TASK.hdf5; one that is absent is made. none: no files."
    )


@dataclasses.dataclass(frozen=True)
class Targets:
    """The grid of targets z = (R, G), evenly spaced, and the seed set in it.

    R reaches from 0 to the data's greatest return and G from 0 to a multiple of the greatest
    threshold. Returns follow R closely, so a step of R is a step of what is deployed: at a low
    threshold one of 49 would be a twentieth of the best safe return and half a unit of cost.
    """

    side: int = field(97, "Points along R.", low=3)
    cost_side: int = field(16, "Points along G.", low=3)
    cost_reach: float = field(1.25, "Greatest G, by the greatest threshold.", low=1.0)
    seed_low: float = field(0.1, "Least R of the seed set, by the greatest.", low=0.0, high=1.0)
    seed_high: float = field(0.3, "Greatest R of the seed set; its G is 0.", low=0.0, high=1.0)
    seed_episodes: int = field(
        1000, "Episodes at each of its points, by which it is checked for every threshold.", low=2
    )
    seed_delta: float = field(
        0.01, "Probability that the check lets an unsafe point pass.", low=1e-9, high=0.5
    )


class Prior(NamedTuple):
    """What the model believes of one task; returns are in units of the data's greatest."""

    cost_lengthscale: tuple[float, float]  # along R, and along G in units of cost, at b = 10
    reward_lengthscale: tuple[float, float]
    cost_sd: float  # units of cost
    reward_sd: float
    episode_cost_sd: float  # of one episode's cost return
    episode_reward_sd: float
    cost_growth: float = 0.0  # power of b that the cost's lengthscale grows with

    def cost_lengthscale_at(self, threshold: float) -> tuple[float, float]:
        """The cost's lengthscale for a search at this threshold.

        A search has to know how costs bend near b: those that leave 0 bend more than higher ones.
        """
        factor = (threshold / 10.0) ** self.cost_growth
        return factor * self.cost_lengthscale[0], factor * self.cost_lengthscale[1]


# From fits (`gp.fit`) to the values of targets of policies of seeds 100 to 107, changed by hand
# until searches there were safe; no result uses those policies. Deviations are no smaller than what
# takes a cost of 0 at the greatest threshold for likely. Run has a cliff: asked to run a little
# faster than its limit, a policy does so at every step. A fit to what a search itself observes
# would make its bounds depend on the noise that they should cover.
PRIORS = {
    "Circle-v0": Prior((0.2, 15.0), (0.3, 21.0), 13.0, 0.23, 4.0, 0.04),
    "Run-v0": Prior((0.09, 15.0), (0.12, 15.0), 16.0, 0.12, 1.5, 0.01),
    "Hazard-v0": Prior((0.3, 26.0), (0.63, 45.0), 10.5, 0.38, 7.0, 0.15, cost_growth=0.4),
}
WORLDS = tuple(PRIORS)


class World(NamedTuple):
    """One task, ready to learn and to search in."""

    task: Task
    windows: Windows
    greatest: float  # return of the data
    prior: Prior


@functools.lru_cache(maxsize=8)
def make(name: str, data: Data, policy: PolicyConfig) -> World:
    """Builds a task and its offline data, once for equal arguments.

    Raises:
      UserError: the file of the data is damaged or of another task, or its folder is absent.
    """
    task = safety_tasks.make(name)
    episodes = _episodes(task, data)
    greatest = float(trajectories.totals(episodes)[0].max())
    return World(task, windows.make(episodes, policy), greatest, PRIORS[name])


def _episodes(task: Task, data: Data) -> trajectories.Trajectories:
    if data.folder is None:
        return generate.generate(task, data.trajectories, data.seed).trajectories
    path = pathlib.Path(data.folder) / f"{task.name}.hdf5"
    if not path.exists():
        return generate.write(path, task, data.trajectories, data.seed).trajectories
    episodes = trajectories.load(path).trajectories
    widths = episodes.observations.shape[1], episodes.actions.shape[1]
    if widths != (task.obs_size, task.action_size):
        raise UserError(
            f"{path} has {widths[0]} observations and {widths[1]} actions, and {task.name} has "
            f"{task.obs_size} and {task.action_size}: it is of another task."
        )
    return episodes


def grid(world: World, targets: Targets, thresholds: tuple[float, ...]) -> np.ndarray:
    """Returns the targets `[Z, 2]`, R before G, G varying fastest."""
    r = np.linspace(0.0, world.greatest, targets.side)
    g = np.linspace(0.0, targets.cost_reach * max(thresholds), targets.cost_side)
    return np.stack(np.meshgrid(r, g, indexing="ij"), -1).reshape(-1, 2)


def seed_set(grid: np.ndarray, targets: Targets) -> np.ndarray:
    """Returns the mask `[Z]` of the targets that ask for little return at no cost."""
    share = grid[:, 0] / grid[:, 0].max()
    return (
        (grid[:, 1] == 0) & (share >= targets.seed_low - 1e-9) & (share <= targets.seed_high + 1e-9)
    )


def problem(
    world: World,
    config: SearchConfig,
    grid: np.ndarray,
    seed: np.ndarray,
    threshold: float,
) -> Problem:
    """Returns what a search in a world is told."""
    return believed(world.prior, world.greatest, config, grid, seed, threshold)


def believed(
    prior: Prior,
    greatest: float,
    config: SearchConfig,
    grid: np.ndarray,
    seed: np.ndarray,
    threshold: float,
) -> Problem:
    """Returns what a search is told that believes in `prior`: the cost's mean is the threshold.

    Costs have no floor in it, so that but for the shift, and for the lengthscale where it grows, it
    is the same for every threshold.

    Args:
      prior: the model, its returns in units of `greatest`.
      greatest: return, raw units.
      config: of the search.
      grid: `[Z, 2]` targets, raw units.
      seed: `[Z]` bool.
      threshold: b.
    """
    unit = np.array([greatest, 1.0])
    return make_problem(
        config,
        grid,
        seed,
        threshold,
        lengthscale=np.stack(
            [prior.reward_lengthscale * unit, prior.cost_lengthscale_at(threshold) * unit]
        ),
        cost_sd=prior.cost_sd,
        reward_sd=prior.reward_sd * greatest,
        reward_mean=0.5 * greatest,
        episode_sd=np.array([prior.episode_reward_sd * greatest, prior.episode_cost_sd]),
        floor=threshold - 10 * prior.cost_sd,
    )


def literal_problem(
    config: SearchConfig, grid: np.ndarray, seed: np.ndarray, threshold: float
) -> Problem:
    """Returns the paper's own numbers in raw units (appendix K.2): mean 0, deviation 1.

    Its lengthscales are 50 for the reward and 5 for the cost.
    """
    return make_problem(
        config,
        grid,
        seed,
        threshold,
        lengthscale=np.array([[50.0, 50.0], [5.0, 5.0]]),
        cost_mean=0.0,
        episode_sd=1.0,
        floor=0.0,
    )
