# SPDX-License-Identifier: Apache-2.0
"""Layers of the autoencoder and of the predictors (authors' model.py, and what is ours).

Images are `[B, 64, 64, C]` float32 in [0, 1].
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsafe.image_to_semantics.types import Latents
from jaxsafe.nn.conv import conv2d
from jaxsafe.nn.conv_transpose import conv_transpose2d

_ENCODER_STRIDES = (2, 2, 1, 2, 1, 2)  # sides 64, 31, 15, 13, 6, 4, 1
_DECODER_STRIDES = (1, 2, 1, 2, 1, 2)  # sides 1, 4, 10, 13, 28, 31, 64
_DECODER_WIDTHS = (64, 32, 32, 32, 16)
_BLOCK = 8  # images whose gradients are summed at a time: what a cache holds
_INIT = nn.initializers.lecun_normal()


class _Conv(nn.Module):
    features: int
    size: int = 3
    stride: int = 1
    padding: str = "VALID"
    transposed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, k = x.shape[-1], self.size
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        if self.transposed:
            # Drawn by the channels that come in, which are the kernel's last here.
            init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=3, out_axis=2)
            kernel = self.param("kernel", init, (k, k, self.features, channels))
            return conv_transpose2d(x, kernel, self.stride, _BLOCK) + bias
        kernel = self.param("kernel", _INIT, (k, k, channels, self.features))
        return conv2d(x, kernel, self.stride, self.padding, block=_BLOCK) + bias


class Encoder(nn.Module):
    """Six 3x3 convolutions without padding, and linear mean and log variance.

    Attributes:
      widths: channels of the convolutions.
      latent: size of the code.
    """

    widths: Sequence[int]
    latent: int

    @nn.compact
    def __call__(self, x: jax.Array) -> Latents:
        """Encodes `x` `[B, 64, 64, C]` to `[B, latent]` twice."""
        for width, stride in zip(self.widths, _ENCODER_STRIDES, strict=True):
            x = nn.relu(_Conv(width, stride=stride)(x))
        x = x.reshape(len(x), -1)
        return Latents(nn.Dense(self.latent)(x), nn.Dense(self.latent)(x))


class PointEncoder(nn.Module):
    """The first three of these convolutions, then places, then linear mean and log variance.

    A channel's place is the mean of the pixels' places under a softmax of the channel over the
    image (deep spatial autoencoders, Finn et al., arXiv 1509.06113), so that where something is
    stands in the code from the start; the mean strengths of the third stand beside them.

    Attributes:
      widths: channels of the convolutions, of which three are used.
      latent: size of the code.
      points: channels whose places are taken.
    """

    widths: Sequence[int]
    latent: int
    points: int

    @nn.compact
    def __call__(self, x: jax.Array) -> Latents:
        """Encodes `x` `[B, 64, 64, C]` to `[B, latent]` twice."""
        for width, stride in zip(self.widths[:3], _ENCODER_STRIDES[:3], strict=True):
            x = nn.relu(_Conv(width, stride=stride)(x))
        maps = _Conv(self.points, size=1)(x)
        sharp = self.param("sharpness", nn.initializers.constant(10.0), (self.points,))
        found = places(sharp * maps).reshape(len(x), -1)
        strengths = x.mean((1, 2))
        x = jnp.concatenate([2 * found, strengths], axis=-1)
        return Latents(nn.Dense(self.latent)(x), nn.Dense(self.latent)(x))


def places(maps: jax.Array) -> jax.Array:
    """Mean place of each channel under its softmax over the image.

    Args:
      maps: `[B, H, W, K]`.

    Returns:
      `[B, K, 2]`, down and across, from -1 to 1 between the middles of the outermost pixels.
    """
    batch, height, width, channels = maps.shape
    share = nn.softmax(maps.reshape(batch, -1, channels), axis=1)
    down, across = (jnp.linspace(-1.0, 1.0, n) for n in (height, width))
    where = jnp.stack(jnp.meshgrid(down, across, indexing="ij"), axis=-1).reshape(-1, 2)
    return jnp.einsum("bnk,nd->bkd", share, where)


class TransposedDecoder(nn.Module):
    """The published one: six 4x4 transposed convolutions to logits `[B, 64, 64, channels]`."""

    channels: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Decodes `z` `[B, latent]`."""
        x = z[:, None, None]
        for width, stride in zip(_DECODER_WIDTHS, _DECODER_STRIDES[:-1], strict=True):
            x = nn.relu(_Conv(width, size=4, stride=stride, transposed=True)(x))
        return _Conv(self.channels, size=4, stride=_DECODER_STRIDES[-1], transposed=True)(x)


class SubpixelDecoder(nn.Module):
    """A linear 4x4 map, then 3x3 convolutions whose channels become 2x2 pixels, to logits.

    Attributes:
      widths: channels at sides 4, 8, 16 and 32.
      channels: of the image.
    """

    widths: Sequence[int]
    channels: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Decodes `z` `[B, latent]`."""
        first, *later = self.widths
        x = nn.relu(nn.Dense(16 * first)(z)).reshape(len(z), 4, 4, first)
        for width in later:
            x = nn.relu(_grown(_Conv(4 * width, padding="SAME")(x)))
        return _grown(_Conv(4 * self.channels, padding="SAME")(x))


def _grown(x: jax.Array) -> jax.Array:
    """Lays channels out as 2x2 pixels: `[B, H, W, 4C]` to `[B, 2H, 2W, C]`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)


class Heads(nn.Module):
    """One perceptron per dimension of semantics, on a shared first layer; linear at the end.

    Attributes:
      width: of the hidden layers.
      size: S.
    """

    width: int
    size: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Maps latents `[B, Z]` to normalised semantics `[B, S]`."""
        x = nn.relu(nn.Dense(self.width * self.size)(z)).reshape(-1, self.size, self.width)
        x = x.swapaxes(0, 1)  # so that all layers are products of stacked matrices as they lie
        init = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=(0,))
        for layer, out in enumerate((self.width, self.width, 1)):
            shape = (self.size, self.width, out)
            kernel = self.param(f"kernel_{layer}", init, shape)
            bias = self.param(f"bias_{layer}", nn.initializers.zeros_init(), (self.size, out))
            x = x @ kernel + bias[:, None]
            x = nn.relu(x) if layer < 2 else x
        return x[..., 0].T
