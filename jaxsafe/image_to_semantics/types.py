# SPDX-License-Identifier: Apache-2.0
"""What passes between the parts. B rows of a batch, F frames, V predictors, Z latents, S semantics.

Z is `frames * latent`.
"""

from typing import Any, NamedTuple

import jax
from flax import struct

Params = Any
Metrics = dict[str, jax.Array]


class Latents(NamedTuple):
    """What the encoder says of images.

    Attributes:
      mean: `[..., Z]`.
      logvar: `[..., Z]`, logarithm of the variance.
    """

    mean: jax.Array
    logvar: jax.Array


class Pairs(NamedTuple):
    """Minibatches of labelled images, one for each predictor.

    Attributes:
      latents: `[V, B, Z]`.
      semantics: `[V, B, S]` in their own units.
    """

    latents: Latents
    semantics: jax.Array


class Batch(NamedTuple):
    """What one `update` learns from.

    Attributes:
      images: `[B, F, H, W, 3]` uint8, for the autoencoder; F is 1 with a shared encoder.
      pairs: for the predictors.
    """

    images: jax.Array
    pairs: Pairs


class Range(struct.PyTreeNode):
    """By what semantics are normalised: the source buffer's.

    Attributes:
      low: `[S]`, each dimension's minimum.
      width: `[S]`, maximum minus minimum, and a margin.
    """

    low: jax.Array
    width: jax.Array


class State(struct.PyTreeNode):
    """A learner.

    Attributes:
      vae: parameters of the autoencoder.
      vae_opt: of its optimizer.
      heads: parameters of V predictors, leaves `[V, ...]`.
      heads_opt: of their optimizer.
      range: of semantics.
      step: updates of either, `[]` int32.
      key: typed PRNG key, folded with `step`.
    """

    vae: Params
    vae_opt: Any
    heads: Params
    heads_opt: Any
    range: Range
    step: jax.Array
    key: jax.Array
