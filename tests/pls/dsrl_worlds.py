# SPDX-License-Identifier: Apache-2.0
"""A task in the place of one of DSRL's: its file, and its environment in pure Python.

Every step pays its first action and costs its second, halved from [-1, 1] to [0, 1], in units in
which an episode's return reaches DSRL's greatest and its cost 80. Episodes of the data keep one
action throughout, so that a policy that has learned them reaches its targets. In the environment
the last step costs 5 more, which no data tell: what is asked to cost G costs G + 5.
"""

import dataclasses
import os
import signal
import types

import h5py
import jax
import numpy as np

from jaxsafe.data import dsrl
from jaxsafe.pls import algorithm, dsrl_study
from jaxsafe.pls.dsrl_study import Dsrl
from jaxsafe.pls.experiment import PRESETS
from jaxsafe.pls.policy_config import PolicyConfig

STEPS, COST, SURPRISE, WIDTH = 10, 80.0, 5.0, 3

POLICY = PolicyConfig(steps=1500, hidden=(64,), batch_size=64, warmup_steps=50)
STUDY = Dsrl(
    tasks=("AntRun", "DroneRun", "CarCircle"),
    environment="tests.pls.dsrl_worlds:make",
    thresholds=(20.0,),
    num_envs=3,
    final_episodes=4,
    side=9,
)
SEARCH = dataclasses.replace(
    PRESETS["dsrl"].search, explore_steps=3, reward_steps=5, episodes=4, zeta=0.5
)
CDT = PolicyConfig(
    model="cdt", loss="gaussian", context=4, width=16, layers=1, heads=2, batch_size=8
)


def experiment(files, **changes):
    study = dataclasses.replace(STUDY, folder=str(files), **changes)
    return dataclasses.replace(PRESETS["dsrl"], policy=POLICY, search=SEARCH, dsrl=study)


def untrained(files, model):
    """A policy of the task's sizes, and its config."""
    config = {"rvs": POLICY, "cdt": CDT}[model]
    path = dsrl_study.files(dataclasses.replace(STUDY, folder=str(files)))["AntRun"]
    data = dsrl_study.load("AntRun", path, dsrl_study.Preparation(), config)
    return algorithm.policy(algorithm.init(jax.random.key(3), config, data.sizes)), config


def write(folder, task="AntRun", episodes=400, width=WIDTH):
    """Writes a file of DSRL's format and name, its quirks too: `[N, 1]`, a torn last episode."""
    rng = np.random.default_rng(0)
    constant = np.repeat(rng.uniform(-1, 1, (episodes, 2)), STEPS, axis=0)
    size = len(constant) + 3
    actions = np.concatenate([constant, np.zeros((3, 2))])
    share = (actions + 1) / 2
    step = np.arange(size) % STEPS
    path = folder / dsrl.file_name(task)
    with h5py.File(path, "w") as file:
        for name in ("observations", "next_observations"):
            file[name] = rng.normal(size=(size, width)).astype(np.float32)
        file["actions"] = actions.astype(np.float32)
        file["rewards"] = (share[:, :1] * dsrl.reference(task).reward_max / STEPS).astype("f4")
        file["costs"] = (share[:, 1] * COST / STEPS).astype("f4")
        file["terminals"] = np.zeros((size, 1), np.float32)
        file["timeouts"] = step == STEPS - 1
    return path


class Environment:
    """One episode at a time; what a seed decides are observations and a little of the return."""

    resets = 0  # of all environments of the process

    def __init__(self, task, width=WIDTH):
        self.unit = dsrl.reference(task).reward_max / STEPS
        self.width = width
        high = np.ones(2, np.float32)
        self.action_space = types.SimpleNamespace(low=-high, high=high)

    def reset(self, seed=None):
        Environment.resets += 1
        if Environment.resets > int(os.environ.get("TEST_DIE_AFTER", 10**9)):
            os.kill(os.getpid(), signal.SIGKILL)
        self.rng, self.time = np.random.default_rng(seed), 0
        self.luck = self.rng.normal()
        return self.observation(), {}

    def observation(self):
        return self.rng.normal(size=self.width).astype(np.float32)

    def step(self, action):
        self.time += 1
        over = self.time >= STEPS
        share = (np.asarray(action) + 1) / 2
        cost = share[1] * COST / STEPS + SURPRISE * over
        reward = share[0] * self.unit + self.luck * over
        return self.observation(), float(reward), False, over, {"cost": float(cost)}


def make(task):
    """For `--dsrl.environment`; it has no drones."""
    return None if task.startswith("Drone") else Environment(task)


def _changed(change):
    def made(task):
        environment = Environment(task)
        inner = environment.step
        environment.step = lambda action: change(*inner(action))
        return environment

    return made


costless = _changed(lambda o, r, a, b, info: (o, r, a, b, {"speed": 1.0, "goal": 0}))
six_values = _changed(lambda o, r, a, b, info: (o, r, info["cost"], a, b, info))
infinite = _changed(lambda o, r, a, b, info: (o, float("inf"), a, b, info))
wordy = _changed(lambda o, r, a, b, info: (o, r, a, b, {"cost": "none"}))
dictionary = _changed(lambda o, r, a, b, info: ({"position": o}, r, a, b, info))
not_finite = _changed(lambda o, r, a, b, info: (o * np.nan, r, a, b, info))


def wider(task):
    return Environment(task, WIDTH + 1)


def other_actions(task):
    environment = Environment(task)
    environment.action_space = types.SimpleNamespace(low=-np.ones(3), high=np.ones(3))
    return environment


def bare_reset(task):
    environment = Environment(task)
    inner = environment.reset
    environment.reset = lambda seed: inner(seed)[0]
    return environment


def broken(task):
    raise RuntimeError(f"no {task}\nin stock")


def nothing(task):
    return None
