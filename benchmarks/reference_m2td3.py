# SPDX-License-Identifier: Apache-2.0
"""Drives the learner of the M2TD3 authors' own code, for timing beside ours.

Their repository (akimotolab/M2TD3, commit a650b10) has no licence, so it is not part of this one:
`--reference=PATH` names a checkout of it. Their learner runs unchanged, without their environments.
"""

import importlib
import sys

import numpy as np
import torch


class Learner:
    """Their hard M2TD3 with their published values, its replay filled with random transitions."""

    def __init__(self, path: str, obs: int, action: int, omega: int, stored: int, threads: int):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        rng = np.random.RandomState(0)
        sys.path.insert(0, path)
        low, high = np.array([1.0, 1.0]), np.array([31.0, 11.0])
        environment = {"change_param_min": low, "change_param_max": high, "dim": omega}
        module = importlib.import_module("M2TD3.m2td3")
        self.learner = module.M2TD3(
            _CONFIG | {"environment": environment},
            obs,
            action,
            omega,
            3.0,
            rng,
            torch.device("cpu"),
        )
        self.learner.set_current_episode_len(1000)
        for _ in range(stored):
            state, next_state = rng.randn(obs), rng.randn(obs)
            self.learner.add_memory(
                *(state, rng.randn(action), next_state, 1.0, False, rng.uniform(low, high))
            )
        self.step = 0

    def update(self) -> None:
        """Two critic steps, the second with actor, worst candidate and targets."""
        for _ in range(2):
            self.step += 1
            self.learner.train(self.step)


# Their configs/algorithm/m2td3.yaml and configs/default.yaml, by papers/m2td3 section 3.
_CONFIG = {
    "algorithm": {
        "batch_size": 100,
        "gamma": 0.99,
        "p_lr": 3e-4,
        "q_lr": 3e-4,
        "ho_lr": 3e-4,
        "policy_freq": 2,
        "polyak": 5e-3,
        "replay_size": 1_000_000,
        "max_steps": 4_000_000,
        "policy_std_rate": 0.1,
        "policy_noise_rate": 0.2,
        "noise_clip_policy_rate": 0.5,
        "omega_std_rate": 1,
        "min_omega_std_rate": 0.1,
        "noise_clip_omega_rate": 0.5,
    },
    "network": {
        "policy_hidden_num": 1,
        "policy_hidden_size": 256,
        "critic_hidden_num": 1,
        "critic_hidden_size": 256,
        "hatomega_num": 5,
        "hatomega_hidden_num": 0,
        "hatomega_hidden_size": 0,
        "p_bias": 0,
    },
}
