# SPDX-License-Identifier: Apache-2.0
"""The systems that keep the contract: one entry each, with sizes that compile in a second."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import tsdi_presets
from jaxsafe import advantage_nas, lm, m2td3, pls, sacpo, tsdi
from jaxsafe import image_to_semantics as i2s
from jaxsafe.advantage_nas import experiment as advantage_nas_experiment
from jaxsafe.image_to_semantics import experiment as i2s_experiment
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.m2td3 import experiment as m2td3_experiment
from jaxsafe.pls import experiment as pls_experiment
from jaxsafe.sacpo import experiment as sacpo_experiment
from jaxsafe.tsdi import models as tsdi_models
from tests.advantage_nas import worlds


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


def _pls() -> Small:
    config = dataclasses.replace(
        pls.CDT, context=3, width=8, layers=2, heads=2, batch_size=4, warmup_steps=2, state_loss=0.1
    )
    scale = jnp.float32(0.1)
    sizes = pls.Sizes(jnp.zeros(3), jnp.ones(3), scale, scale, obs=3, action=2, steps=20)

    def batch(key: jax.Array) -> pls.Batch:
        keys = jax.random.split(key, 6)
        shape = (config.batch_size, config.context)
        time = jax.random.randint(keys[5], (config.batch_size, 1), 0, 20) + jnp.arange(3)
        return pls.Batch(
            obs=jax.random.normal(keys[0], (*shape, 3)),
            action=jax.random.uniform(keys[1], (*shape, 2), minval=-1.0),
            reward_to_go=10 * jax.random.normal(keys[2], shape),
            cost_to_go=10 * jax.random.uniform(keys[3], shape),
            cost=jax.random.bernoulli(keys[4], 0.3, shape).astype(jnp.float32),
            time=time,
            mask=time < 20,
        )

    def init(key: jax.Array) -> pls.PolicyState:
        return pls.algorithm.init(key, config, sizes)

    return Small(config, init, batch, pls.algorithm.update)


def _image_to_semantics() -> Small:
    # Summed over 12,288 pixels, published weights make gradients whose rounding is no longer small.
    # Published encoder: of ours a seed on a device of its own has the numbers to rounding only.
    config = i2s.Config(
        encoder="dense",
        widths=(4,) * 6,
        decoder_widths=(4,) * 4,
        latent=3,
        head_width=4,
        reconstruction_weight=1e-3,
        sample_latents=True,
    )
    range_ = i2s.Range(jnp.zeros(2), jnp.ones(2))

    def batch(key: jax.Array) -> i2s.Batch:
        keys = jax.random.split(key, 4)
        images = jax.random.randint(keys[0], (3, 1, 64, 64, 3), 0, 256).astype(jnp.uint8)
        shape = (2, 4, config.encoded)  # two predictors
        latents = i2s.Latents(jax.random.normal(keys[1], shape), jax.random.normal(keys[2], shape))
        return i2s.Batch(images, i2s.Pairs(latents, jax.random.uniform(keys[3], (2, 4, 2))))

    return Small(config, lambda key: i2s.init(key, config, range_, 2), batch, i2s.update)


def _advantage_nas() -> Small:
    config = advantage_nas.Config(epochs=20, freeze_epochs=1, steps_per_epoch=3, weight_lr=0.03)

    def init(key: jax.Array) -> advantage_nas.State:
        return advantage_nas.init(key, config, worlds.NETWORK)

    def update(state, batch, config):
        return advantage_nas.update(state, batch, config, worlds.NETWORK)

    return Small(config, init, worlds.batch, update)


def _sacpo() -> Small:
    model = DecoderConfig(
        vocab_size=11,
        hidden_size=8,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        intermediate_size=12,
    )
    # The loss whose update draws: it pairs prompts with answers of other rows.
    stage = sacpo.Stage(loss="kto", batch_size=4, reference="online")
    config = sacpo.Config(model, stage, steps=100)

    def batch(key: jax.Array) -> sacpo.Batch:
        keys = jax.random.split(key, 4)
        start = jax.random.randint(keys[0], (4, 1, 1), 2, 5)
        end = start + jax.random.randint(keys[1], (4, 1, 1), 1, 5)
        slots = jnp.arange(9)
        mask = slots < end
        return sacpo.Batch(
            ids=jnp.where(mask, jax.random.randint(keys[2], (4, 1, 9), 0, 11), 0),
            mask=mask,
            completion=mask & (slots >= start),
            desirable=jax.random.bernoulli(keys[3], 0.5, (4,)),
        )

    def init(key: jax.Array) -> sacpo.State:
        state = sacpo.init(key, config)
        # On its way: at the start the policy is the reference, and no draw makes a difference.
        return state.replace(params=jax.tree.map(lambda x: 1.5 * x, state.params))

    return Small(config, init, batch, sacpo.update)


def _tsdi() -> Small:
    model = DecoderConfig(
        vocab_size=11,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        intermediate_size=12,
    )
    # Eight draws have 35 divisions into halves, so that two keys give different ones.
    config = tsdi.Config(positions=3, draws=16, prompt_length=4, batch_size=8)
    # Large enough for two models to differ by more than rounding.
    params = [jax.tree.map(lambda x: 6 * x, lm.init(jax.random.key(i), model)) for i in (5, 6)]
    pair, both = tsdi.Pair(*params), tsdi_models.of_decoder(model)

    def batch(key: jax.Array) -> tsdi.Batch:
        return tsdi.pool.batch(key, jnp.arange(11), tsdi.pool.Template((1,), (2,)), config)

    def update(state: tsdi.State, batch: tsdi.Batch, config: tsdi.Config):
        return tsdi.update(state, batch, config, both, pair)

    return Small(config, lambda key: tsdi.init(key, config, 11), batch, update)


SYSTEMS = [
    System(
        "image_to_semantics",
        i2s_experiment.PRESETS,
        i2s_experiment.validate_experiment,
        _image_to_semantics,
    ),
    System(
        "advantage_nas",
        advantage_nas.PRESETS,
        advantage_nas_experiment.validate_experiment,
        _advantage_nas,
    ),
    System("m2td3", m2td3.PRESETS, m2td3_experiment.validate_experiment, _m2td3),
    System("pls", pls_experiment.PRESETS, pls_experiment.validate_experiment, _pls),
    System("sacpo", sacpo.PRESETS, sacpo_experiment.validate_experiment, _sacpo),
    System("tsdi", tsdi_presets.PRESETS, tsdi_presets.validate, _tsdi),
]
