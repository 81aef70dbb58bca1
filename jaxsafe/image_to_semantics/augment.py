# SPDX-License-Identifier: Apache-2.0
"""Labels for whole episodes from one annotation each: the simulator replays the logged actions.

The released code never calls its simulator; it copies the true semantics, which is the same only
where simulator and world are one. Here `transition` is called. Letters in shapes: E episodes, T
their greatest length, S size of semantics, A of actions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Simulator(NamedTuple):
    """What augmentation asks of a simulator; each function is pure and for one state.

    Attributes:
      place: `semantics [S] -> state`.
      transition: `(state, action [A]) -> state`.
      read: `state -> semantics [S]`.
    """

    place: Callable[[jax.Array], Any]
    transition: Callable[[Any, jax.Array], Any]
    read: Callable[[Any], jax.Array]


class Labels(NamedTuple):
    """What images are said to show.

    Attributes:
      semantics: `[E, T, S]`; numbers outside the mask mean nothing.
      mask: `[E, T]` bool.
    """

    semantics: jax.Array
    mask: jax.Array


def horizon_mask(lengths: jax.Array, steps: int, horizon: jax.Array | int) -> jax.Array:
    """Steps that are labelled, `[E, T]`: those up to `horizon` and inside of the episode.

    Args:
      lengths: `[E]` images of each episode, at least 1.
      steps: T.
      horizon: K, `[]` or `[E]`; 0 labels the annotated image alone, T - 1 or more all of them.
    """
    t = jnp.arange(steps)
    return (t < lengths[:, None]) & (t <= jnp.broadcast_to(horizon, lengths.shape)[:, None])


def roll_out(
    simulator: Simulator,
    starts: jax.Array,
    actions: jax.Array,
    lengths: jax.Array,
    horizon: jax.Array | int,
    anchors: jax.Array | None = None,
    anchored: jax.Array | None = None,
) -> Labels:
    """Labels steps 0 to K of each episode by simulating from its annotated start (section 2.2).

    s_0 is the annotation and s_t = Tr(s_{t-1}, a_{t-1}), never across the episode's end. An
    annotation's error goes through the dynamics.

    Args:
      simulator: the source world.
      starts: `[E, S]` annotations of first images.
      actions: `[E, T, A]` as logged; what stands past an end is not read.
      lengths: `[E]`.
      horizon: K, `[]` or `[E]`.
      anchors: `[E, T, S]` semantics by a predictor.
      anchored: `[E, T]` bool, where the simulator is put to them before it goes on.
    """
    steps = actions.shape[1]

    def episode(start, acts, guesses, here):
        def one(state, inputs):
            action, guess, jump = inputs
            state = simulator.transition(state, action)
            if anchors is not None:
                placed = simulator.place(guess)
                state = jax.tree.map(lambda x, y: jnp.where(jump, y, x), state, placed)
            return state, simulator.read(state)

        _, later = lax.scan(one, simulator.place(start), (acts[:-1], guesses[1:], here[1:]))
        return jnp.concatenate([start[None], later])

    blank = jnp.zeros((len(starts), steps, starts.shape[1]))
    anchors_ = blank if anchors is None else anchors
    where = jnp.zeros((len(starts), steps), bool) if anchored is None else anchored
    semantics = jax.vmap(episode)(starts, actions, anchors_, where)
    return Labels(semantics, horizon_mask(lengths, steps, horizon))


def disagreement(labels: jax.Array, predictions: jax.Array, scale: jax.Array) -> jax.Array:
    """Mean squared difference over dimensions in units of `scale` `[S]`, `[E, T]`."""
    return (((labels - predictions) / scale) ** 2).mean(-1)


def auto_horizon(
    gap: jax.Array, lengths: jax.Array, trusted: int, tolerance: float, window: int = 5
) -> jax.Array:
    """Chooses K per episode: the last step before rollout and predictor part ways, `[E]` int32.

    A predictor that was trained on the first `trusted` steps alone has an error of its own
    elsewhere: its floor is the median of `gap` over the `window` steps that come next, where the
    rollout has hardly drifted further. K is the last step up to which the mean of `gap` over the
    last `window` steps stays below floor + tolerance. A poor predictor has a high floor, and leaves
    the simulator its say.

    Args:
      gap: `[E, T]` from `disagreement`.
      lengths: `[E]`.
      trusted: steps that are labelled in any case.
      tolerance: squared error that a label may have, in squared units of the scale.
      window: steps over which the gap is averaged.
    """
    steps = gap.shape[1]
    t = jnp.arange(steps)
    inside = t < lengths[:, None]
    after = inside & (t > trusted) & (t <= trusted + window)
    floor = jnp.nanmedian(jnp.where(after, gap, jnp.nan))
    floor = jnp.where(jnp.isnan(floor), jnp.inf, floor)  # no episode is longer: nothing to cut
    clean = jnp.where(inside, gap, 0.0)
    total = jnp.cumsum(clean, axis=1)
    before = jnp.pad(total, ((0, 0), (window, 0)))[:, :steps]
    mean = (total - before) / jnp.minimum(t + 1, window)
    apart = (mean > floor + tolerance) & inside & (t > trusted)
    first = jnp.where(apart.any(1), jnp.argmax(apart, axis=1), lengths)
    # The window that gave it away began to drift earlier.
    cut = jnp.where(apart.any(1), jnp.maximum(first - window // 2, trusted + 1), lengths)
    return (cut - 1).astype(jnp.int32)


def noisy(
    key: jax.Array, semantics: jax.Array, std: jax.Array, annotation: float, transition: float
) -> jax.Array:
    """Emulates errors as the paper did, without running the dynamics from them (section 2.5).

    One draw N(0, (annotation std)^2) is added to every label of an episode, and at step t the sum
    of t independent draws N(0, (transition std)^2). `key` is consumed.

    Args:
      key: typed PRNG key.
      semantics: `[E, T, S]`.
      std: `[S]` standard deviations of semantics in the source world.
      annotation: alpha of annotations, a ratio of standard deviations.
      transition: alpha of transitions.
    """
    once, walk = jax.random.split(key)
    episodes, steps, size = semantics.shape
    offset = annotation * jax.random.normal(once, (episodes, 1, size))
    draws = transition * jax.random.normal(walk, (episodes, steps, size)).at[:, 0].set(0.0)
    return semantics + std * (offset + jnp.cumsum(draws, axis=1))
