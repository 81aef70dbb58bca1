# SPDX-License-Identifier: Apache-2.0
"""The autoencoder and the predictors, as pure functions of parameters (authors' model.py).

Images are `[..., 64, 64, 3]`; inside of the networks they are float32 in [0, 1].
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsafe.core.checks import UserError
from jaxsafe.image_to_semantics.config import SIDE, Config
from jaxsafe.image_to_semantics.modules import (
    Encoder,
    Heads,
    PointEncoder,
    SubpixelDecoder,
    TransposedDecoder,
)
from jaxsafe.image_to_semantics.types import Latents, Params, Range


def _parts(config: Config) -> tuple[Any, Any, int]:
    """Encoder and decoder, and how many of each there are side by side."""
    joined = config.frames if config.encoders == "joint" else 1
    channels = 3 * joined
    decoder = (
        SubpixelDecoder(config.decoder_widths, channels)
        if config.decoder == "subpixel"
        else TransposedDecoder(channels)
    )
    copies = config.frames if config.encoders == "separate" else 1
    latent = config.latent * joined
    if config.encoder == "dense":
        return Encoder(config.widths, latent), decoder, copies
    return PointEncoder(config.widths, latent, config.points * joined), decoder, copies


def init_vae(key: jax.Array, config: Config) -> Params:
    """Returns parameters `{"encoder", "decoder"}`, leaves `[copies, ...]`; `key` is consumed."""
    encoder, decoder, copies = _parts(config)
    channels = 3 * config.frames if config.encoders == "joint" else 3

    def one(key: jax.Array) -> Params:
        first, second = jax.random.split(key)
        return {
            "encoder": encoder.init(first, jnp.zeros((1, SIDE, SIDE, channels))),
            "decoder": decoder.init(second, jnp.zeros((1, encoder.latent))),
        }

    return jax.vmap(one)(jax.random.split(key, copies))


def _check_images(images: jax.Array) -> None:
    if images.ndim != 5 or images.shape[2:] != (SIDE, SIDE, 3) or images.dtype != jnp.uint8:
        raise UserError(
            f"images of type {images.dtype} and shape {images.shape}: give uint8 "
            f"[B, frames, {SIDE}, {SIDE}, 3]."
        )


def pixels(images: jax.Array) -> jax.Array:
    """Images as float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def _to_groups(x: jax.Array, config: Config, copies: int) -> jax.Array:
    """Lays `[B, F, 64, 64, 3]` out as `[copies, rows, 64, 64, channels]`."""
    if config.encoders == "joint":
        joined = jnp.moveaxis(x, 1, 3)
        return joined.reshape(1, *joined.shape[:3], -1)
    if copies > 1:
        return jnp.swapaxes(x, 0, 1)
    return x.reshape(1, -1, *x.shape[2:])


def _each(apply: Callable[..., Any], params: Params, x: jax.Array) -> Any:
    """Applies each copy to its own part of `x` `[copies, rows, ...]`.

    One after the other, as a mapped convolution is a grouped one, slow on CPUs.
    """
    copies = [apply(jax.tree.map(lambda p, i=i: p[i], params), x[i]) for i in range(len(x))]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *copies)


def encode(params: Params, config: Config, images: jax.Array) -> Latents:
    """Encodes stacks of images.

    Args:
      params: from `init_vae`.
      config: static.
      images: `[B, F, 64, 64, 3]` uint8; with a shared encoder F may be any number.

    Returns:
      `[B, F * latent]` each; with "shared" and "separate" encoders frame f has its own part.

    Raises:
      UserError: images of another size or type.
    """
    _check_images(images)
    encoder, _, copies = _parts(config)
    groups = _to_groups(pixels(images), config, copies)
    codes = _each(encoder.apply, params["encoder"], groups)
    batch = len(images)

    def merged(code: jax.Array) -> jax.Array:
        if copies > 1:
            code = jnp.swapaxes(code, 0, 1)
        return code.reshape(batch, -1)

    return jax.tree.map(merged, codes)


def decode(params: Params, config: Config, z: jax.Array) -> jax.Array:
    """Decodes `z` `[B, F * latent]` to images in [0, 1], `[B, F, 64, 64, 3]`."""
    _, decoder, copies = _parts(config)
    batch = len(z)
    if config.encoders == "joint":
        codes = z[None]
    else:
        codes = z.reshape(batch, -1, config.latent)
        codes = jnp.swapaxes(codes, 0, 1) if copies > 1 else codes.reshape(1, -1, config.latent)
    groups = nn.sigmoid(_each(decoder.apply, params["decoder"], codes))
    if config.encoders == "joint":
        shaped = groups[0].reshape(batch, SIDE, SIDE, config.frames, 3)
        return jnp.moveaxis(shaped, 3, 1)
    if copies > 1:
        return jnp.swapaxes(groups, 0, 1)
    return groups[0].reshape(batch, -1, SIDE, SIDE, 3)


def init_heads(key: jax.Array, config: Config, size: int, number: int) -> Params:
    """Returns parameters of `number` predictors, leaves `[V, ...]`; `key` is consumed."""
    heads = Heads(config.head_width, size)
    blank = jnp.zeros((1, config.encoded))
    return jax.vmap(lambda k: heads.init(k, blank))(jax.random.split(key, number))


def predict(params: Params, config: Config, range_: Range, z: jax.Array) -> jax.Array:
    """One predictor's semantics `[B, S]` in their own units, of latents `z` `[B, Z]`."""
    return raw(range_, normalised_prediction(params, config, len(range_.low), z))


def normalised_prediction(params: Params, config: Config, size: int, z: jax.Array) -> jax.Array:
    """One predictor's output, normalised semantics `[B, S]`."""
    return jnp.asarray(Heads(config.head_width, size).apply(params, z))


def sample(key: jax.Array, latents: Latents) -> jax.Array:
    """Draws from the posterior, `[..., Z]`; `key` is consumed."""
    noise = jax.random.normal(key, latents.mean.shape)
    return latents.mean + jnp.exp(0.5 * latents.logvar) * noise


def make_range(semantics: jax.Array, margin: str = "relative") -> Range:
    """Returns the range of a source buffer `[..., S]` (authors' util.py).

    Args:
      semantics: as many rows as there are.
      margin: "absolute" adds 0.01 as published, so that units matter; "relative" adds 1e-6 of the
        largest range, which only keeps constants from dividing by 0.
    """
    flat = semantics.reshape(-1, semantics.shape[-1])
    low, width = flat.min(0), flat.max(0) - flat.min(0)
    return Range(low, width + (0.01 if margin == "absolute" else 1e-6 * width.max() + 1e-12))


def normalised(range_: Range, semantics: jax.Array) -> jax.Array:
    """(s - low) / width of semantics `[..., S]`."""
    return (semantics - range_.low) / range_.width


def raw(range_: Range, normal: jax.Array) -> jax.Array:
    """`normalised` the other way, of `[..., S]`."""
    return normal * range_.width + range_.low
