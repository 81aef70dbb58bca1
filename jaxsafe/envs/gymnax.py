# SPDX-License-Identifier: Apache-2.0
"""gymnax's classic control with continuous actions, as tasks whose models are its `EnvParams`.

An uncertainty set thus names fields of the `EnvParams`. Nothing starts anew by itself inside a
step, and there is no second engine to score in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.classic_control.continuous_mountain_car import ContinuousMountainCar
from gymnax.environments.classic_control.pendulum import Pendulum

from jaxsafe.core.checks import check_choice
from jaxsafe.envs.types import AdaptedState, Leaf, Task, Timestep


@dataclass(frozen=True)
class _Spec:
    """One environment of gymnax; its steps must draw nothing, as a task's `step` takes no key."""

    env: Callable[[], Any]
    obs_scale: tuple[float, ...]
    parameters: Mapping[str, Leaf]


SPECS: Mapping[str, _Spec] = {
    "Pendulum-v1": _Spec(
        env=Pendulum,
        obs_scale=(1.0, 1.0, 0.2),
        parameters={
            "mass": Leaf("m", (), "kg"),
            "length": Leaf("l", (), "m"),
            "gravity": Leaf("g", (), "m/s^2"),
            "time_step": Leaf("dt", (), "s"),
        },
    ),
    "MountainCarContinuous-v0": _Spec(
        env=ContinuousMountainCar,
        obs_scale=(1.0, 15.0),
        parameters={"power": Leaf("power", ()), "gravity": Leaf("gravity", ())},
    ),
}


def make(name: str) -> Task:
    """Builds a task by gymnax's name, which is Gymnasium's.

    The pendulum swings up from anywhere on the circle and never terminates; the mountain car
    terminates at its goal, and its cost of control is that of the clipped action. Neither has wider
    starts to explore from, so `explore` is `reset`. Unlike gymnax's own `step`, the task's passes
    gradients.

    Everything is built in JAX's precision at the time of the call: 32 bits unless x64 is on.

    Args:
      name: a key of `SPECS`.

    Returns:
      The task; its steps are gymnax's operations in gymnax's order. Its `host` is None.

    Raises:
      UserError: if the name is unknown.
    """
    check_choice("gymnax task", name, SPECS)
    spec = SPECS[name]
    env = spec.env().with_transition_gradients()
    defaults = env.default_params
    space = env.action_space(defaults)
    low, high = (np.full(space.shape, x, np.float32) for x in (space.low, space.high))

    def reset(model, key: jax.Array) -> AdaptedState:
        _, inner = env.reset_env(key, model)
        return AdaptedState(_typed(inner), jnp.zeros((), jnp.int32))

    return Task(
        name=name,
        model=_typed(defaults),
        reset=reset,
        explore=reset,
        step=_make_step(env, low, high),
        observe=lambda model, state: env.get_obs(state.inner, model),
        obs_size=len(spec.obs_scale),
        action_size=len(low),
        action_low=low,
        action_high=high,
        obs_scale=np.asarray(spec.obs_scale, np.float32),
        max_episode_steps=int(defaults.max_steps_in_episode),
        parameters=spec.parameters,
        host=None,
    )


def _typed(tree: Any) -> Any:
    """Turns Python numbers into arrays of a type that no sum changes."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), tree)


def _make_step(env: Any, low: np.ndarray, high: np.ndarray) -> Callable:
    def step(model, state: AdaptedState, action: jax.Array) -> tuple[AdaptedState, Timestep]:
        action = jnp.clip(action, low, high).astype(jnp.result_type(float))
        unused = jax.random.key(0)
        obs, inner, reward, terminated, _ = env.step_env(unused, state.inner, action, model)
        timestep = Timestep(
            obs=obs,
            reward=reward.astype(jnp.float32),
            cost=jnp.zeros((), jnp.float32),
            terminated=terminated,
            truncated=env.is_truncated(inner, model),
        )
        return AdaptedState(_typed(inner), state.steps + 1), timestep

    return step
