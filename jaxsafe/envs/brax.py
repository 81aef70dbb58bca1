# SPDX-License-Identifier: Apache-2.0
"""brax environments as tasks whose models are brax's `System`.

An adapter for those who have a brax environment, no more: brax maintains its physics no longer. It
names uncertain parameters by the fields of the `System` that the environment's backend reads, e.g.

    env = brax.envs.get_environment("inverted_pendulum", backend="generalized")
    task = adapt(env, {"pole_mass": Leaf("link.inertia.mass", (1,), "kg")})
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError, check_range
from jaxsafe.envs.types import AdaptedState, Leaf, Task, Timestep


def adapt(
    env: Any,
    parameters: Mapping[str, Leaf],
    obs_scale: Sequence[float] | None = None,
    max_episode_steps: int = 1000,
    action_low: float = -1.0,
    action_high: float = 1.0,
) -> Task:
    """Makes a task of a brax environment.

    `done` is the task's `terminated`; brax leaves time limits, repeated actions and new starts to
    wrappers, of which none is needed here. The environment is not changed: each call runs a copy of
    it that holds the given `System`, so whatever its `__init__` derived from its own stays nominal.

    Args:
      env: a bare `brax.envs.PipelineEnv`, whose physics is that of `env.sys`.
      parameters: physical parameters by name, and where the `System` keeps each.
      obs_scale: `[O]` factors for network inputs; ones by default.
      max_episode_steps: control steps until `truncated`.
      action_low: least action, in every entry; brax's environments take -1 to 1.
      action_high: greatest action.

    Returns:
      The task; `explore` is `reset`, and `host` is None.

    Raises:
      UserError: if the environment is wrapped or observes no single array, if `obs_scale` does not
        fit, if `max_episode_steps` is below 1, or if the `System` has no such parameter.
    """
    check_range("max_episode_steps", max_episode_steps, low=1)
    if env is not env.unwrapped or not hasattr(env, "sys"):
        kind = type(env).__name__
        raise UserError(f"env={kind} is no bare PipelineEnv: give env.unwrapped.")
    obs_size = _obs_size(env)
    scale = np.ones(obs_size) if obs_scale is None else np.asarray(obs_scale)
    if scale.shape != (obs_size,):
        raise UserError(
            f"obs_scale has shape {scale.shape}: give one factor for each of {obs_size}."
        )
    model = jax.tree.map(jnp.asarray, env.sys)
    _check_leaves(env, model, parameters)
    reset, step = _make_functions(env, max_episode_steps, action_low, action_high)
    limits = np.ones(env.action_size, np.float32)
    return Task(
        name=f"{type(env).__name__}-{env.backend}",
        model=model,
        reset=reset,
        explore=reset,
        step=step,
        observe=lambda model, state: state.inner.obs,
        obs_size=obs_size,
        action_size=env.action_size,
        action_low=action_low * limits,
        action_high=action_high * limits,
        obs_scale=scale.astype(np.float32),
        max_episode_steps=max_episode_steps,
        parameters=dict(parameters),
        host=None,
    )


def _with_system(env: Any, system: Any) -> Any:
    own = copy.copy(env)
    own.sys = system
    return own


def _raw(key: jax.Array) -> jax.Array:
    """The key in the form that brax is written for."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(key) if typed else key


def _obs_size(env: Any) -> int:
    obs = jax.eval_shape(env.reset, jax.ShapeDtypeStruct((2,), jnp.uint32)).obs
    if not hasattr(obs, "shape") or len(obs.shape) != 1:
        raise UserError(f"{type(env).__name__} observes {obs}: only one array [O] is supported.")
    return obs.shape[0]


def _check_leaves(env: Any, model: Any, parameters: Mapping[str, Leaf]) -> None:
    for name, leaf in parameters.items():
        array = model
        for part in leaf.field.split("."):
            array = getattr(array, part, None)
        if not isinstance(array, jax.Array) or len(leaf.index) != array.ndim:
            found = "nothing" if array is None else f"shape {np.shape(array)}"
            raise UserError(
                f"{name}: {leaf} fits no array of {type(env).__name__}'s System, which has {found} "
                "there: give a field of it, with one index for each axis."
            )


def _make_functions(env: Any, max_episode_steps: int, low: float, high: float):
    """Returns the task's `reset` and `step`."""

    def reset(model, key: jax.Array) -> AdaptedState:
        inner = _with_system(env, model).reset(_raw(key))
        # Strongly typed, or what brax sums to it would change it.
        inner = jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), inner)
        return AdaptedState(inner, jnp.zeros((), jnp.int32))

    def step(model, state: AdaptedState, action: jax.Array) -> tuple[AdaptedState, Timestep]:
        after = _with_system(env, model).step(state.inner, jnp.clip(action, low, high))
        inner = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, state.inner)
        steps = state.steps + 1
        timestep = Timestep(
            obs=inner.obs,
            reward=inner.reward.astype(jnp.float32),
            cost=jnp.zeros((), jnp.float32),
            terminated=inner.done > 0.5,
            truncated=steps >= max_episode_steps,
        )
        return AdaptedState(inner, steps), timestep

    return reset, step
