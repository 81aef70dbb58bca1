# SPDX-License-Identifier: Apache-2.0
"""The pendulum stepped by Gymnasium and by MJX, over the same omegas, starts and pushes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.envs.types import State

# Holds the pendulum up for 1000 steps anywhere in InvertedPendulum-2; obs [4] -> force.
GAINS = np.array([0.2024, 15.0148, 0.3707, 0.5322])
OMEGAS = np.array([[5.01859164, 10.47197551], [1, 1], [31, 11], [31, 1], [1, 11]])  # pole, cart
PLANS = ("balance", "fall", "rail")
STEPS = 200


class Recording(NamedTuple):
    """Gymnasium's answer; rows are omega-major, plan-minor: B = 5 omegas x 3 plans."""

    omegas: np.ndarray  # [B, 2]
    start: np.ndarray  # [B, 4]
    gain: np.ndarray  # [B], 1 where the controller acts
    push: np.ndarray  # [B, T, 1], what is added to it
    actions: np.ndarray  # [B, T, 1]
    obs: np.ndarray  # [B, T, 4]
    reward: np.ndarray  # [B, T]
    terminated: np.ndarray  # [B, T]

    def first(self) -> np.ndarray:
        """Steps until termination, [B]; T where there was none."""
        return np.where(self.terminated.any(1), self.terminated.argmax(1), STEPS)


def controller(obs):
    return np.clip(obs @ GAINS, -3, 3)[..., None]


def gymnasium_env(version: str):
    """Gymnasium's bare environment; past the registry, which warns that v4 is old."""
    reason = "parity needs gymnasium[mujoco]"
    pytest.importorskip("gymnasium", reason=reason)
    name = f"gymnasium.envs.mujoco.inverted_pendulum_{version}"
    return pytest.importorskip(name, reason=reason).InvertedPendulumEnv()


def record(version: str) -> Recording:
    """Steps Gymnasium's pendulum, in MuJoCo C, on through termination."""
    env = gymnasium_env(version)
    rng = np.random.default_rng(3)
    rows = []
    for omega in OMEGAS:
        for plan in PLANS:
            env.reset(seed=0)
            env.model.body_mass[[2, 1]] = omega
            start = rng.uniform(-0.01, 0.01, 4)
            if plan == "rail":
                start += [0.97, 0, 0.5, 0]
            gain = float(plan != "fall")
            push = rng.normal(0, 0.05, (STEPS, 1)) if gain else rng.uniform(-3, 3, (STEPS, 1))
            env.set_state(start[:2], start[2:])
            obs, out = start, []
            for u in push:
                action = np.clip(gain * controller(obs) + u, -3, 3)
                obs, reward, terminated, _, _ = env.step(action)
                out.append((action, obs, reward, terminated))
            rows.append((omega, start, gain, push, *(np.array(x) for x in zip(*out, strict=True))))
    env.close()
    return Recording(*(np.stack(x) for x in zip(*rows, strict=True)))


def plan(name: str):
    """The rows of one of the PLANS."""
    return np.s_[PLANS.index(name) :: len(PLANS)]


def upto_end(recording: Recording) -> np.ndarray:
    """Mask [B, T] of the steps up to and including the one that terminates."""
    return np.arange(STEPS) <= recording.first()[:, None]


def check_rewards_and_endings(ours, theirs: Recording, reward_at_end: float) -> None:
    """Asserts that Timesteps [B, T, ...] pay and end as the recording does, up to its end."""
    mask = upto_end(theirs)
    np.testing.assert_array_equal(ours.terminated[mask], theirs.terminated[mask])
    np.testing.assert_array_equal(ours.reward[mask], theirs.reward[mask])
    assert (ours.reward[mask & theirs.terminated] == reward_at_end).all()
    assert ours.reward.dtype == ours.cost.dtype == np.float32
    assert not ours.truncated.any() and not ours.cost.any()


def states(start, steps: int = 0) -> State:
    """State rows at `start` [B, 4]."""
    start = jnp.asarray(start)
    counts = jnp.full(len(start), steps, jnp.int32)
    return State(start[:, :2], start[:, 2:], jnp.zeros_like(start[:, :2]), counts)


def replay(task, uncertainty, recording: Recording):
    """Steps MJX over a recording's rows, batched over models; returns Timesteps [B, T, ...].

    The pushes are the recording's. The controller, where it acts, acts on MJX's own state: the same
    forces open loop would part the engines within some 150 steps, as the pole is unstable.
    """
    models, axes = uncertainty.batched(task.model, jnp.asarray(recording.omegas))
    gains = jnp.asarray(GAINS)

    def run(model, state, gain, push):
        def body(state, u):
            command = jnp.clip(task.observe(model, state) @ gains, -3, 3)
            return task.step(model, state, gain * command + u)

        return jax.lax.scan(body, state, push)[1]

    program = jax.jit(jax.vmap(run, in_axes=(axes, 0, 0, 0)))
    inputs = (jnp.asarray(recording.gain), jnp.asarray(recording.push))
    return jax.device_get(program(models, states(recording.start), *inputs))
