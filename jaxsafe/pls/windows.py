# SPDX-License-Identifier: Apache-2.0
"""Offline trajectories as windows on the device (OSRL `common/dataset.py`, without its loops)."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError, check_memory
from jaxsafe.data.trajectories import Trajectories, to_go, totals
from jaxsafe.pls import augment
from jaxsafe.pls.policy_config import PolicyConfig, validate
from jaxsafe.pls.policy_types import Batch, Sizes, Windows


def make(trajectories: Trajectories, config: PolicyConfig, seed: int = 0) -> Windows:
    """Puts trajectories on the device, ready to be drawn from.

    Args:
      trajectories: E episodes of N transitions.
      config: its scales are made from these data where it leaves them open; with `augment` there
        are more episodes, of the same transitions.
      seed: of what is relabelled.

    Raises:
      UserError: the config does not fit together, an episode is longer than `episode_steps`, no
        episode costs less than `sample_below`, the data would not fit in memory, or as
        `augment.relabel`.
    """
    validate(config)
    data, window = trajectories, config.window
    size = len(data.rewards) + window
    width = data.observations.shape[1] + data.actions.shape[1] + 3
    check_memory(f"{size} transitions", 2 * size * width * 4, "Give fewer of them.")
    returns, costs = totals(data)
    more = augment.relabel(np.random.default_rng(seed), returns, costs, config)
    episode = np.concatenate([np.arange(len(returns)), more.episode])
    # A relabelled episode is drawn by its new cost return.
    asked = [np.concatenate(x) for x in ((returns, more.reward), (costs, more.cost))]
    lines = [
        augment.line(old[episode], new, config.augment_curve)
        for old, new in zip((returns, costs), asked, strict=True)
    ]
    return Windows(
        **{
            name: _padded(column, window)
            for name, column in {
                "obs": data.observations,
                "action": data.actions,
                "reward_to_go": to_go(data.rewards, data),
                "cost_to_go": to_go(data.costs, data),
                "cost": data.costs,
            }.items()
        },
        start=jnp.asarray(data.starts[episode], jnp.int32),
        length=jnp.asarray(data.lengths[episode], jnp.int32),
        reward_line=jnp.asarray(lines[0], jnp.float32),
        cost_line=jnp.asarray(lines[1], jnp.float32),
        cumulative=jnp.asarray(np.cumsum(probabilities(asked[1], config)), jnp.float32),
        sizes=_sizes(data, returns, costs, config),
    )


def _padded(column: np.ndarray, window: int) -> jax.Array:
    widths = [(0, window)] + [(0, 0)] * (column.ndim - 1)
    return jnp.asarray(np.pad(column, widths), jnp.float32)


def _sizes(
    data: Trajectories, returns: np.ndarray, costs: np.ndarray, config: PolicyConfig
) -> Sizes:
    longest = int(data.lengths.max())
    steps = config.episode_steps or longest
    if longest > steps:
        raise UserError(
            f"policy.episode_steps={steps} is less than the data's longest episode: set it to 0 or "
            f"at least {longest}."
        )
    mean, deviation = np.zeros(2)
    if config.standardise:
        # A column that does not vary is left as it is.
        mean = data.observations.mean(0, dtype=np.float64)
        deviation = data.observations.std(0, dtype=np.float64)
    scales = [
        1 / max(np.abs(total).max(), 1e-6) if given is None else given
        for given, total in ((config.return_scale, returns), (config.cost_scale, costs))
    ]
    if config.cost_scale is None and not np.any(costs):
        scales[1] = 1.0
    shape = data.observations.shape[1:]
    return Sizes(
        obs_mean=jnp.asarray(np.broadcast_to(mean, shape), jnp.float32),
        obs_scale=jnp.asarray(
            np.broadcast_to(1 / np.where(deviation > 1e-6, deviation, 1.0), shape), jnp.float32
        ),
        return_scale=jnp.float32(scales[0]),
        cost_scale=jnp.float32(scales[1]),
        obs=shape[0],
        action=data.actions.shape[1],
        steps=steps,
    )


def probabilities(costs: np.ndarray, config: PolicyConfig) -> np.ndarray:
    """Probabilities `[E]` of drawing episodes of these cost returns `[E]` (OSRL's sampler).

    Raises:
      UserError: no cost return is below `sample_below`.
    """
    if config.sample_below is None:
        return np.full(len(costs), 1 / len(costs))
    weights = np.maximum(config.sample_below - np.asarray(costs, np.float64), 0.0)
    if not weights.any():
        raise UserError(
            f"policy.sample_below={config.sample_below:g} is below every episode's cost return: "
            f"set it above {np.min(costs):g}, or to none."
        )
    return weights / weights.sum()


def sample(key: jax.Array, windows: Windows, config: PolicyConfig) -> Batch:
    """Draws windows: an episode by its probability, and in it a first step, each alike.

    A window that begins near its episode's end is padded on the right with zeros. `key` is
    consumed.
    """
    shape = (config.batch_size,)
    key_episode, key_step = jax.random.split(key)
    total = windows.cumulative[-1]  # 1, up to rounding
    drawn = jax.random.uniform(key_episode, shape) * total
    episode = jnp.searchsorted(windows.cumulative, drawn, side="right")
    # `drawn` may round up to the total: then the last episode that can be drawn at all.
    last = jnp.searchsorted(windows.cumulative, total, side="left")
    episode = jnp.minimum(episode, last)
    length = windows.length[episode]
    first = jnp.floor(jax.random.uniform(key_step, shape) * length).astype(jnp.int32)
    return take(windows, config, episode, jnp.minimum(first, length - 1))


def take(windows: Windows, config: PolicyConfig, episode: jax.Array, first: jax.Array) -> Batch:
    """Reads the windows that begin at step `first` `[B]` of episodes `[B]`."""
    time = first[:, None] + jnp.arange(config.window, dtype=jnp.int32)
    mask = time < windows.length[episode][:, None]
    rows = windows.start[episode][:, None] + time

    def read(column: jax.Array) -> jax.Array:
        values = column[rows]
        return jnp.where(mask if values.ndim == 2 else mask[..., None], values, 0.0)

    def relabelled(column: jax.Array, lines: jax.Array) -> jax.Array:
        factor, shift = lines[episode].T
        return jnp.where(mask, factor[:, None] * column[rows] + shift[:, None], 0.0)

    return Batch(
        obs=read(windows.obs),
        action=read(windows.action),
        reward_to_go=relabelled(windows.reward_to_go, windows.reward_line),
        cost_to_go=relabelled(windows.cost_to_go, windows.cost_line),
        cost=read(windows.cost),
        time=time,
        mask=mask,
    )
