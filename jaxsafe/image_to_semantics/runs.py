# SPDX-License-Identifier: Apache-2.0
"""What a run holds and what it learns from, as arrays of one size.

N rows are images of the offline data, E its episodes, T their greatest length, V predictors.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsafe.core.checks import UserError
from jaxsafe.data.image_episodes import ImageEpisodes
from jaxsafe.image_to_semantics import unpaired
from jaxsafe.image_to_semantics.augment import Simulator
from jaxsafe.image_to_semantics.config import Config
from jaxsafe.image_to_semantics.plans import Study
from jaxsafe.image_to_semantics.types import Latents, Range, State
from jaxsafe.image_to_semantics.unpaired import Source, Unpaired

METRICS = ("vae/loss", "vae/reconstruction", "vae/kl", "heads/loss", "heads/worst_loss")


def metric_names(study: Study) -> tuple[str, ...]:
    """Names of a run's metrics: of the autoencoder, of taught predictors, of the unpaired one."""
    return METRICS + unpaired.METRICS * ("unpaired" in study.methods)


class Table(NamedTuple):
    """Offline data as arrays of one size.

    Attributes:
      images: `[N, 64, 64, 3]` uint8.
      stacks: `[N, F]` int32, rows of each row's stack, newest first; at a start it is repeated.
      rows: `[E, T]` int32, 0 past an end.
      lengths: `[E]` int32.
      actions: `[E, T, A]` float32.
      truth: `[E, T, S]` float32, what the annotator knows.
      std: `[S]`, standard deviations of the source's semantics.
    """

    images: jax.Array
    stacks: jax.Array
    rows: jax.Array
    lengths: jax.Array
    actions: jax.Array
    truth: jax.Array
    std: jax.Array


class Family(NamedTuple):
    """Simulators among which the study may identify one.

    Attributes:
      simulator: `factors [P] -> Simulator`.
      factors: P.
      shown: `[S]` bool, semantics that one image shows.
    """

    simulator: Callable[[jax.Array], Simulator]
    factors: int
    shown: tuple[bool, ...]


class Setup(NamedTuple):
    """What stays the same in a run; none of it changes with the seed.

    Attributes:
      config: static.
      study: static.
      simulator: of the source.
      range: of its semantics.
      how: the baseline without annotations learns; static.
      source: what that knows of the source; None where it is not compared.
      family: of simulators; None where none is identified.
    """

    config: Config
    study: Study
    simulator: Simulator
    range: Range
    how: Unpaired = Unpaired()
    source: Source | None = None
    family: Family | None = None


class Run(struct.PyTreeNode):
    """A learner and what it is taught.

    Attributes:
      learner: autoencoder and V predictors.
      latents: `[N, Z]` of the frozen encoder; zeros before it is.
      labels: `[V, E, T, S]`.
      mask: `[V, E, T]` bool, which of them are used.
      horizon: `[V, E]` int32, K, and -1 where an episode is not annotated.
      last: the metrics of the last chunk, by the order of `metric_names`; 0 where there were none.
      label_error: `[V]`, RMS of used labels against the truth, in standard deviations.
      factors: `[budgets, P]` that were identified; None where none are.
      alone: the predictor without annotations; None where it is not compared.
    """

    learner: State
    latents: Latents
    labels: jax.Array
    mask: jax.Array
    horizon: jax.Array
    last: jax.Array
    label_error: jax.Array
    factors: jax.Array | None = None
    alone: unpaired.State | None = None


def table(data: ImageEpisodes, frames: int, std: np.ndarray) -> Table:
    """Lays episodes out as arrays.

    Args:
      data: with its truth.
      frames: F.
      std: `[S]`.

    Raises:
      UserError: the data hold no truth to annotate from, or of another size.
    """
    if data.truth.shape[1] != len(std):
        raise UserError(
            f"the data's truth has {data.truth.shape[1]} numbers an image and the world "
            f"{len(std)} semantics: take the world that the data come from."
        )
    rows, number = data.rows, len(data.images)
    begin = np.repeat(data.starts, data.lengths)
    stacks = np.stack([np.maximum(np.arange(number) - k, begin) for k in range(frames)], axis=1)
    inside = np.maximum(rows, 0)
    return Table(
        images=jnp.asarray(data.images),
        stacks=jnp.asarray(stacks, jnp.int32),
        rows=jnp.asarray(inside, jnp.int32),
        lengths=jnp.asarray(data.lengths, jnp.int32),
        actions=jnp.asarray(data.actions[inside]),
        truth=jnp.asarray(data.truth[inside]),
        std=jnp.asarray(std, jnp.float32),
    )


def draw_key(run: Run, purpose: int) -> jax.Array:
    """A fresh key for each step and purpose."""
    return jax.random.fold_in(jax.random.fold_in(run.learner.key, run.learner.step), purpose)
