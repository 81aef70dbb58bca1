# SPDX-License-Identifier: Apache-2.0
"""The systems that keep the contract: one entry each, with sizes that compile in a second."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxsafe import m2td3
from jaxsafe.m2td3.experiment import validate_experiment


class Small(NamedTuple):
    """One system, small.

    Attributes:
      config: static, hashable.
      init: `key -> state`.
      batch: `key -> batch` of plausible random numbers.
      update: `(state, batch, config) -> (state, metrics)`.
    """

    config: Any
    init: Callable[[jax.Array], Any]
    batch: Callable[[jax.Array], Any]
    update: Callable[[Any, Any, Any], tuple[Any, dict[str, jax.Array]]]


class System(NamedTuple):
    """What the contract asks of one system.

    Attributes:
      name: its folder.
      presets: named configs of its binary.
      validate: raises `UserError` for a preset that does not fit together.
      make: builds the small one.
    """

    name: str
    presets: Mapping[str, Any]
    validate: Callable[[Any], None]
    make: Callable[[], Small]


def _m2td3() -> Small:
    world = m2td3.make_world(
        obs_scale=[1.0, 2.0, 0.5],
        action_low=[-1.0, -2.0],
        action_high=[1.0, 4.0],
        omega_low=[1.0, 10.0],
        omega_high=[3.0, 30.0],
    )
    config = m2td3.Config(hidden=(8, 8), batch_size=4, total_steps=200, warmup_steps=1)

    def batch(key: jax.Array) -> m2td3.Transition:
        keys = jax.random.split(key, 6)
        shape = (config.policy_delay, config.batch_size)
        return m2td3.Transition(
            obs=jax.random.normal(keys[0], (*shape, 3)),
            action=jax.random.uniform(keys[1], (*shape, 2), minval=-1.0),
            reward=jax.random.normal(keys[2], shape),
            discount=0.99 * jax.random.bernoulli(keys[3], 0.7, shape),
            next_obs=jax.random.normal(keys[4], (*shape, 3)),
            omega=jax.random.uniform(keys[5], (*shape, 2), minval=-1.0),
        )

    return Small(config, lambda key: m2td3.init(key, config, world), batch, m2td3.update)


SYSTEMS = [System("m2td3", m2td3.PRESETS, validate_experiment, _m2td3)]
