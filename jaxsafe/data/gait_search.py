# SPDX-License-Identifier: Apache-2.0
"""Finds the walkers of `gaits` by Augmented Random Search in MuJoCo C, on one core in minutes.

python -m jaxsafe.data.gait_search --task=SafetyHopperVelocity-v1 --out=Hopper.json

The method is V2-t of Mania et al. (2018, arXiv 1803.07055): linear policies of normalised
observations, the best of the random directions, steps over the standard deviation of their returns.
Here the policy also sees a clock, whose frequency is searched for as well, and the reward is for
a forward speed near a target: a slow one, below the task's limit, and a fast one above it, the
second search from where the first one ended. As no step pays more than the target, a leap and a
fall are no match for a walk.
"""

import dataclasses
import json
import pathlib
from typing import NamedTuple

import mujoco
import numpy as np
from absl import flags

from jaxsafe.core import config as config_lib
from jaxsafe.core import flags as flags_lib
from jaxsafe.core.checks import check_choice
from jaxsafe.core.config import field
from jaxsafe.data import gaits
from jaxsafe.data.gait_settings import SEARCHES, Search
from jaxsafe.data.gaits import features
from jaxsafe.envs import safety_tasks
from jaxsafe.envs.host import initial_states
from jaxsafe.envs.host_steps import StepPool, begin, make_pool, step_batch_derived
from jaxsafe.envs.types import Task

PACES = ("slow", "fast")


class Statistics(NamedTuple):
    """Running sums over the observations seen: their number, `[O]` and `[O]` of squares."""

    number: float
    total: np.ndarray
    squares: np.ndarray

    def add(self, obs: np.ndarray) -> "Statistics":
        """With the rows of `obs` [P, O] as well."""
        sums = obs.sum(0), (obs**2).sum(0)
        return Statistics(self.number + len(obs), self.total + sums[0], self.squares + sums[1])

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, `[O]` each."""
        mean = self.total / self.number
        return mean, np.sqrt(np.maximum(self.squares / self.number - mean**2, 1e-4))


def full(search: Search, free: np.ndarray) -> np.ndarray:
    """Weights `[P, A, O + 3]` of the free ones: all, or those of the first half of the actions."""
    mirror = search.mirror
    if mirror is None:
        return free
    size = len(mirror.swap)
    sign, turn = np.ones(size), np.ones((len(mirror.half), 1))
    sign[list(mirror.flip)] = turn[list(mirror.turned)] = -1
    # A mirrored observation is `sign` times the swapped one, and both are their own inverses.
    later = [1, 1, 1] if mirror.together else [-1, -1, 1]
    seen, clock = (free * turn)[..., mirror.swap] * sign, free[..., size:] * turn * later
    weights = np.empty((*free.shape[:-2], 2 * len(mirror.half), size + 3))
    weights[..., mirror.half, :] = free
    weights[..., mirror.rest, :] = np.concatenate([seen, clock], -1)
    return weights


class Scores(NamedTuple):
    """Of P episodes: returns `[P]`, and speeds `[P]` in m/s, where a fall is to stand still."""

    returns: np.ndarray
    speeds: np.ndarray


def episodes(
    task: Task,
    pool: StepPool,
    search: Search,
    theta: np.ndarray,
    stage: int,
    seed: int,
    sums: Statistics,
) -> tuple[Scores, Statistics]:
    """Runs P policies for one episode each in MuJoCo C.

    Args:
      task: the world.
      pool: of one thread.
      search: the robot's.
      theta: `[P, D]`: the free weights, and the logarithm of the factor on the frequency.
      stage: 0 for the slow target, 1 for the fast one.
      seed: of the starts; policies i and i + P / 2 start alike.
      sums: of the observations so far; they normalise here.

    Returns:
      The scores, and sums with the observations of these episodes.
    """
    spec, model = task.host
    number, horizon = len(theta), search.horizon[stage]
    seconds = spec.frame_skip * model.opt.timestep
    weights = full(search, theta[:, :-1].reshape(number, -1, task.obs_size + 3))
    turns = search.frequency * np.exp(theta[:, -1]) * seconds
    mean, std = sums.moments()
    half = initial_states(task, -(-number // 2), seed)
    qpos, qvel = (np.concatenate([x, x])[:number] for x in half)
    derived = begin(spec, [model] * number, qpos, qvel)
    alive, returns, ways = np.arange(number), np.zeros(number), np.zeros(number)
    for t in range(horizon):
        obs = spec.observe(np, qpos, qvel, derived)
        sums = sums.add(obs)
        seen = features(np, (obs - mean) / std, turns[alive] * t)
        seen[:, -3:] *= search.clock
        action = np.einsum("paf,pf->pa", weights[alive], seen)
        action = np.clip(action, task.action_low, task.action_high)
        before, models = qpos[:, 0], [model] * len(alive)
        qpos, qvel, derived = step_batch_derived(spec, pool, models, qpos, qvel, action)
        moved, going = qpos[:, 0] - before, ~spec.terminated(np, qpos, qvel)
        returns[alive] += pay(search, stage, moved / seconds, action, going)
        ways[alive] += moved
        alive, qpos, qvel = alive[going], qpos[going], qvel[going]
        derived = {name: x[going] for name, x in derived.items()}
        if not len(alive):
            break
    return Scores(returns, ways / (horizon * seconds)), sums


def pay(search: Search, stage: int, speed, action, going) -> np.ndarray:
    """The reward of a step: of `speed` [P] in m/s, `action` [P, A] and `going` [P] bool."""
    target = search.targets[stage]
    effort = 0.02 * target * (action**2).mean(-1)
    near = target - np.minimum(np.abs(speed - target), 2 * target)
    return near - effort + search.alive * target * going


def _update(search: Search, theta: np.ndarray, deltas: np.ndarray, returns: np.ndarray):
    """One step of ARS: `theta` [D], `deltas` [N, D], `returns` [2N], those of plus first."""
    plus, minus = np.split(returns, 2)
    best = np.argsort(-np.maximum(plus, minus), kind="stable")[: search.top]
    spread = np.concatenate([plus[best], minus[best]]).std() + 1e-6
    return theta + search.step / (search.top * spread) * (plus - minus)[best] @ deltas[best]


def search_gait(task: Task, search: Search, seed: int, report=print) -> tuple[gaits.Gait, dict]:
    """Searches for the slow and the fast policy, one from the other; same seed, same gait.

    Of each search the best of its every tenth policies is kept, by eight episodes.

    Args:
      task: a velocity task of one of `gaits.ROBOTS`.
      search: the robot's.
      seed: of all draws.
      report: called with a line of progress every ten updates.

    Returns:
      The gait in float64, and what was reached: `control_steps`, and `speeds` in m/s of the two
      policies in MuJoCo C, `[2]`, over the horizon, where a fall counts as standing still.
    """
    rng = np.random.default_rng(seed)
    rows = task.action_size // 2 if search.mirror else task.action_size
    theta = np.zeros(rows * (task.obs_size + 3) + 1)
    sums = Statistics(1.0, np.zeros(task.obs_size), np.ones(task.obs_size))
    pool = make_pool(task.host.model, num_threads=1)
    kept: dict[int, tuple[np.ndarray, float, float]] = {}
    for stage in search.order:
        best, best_theta = -np.inf, theta
        for i in range(1, search.iterations[stage] + 1):
            deltas = rng.normal(size=(search.directions, len(theta)))
            tried = theta + search.noise * np.concatenate([deltas, -deltas])
            start = int(rng.integers(2**31))
            scores, sums = episodes(task, pool, search, tried, stage, start, sums)
            theta = _update(search, theta, deltas, scores.returns)
            if i % 10 == 0:
                scores, _ = episodes(task, pool, search, np.tile(theta, (8, 1)), stage, i, sums)
                gain, speed = scores.returns.mean(), scores.speeds.mean()
                report(f"{PACES[stage]}, update {i}: return {gain:.1f}, {speed:.2f} m/s")
                if gain > best:
                    best, best_theta = gain, theta
                    kept[stage] = (*raw(task, search, theta, sums), float(speed))
        theta = best_theta
    weights, frequency = (np.stack([kept[0][i], kept[1][i]]) for i in range(2))
    speeds = [kept[0][2], kept[1][2]]
    reached = {"control_steps": int(sums.number) - 1, "speeds": speeds}
    return gaits.Gait(weights, frequency), reached


def raw(
    task: Task, search: Search, theta: np.ndarray, sums: Statistics
) -> tuple[np.ndarray, float]:
    """Weights `[A, O + 3]` of the observations as they are, and the frequency in Hz."""
    mean, std = sums.moments()
    weights = full(search, theta[:-1].reshape(-1, task.obs_size + 3))
    seen = weights[:, : task.obs_size] / std
    weights = np.concatenate([seen, search.clock * weights[:, task.obs_size :]], -1)
    weights[:, -1] -= seen @ mean
    return weights, search.frequency * float(np.exp(theta[-1]))


def save(path: pathlib.Path, task: Task, search: Search, seed: int, found: tuple) -> None:
    """Writes a gait to five digits with its origin; `found` is `search_gait`'s."""
    gait, reached = found
    origin = {
        "method": "Augmented Random Search, V2-t (arXiv 1803.07055): jaxsafe.data.gait_search",
        "task": task.name,
        "seed": seed,
        "search": dataclasses.asdict(search),
        "mujoco": mujoco.__version__,
        "licence": "Apache-2.0",
        **reached,
    }
    rows = {name: _rounded(value) for name, value in gait._asdict().items()}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in (origin | rows).items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _rounded(array: np.ndarray):
    return [_rounded(x) for x in array] if np.ndim(array) else float(f"{array:.5g}")


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags."""

    task: str = field("SafetyHopperVelocity-v1", "Velocity task of the robot.")
    seed: int = field(0, "Of all draws.", low=0)
    out: str = field("gait.json", "The file to write; one that is there is replaced.")


def _options(flag_values: flags.FlagValues) -> Options:
    options = flags_lib.overlay(Options(), "", flag_values)
    config_lib.validate(options)
    check_choice("task", options.task, [f"Safety{robot}Velocity-v1" for robot in SEARCHES])
    return options


def main(argv: list[str]) -> None:
    """Searches as the flags say and writes one file."""
    options = _options(flags.FLAGS)
    task = safety_tasks.make(options.task)
    search = SEARCHES[options.task.removeprefix("Safety").removesuffix("Velocity-v1")]
    found = search_gait(task, search, options.seed)
    save(pathlib.Path(options.out), task, search, options.seed, found)
    print(f"gait: {options.out}")


if __name__ == "__main__":
    flags_lib.define_config_flags(Options, "")
    flags_lib.parse_and_run(main, check=_options)
