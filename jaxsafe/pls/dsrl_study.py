# SPDX-License-Identifier: Apache-2.0
"""DSRL's tasks for those who hold the files: what to run, what is there, and what a search is told.

The paper says neither the grid of targets nor the units and mean of its Gaussian processes, so
these are ours; its numbers of episodes are its own. Of its seed sets three targets are taken: each
is checked by many episodes before a search trusts it.
"""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from jaxsafe.core.checks import UserError, check_once, check_range
from jaxsafe.core.config import field, to_text
from jaxsafe.data import dsrl, filters, trajectories
from jaxsafe.pls import outside, windows, worlds
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.dsrl_published import SEED_COST, SETTINGS
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Sizes, Windows
from jaxsafe.pls.types import Problem

METHODS = ("naive", "pls")
_FOLDER_VARIABLE = "DSRL_DATASET_DIR"  # DSRL's own
_FOLDER = "~/.dsrl/datasets"


@dataclasses.dataclass(frozen=True)
class Belief:
    """What the model believes of every task; returns are in units of DSRL's greatest.

    Between what was fitted in our own worlds (`worlds.PRIORS`): nothing of DSRL's tasks is in it.
    The paper's numbers, of unknown units and mean, keep no promise (`worlds.literal_problem`).
    """

    cost_lengthscale: tuple[float, float] = field(
        (0.2, 20.0), "Of the cost along R and along G, G in units of cost.", low=1e-6
    )
    reward_lengthscale: tuple[float, float] = field(
        (0.3, 30.0), "Of the return along R and along G.", low=1e-6
    )
    cost_sd: float = field(20.0, "Prior deviation of the cost return.", low=1e-6)
    reward_sd: float = field(0.25, "Prior deviation of the return.", low=1e-6)
    episode_cost_sd: float = field(10.0, "Of one episode's cost return.", low=1e-6)
    episode_reward_sd: float = field(0.1, "Of one episode's return.", low=1e-6)


@dataclasses.dataclass(frozen=True)
class Preparation:
    """DSRL's filters of episodes (`data.filters`); by default none."""

    thin: bool = field(False, "Thin out crowded cells of the cost-return plane (density).")
    outliers: float | None = field(
        None, "Share of episodes to relabel as safe and good.", low=0.0, high=1.0
    )
    inpaint: tuple[float, ...] = field(
        (), "Boxes to cut out, four shares each: cost from, to, return from, to.", low=0.0, high=1.0
    )
    epsilon: float = field(0.0, "Above 0 hides the best safe episodes, below 0 the best risky.")
    noise: float = field(0.0, "Of the noise on observations, by their deviation.", low=0.0)
    threshold: float | None = field(None, "b of outliers and epsilon.", low=0.0)
    seed: int = field(0, "Of what is drawn.", low=0)


@dataclasses.dataclass(frozen=True)
class Dsrl:
    """The paper's nine tasks, for which files and environments are the user's."""

    tasks: tuple[str, ...] = field(
        (), "DSRL's tasks to learn and to search in, instead.", choices=dsrl.PLS_TASKS
    )
    folder: str | None = field(
        None,
        f"Where DSRL's HDF5 files are; none: ${_FOLDER_VARIABLE}, or {_FOLDER}, as DSRL has it.",
    )
    environment: str | None = field(
        None,
        "module:function, which makes a Gymnasium environment of a task's name, or None, with the "
        "step's cost in info['cost']; none: gymnasium.make of the task's id.",
    )
    thresholds: tuple[float, ...] = field((20.0, 40.0), "Cost returns b.", low=0.0)
    methods: tuple[str, ...] = field(
        METHODS,
        "naive: asks for DSRL's greatest return at G = b, which nothing shows to be safe; pls: the "
        "search.",
        choices=METHODS,
    )
    num_envs: int = field(20, "Environments stepped together.", low=1)
    final_episodes: int = field(20, "Episodes by which a chosen target is scored.", low=1)
    side: int = field(41, "Grid points along R and along G, without those of the seed set.", low=3)
    cost_reach: float = field(2.0, "Greatest G, by the greatest threshold.", low=1.0)
    seed_returns: tuple[float, float] | None = field(
        None, "Least and greatest R of the seed set, in raw units; none: the paper's of each task."
    )
    seed_cost: float = field(
        0.0,
        f"Greatest G of the seed set, each target of which takes targets.seed_episodes to be "
        f"checked; the paper's is {SEED_COST:g}.",
        low=0.0,
    )
    augmentation: bool = field(
        True, "Take policy.augment_degree and augment_decrease from OSRL's config of each task."
    )
    belief: Belief = Belief()
    filters: Preparation = Preparation()


def validate(config: Dsrl) -> None:
    """Raises `UserError` naming field, value and fix; the files are looked for by `files`."""
    for name in ("tasks", "thresholds", "methods"):
        check_once(f"dsrl.{name}", getattr(config, name))
    if min(config.thresholds) <= 0:
        raise UserError("dsrl.thresholds holds 0: give costs above it.")
    shares = len(config.filters.inpaint)
    if shares % 4:
        raise UserError(f"dsrl.filters.inpaint has {shares} values: give four for each box.")
    _validate_filters(config.filters)
    if config.seed_returns is not None and config.seed_returns[0] > config.seed_returns[1]:
        raise UserError(f"dsrl.seed_returns={config.seed_returns} falls: give the least first.")
    reach = config.cost_reach * max(config.thresholds)
    check_range("dsrl.seed_cost", config.seed_cost, 0.0, reach)
    if config.environment is not None:
        outside.parts(config.environment)


def _validate_filters(how: Preparation) -> None:
    """As `filters.preprocess`, which sees them only once there is a file."""
    if how.outliers is None and not how.epsilon:
        return
    if how.threshold is None:
        raise UserError(
            f"dsrl.filters.threshold=none: outliers={to_text(how.outliers)} and "
            f"epsilon={how.epsilon:g} need a cost threshold; set it."
        )
    if how.outliers is not None:
        check_range("dsrl.filters.threshold", how.threshold, low=1)


def files(config: Dsrl) -> dict[str, pathlib.Path]:
    """Returns the files that are there, by task.

    Raises:
      UserError: none is.
    """
    given = config.folder or os.environ.get(_FOLDER_VARIABLE) or _FOLDER
    folder = pathlib.Path(given).expanduser()
    paths = {task: folder / dsrl.file_name(task) for task in config.tasks}
    found = {task: path for task, path in paths.items() if path.is_file()}
    if not found:
        what = "has none of" if folder.is_dir() else "is no folder; it should hold"
        names = ", ".join(path.name for path in paths.values())
        raise UserError(
            f"dsrl.folder={folder} {what} {names}: fetch them by the Python package dsrl, or from "
            "the data set page that the README of its repository liuzuxin/DSRL links, and set "
            "dsrl.folder."
        )
    return found


def policy_config(task: str, policy: PolicyConfig, config: Dsrl) -> PolicyConfig:
    """Returns the policy's config with what OSRL sets for this task."""
    if not config.augmentation:
        return policy
    own = SETTINGS[task]
    return dataclasses.replace(policy, augment_degree=own.degree, augment_decrease=own.decrease)


@functools.lru_cache(maxsize=len(dsrl.PLS_TASKS))
def load(task: str, path: pathlib.Path, how: Preparation, policy: PolicyConfig) -> Windows:
    """Reads and filters a task's file, once for equal arguments; what it holds, on the device.

    Raises:
      UserError: the file is damaged, or a filter leaves nothing of it.
    """
    boxes = tuple(zip(*(how.inpaint[i::4] for i in range(4)), strict=True))
    chosen = filters.Filters(
        thin=how.thin,
        outliers=how.outliers,
        inpaint=boxes,
        epsilon=how.epsilon,
        noise=how.noise,
        threshold=how.threshold,
    )
    rng = np.random.default_rng(how.seed)
    data = trajectories.load(path).trajectories
    return windows.make(filters.preprocess(rng, data, dsrl.reference(task), chosen), policy)


def open_task(task: str, sizes: Sizes, config: Dsrl, count: int) -> outside.Outside | None:
    """Opens environments of a task whose data have these sizes; None where there are none."""
    steps = dsrl.reference(task).episode_length
    make = outside.maker(config.environment)
    return outside.open_all(make, task, count, sizes.obs, sizes.action, steps)


def runnable(config: Dsrl, policy: PolicyConfig) -> dict[str, Windows]:
    """Reads every file that is there, and takes a look at its environment.

    Returns:
      what to learn from, by task; without those tasks that lack a file or an environment.

    Raises:
      UserError: no task has both, or one of them is unsound.
    """
    found = files(config)
    data: dict[str, Windows] = {}
    for task, path in found.items():
        own = load(task, path, config.filters, policy_config(task, policy, config))
        one = open_task(task, own.sizes, config, 1)
        if one is not None:
            outside.check(one)
            outside.close_all(one)
            data[task] = own
    if not data:
        raise UserError(
            f"dsrl.environment={config.environment or 'none'} makes none of {', '.join(found)}: "
            "install bullet_safety_gym and safety_gymnasium, or name a function of your own."
        )
    return data


def lacking(task: str, config: Dsrl) -> str:
    """Says what a task lacks that is not among the `runnable`."""
    if task in files(config):
        return f"no environment {dsrl.environment_id(task)}"
    return f"no file {dsrl.file_name(task)}"


def grid(task: str, config: Dsrl) -> tuple[np.ndarray, np.ndarray]:
    """Returns the targets `[Z, 2]`, R before G, G varying fastest, and the seed set `[Z]`.

    R is evenly spaced over DSRL's range, with the seed set's ends and middle between; G from 0 on.
    Of R, the seed set has those three.
    """
    known = dsrl.reference(task)
    low, high = config.seed_returns or SETTINGS[task].seed_returns
    r = np.linspace(known.reward_min, known.reward_max, config.side)
    seeds = np.linspace(low, high, 3)
    r = np.union1d(r, seeds)
    g = np.linspace(0.0, config.cost_reach * max(config.thresholds), config.side)
    z = np.stack(np.meshgrid(r, g, indexing="ij"), -1).reshape(-1, 2)
    seed = np.isin(z[:, 0], seeds) & (z[:, 1] <= config.seed_cost)
    return z, seed


def problem(task: str, config: Dsrl, search: SearchConfig, threshold: float) -> Problem:
    """Returns what a search is told, in raw units, as `worlds.believed`."""
    z, seed = grid(task, config)
    prior = worlds.Prior(**dataclasses.asdict(config.belief))
    greatest = dsrl.reference(task).reward_max
    return worlds.believed(prior, greatest, search, z, seed, threshold)
