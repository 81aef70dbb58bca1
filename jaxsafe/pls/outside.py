# SPDX-License-Identifier: Apache-2.0
"""Episodes of a policy in Gymnasium-style environments, which are outside of JAX.

An environment has `action_space` with `low` and `high`, `reset(seed=int) -> (obs, info)` and
`step(action) -> (obs, reward, terminated, truncated, info)`, with the step's cost in
`info["cost"]`. Several of them are stepped together, and the policy acts for all in one compiled
call.
"""

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.data import dsrl
from jaxsafe.pls import networks
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Policy

Make = Callable[[str], Any]
_FLAG = "dsrl.environment"


class Outside(NamedTuple):
    """Environments of one task, each of which runs one episode at a time."""

    task: str
    environments: Sequence[Any]
    obs_size: int
    limits: tuple[np.ndarray, np.ndarray]  # low [A] and high [A] of actions
    max_steps: int  # of an episode, which may end before


def parts(spec: str) -> tuple[str, str]:
    """Returns module and function of `"module:function"`; raises `UserError` where it is none."""
    module, _, name = spec.partition(":")
    if not (module and name):
        raise UserError(f"{_FLAG}={spec!r} is no module:function: give one, as in my_robots:make.")
    return module, name


def maker(spec: str | None) -> Make:
    """Returns what makes an environment of a task's name, or None where it has none.

    Args:
      spec: `"module:function"`, importable; None for `gymnasium.make` of the task's id, after the
        import of the package that registers it.

    Raises:
      UserError: there is no such module or function.
    """
    if spec is None:
        return _registered
    module, name = parts(spec)
    try:
        made = importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{_FLAG}={spec!r} cannot be imported ({error}): check the name, or PYTHONPATH."
        ) from error
    function = getattr(made, name, None)
    if not callable(function):
        raise UserError(f"{_FLAG}={spec!r}: module {module} has no function {name}: add it.")
    return function


def _registered(task: str) -> Any:
    import gymnasium

    name = dsrl.environment_id(task)
    suite = "safety_gymnasium" if "Gymnasium" in name else "bullet_safety_gym"
    try:
        return gymnasium.make(f"{suite}:{name}")
    except (ImportError, gymnasium.error.Error):
        return None


def open_all(
    make: Make, task: str, count: int, obs_size: int, action_size: int, max_steps: int
) -> Outside | None:
    """Makes `count` environments of a task; None where `make` has none.

    Args:
      make: from `maker`.
      task: DSRL's name of it.
      count: how many to make.
      obs_size: S of the data.
      action_size: A of the data.
      max_steps: T.

    Raises:
      UserError: making one fails, or its actions are not the data's.
    """
    environments = []
    for _ in range(count):
        try:
            environments.append(make(task))
        except Exception as error:  # the user's code may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{_FLAG} fails to make {task} ({reason}): mend it, return None for a task that it "
                "does not have, or leave that out of dsrl.tasks."
            ) from error
        if environments[-1] is None:
            return None
    space = getattr(environments[0], "action_space", None)
    low, high = (np.asarray(getattr(space, name, ()), np.float32) for name in ("low", "high"))
    if low.shape != (action_size,) or high.shape != low.shape:
        raise UserError(
            f"{_FLAG}: actions of {task} have shape {low.shape} and the file's ({action_size},): "
            "give the environment that the data are from."
        )
    return Outside(task, environments, obs_size, (low, high), max_steps)


def close_all(outside: Outside) -> None:
    """Closes the environments that can be closed."""
    for environment in outside.environments:
        getattr(environment, "close", lambda: None)()


def check(outside: Outside) -> None:
    """Resets one environment and takes one step, with the action next to zero, to see its form.

    Raises:
      UserError: observations are not as wide as the data's, or a step is not as it should be.
    """
    _reset(outside, 0, 0)
    _step(outside, 0, np.clip(0.0, *outside.limits))


def _reset(outside: Outside, place: int, seed: int) -> np.ndarray:
    given = outside.environments[place].reset(seed=seed)
    if not (isinstance(given, tuple) and len(given) == 2):
        raise UserError(f"{_FLAG}: reset of {outside.task} gives no (obs, info): return both.")
    return _observation(outside, given[0])


def _observation(outside: Outside, given: Any) -> np.ndarray:
    try:
        obs = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        raise UserError(
            f"{_FLAG}: an observation of {outside.task} is a {type(given).__name__}: give an array "
            f"[{outside.obs_size}], in the file's order."
        ) from None
    if obs.shape != (outside.obs_size,):
        raise UserError(
            f"{_FLAG}: observations of {outside.task} have shape {obs.shape} and the file's "
            f"({outside.obs_size},): give the environment that the data are from."
        )
    if not np.isfinite(obs).all():
        raise UserError(f"{_FLAG}: an observation of {outside.task} is not finite: mend it.")
    return obs


def _step(
    outside: Outside, place: int, action: np.ndarray
) -> tuple[np.ndarray, tuple[Any, Any], bool]:
    """Takes one step; returns the observation, (reward, cost), and whether the episode is over."""
    task, given = outside.task, outside.environments[place].step(action)
    if not (isinstance(given, tuple) and len(given) == 5):
        number = len(given) if isinstance(given, tuple) else 1
        raise UserError(
            f"{_FLAG}: step of {task} gives {number} values: return (obs, reward, terminated, "
            "truncated, info), with the cost in the info."
        )
    obs, reward, terminated, truncated, info = given
    if "cost" not in info:
        raise UserError(
            f"{_FLAG}: the info of {task} holds {sorted(info)} and no 'cost': put each step's cost "
            "there."
        )
    try:
        paid = np.asarray(reward).item(), np.asarray(info["cost"]).item()
        good = all(map(math.isfinite, paid))
    except (TypeError, ValueError):
        paid, good = (reward, info["cost"]), False
    if not good:
        raise UserError(f"{_FLAG}: reward and cost of {task} are {paid}: give two finite numbers.")
    return _observation(outside, obs), paid, bool(terminated or truncated)


@functools.partial(jax.jit, static_argnames=("config", "number"))
def _start(policy: Policy, config: PolicyConfig, number: int) -> Any:
    return jax.vmap(lambda _: networks.start(policy, config))(jnp.arange(number))


@functools.partial(jax.jit, static_argnames="config")
def _act(
    policy: Policy,
    config: PolicyConfig,
    memory: Any,
    limits: tuple[jax.Array, jax.Array],
    obs: jax.Array,
    left: jax.Array,
    time: jax.Array,
) -> tuple[jax.Array, Any]:
    """Acts for observations `[N, S]` with `left` `[N, 2]` of the targets."""

    def one(memory: Any, obs: jax.Array, left: jax.Array) -> tuple[jax.Array, Any]:
        return networks.act(policy, config, memory, limits, obs, left[0], left[1], time)

    return jax.vmap(one)(memory, obs, left)


def returns(
    policy: Policy,
    config: PolicyConfig,
    outside: Outside,
    z: np.ndarray,
    seeds: Sequence[int],
) -> np.ndarray:
    """Runs an episode of pi_z for each of W seeds, as many together as there are environments.

    Args:
      policy: of one seed.
      config: its own.
      outside: where to.
      z: `[2]` target return and target cost return, raw undiscounted units.
      seeds: of the resets.

    Returns:
      undiscounted returns and cost returns `[W, 2]`, raw units.

    Raises:
      UserError: an environment does not behave as `outside` says.
    """
    together = len(outside.environments)
    rounds = [seeds[i : i + together] for i in range(0, len(seeds), together)]
    found = np.concatenate([_round(policy, config, outside, z, few) for few in rounds])
    return found / [1.0, float(policy.sizes.cost_scale) if config.divide_costs else 1.0]


def _round(
    policy: Policy, config: PolicyConfig, outside: Outside, z: np.ndarray, seeds: Sequence[int]
) -> np.ndarray:
    """Runs at most as many episodes as there are environments; `[len(seeds), 2]`."""
    together = len(outside.environments)
    obs = np.zeros((together, outside.obs_size), np.float32)
    for place, seed in enumerate(seeds):
        obs[place] = _reset(outside, place, seed)
    paid = np.zeros((together, 2))
    alive = list(range(len(seeds)))
    memory = _start(policy, config, together)
    for time in range(outside.max_steps):
        left = np.asarray(np.asarray(z) - paid, np.float32)
        # A copy of what changes below, which the call may still read.
        actions, memory = _act(
            policy, config, memory, outside.limits, obs.copy(), left, np.int32(time)
        )
        host = np.array(actions)  # which environments may change
        for place in tuple(alive):
            obs[place], more, over = _step(outside, place, host[place])
            paid[place] += more
            if over:
                alive.remove(place)
        if not alive:
            break
    return paid[: len(seeds)]
