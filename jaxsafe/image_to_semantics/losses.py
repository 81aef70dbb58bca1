# SPDX-License-Identifier: Apache-2.0
"""The two losses: of the autoencoder and of the predictors."""

import jax
import jax.numpy as jnp

from jaxsafe.image_to_semantics import networks
from jaxsafe.image_to_semantics.config import Config
from jaxsafe.image_to_semantics.types import Latents, Metrics, Pairs, Params, Range


def divergence(latents: Latents) -> jax.Array:
    """KL(N(m, e^v), N(0, 1)) = (m^2 + e^v - v - 1) / 2, summed: `[..., Z]` to `[...]`."""
    mean, logvar = latents
    return 0.5 * (mean**2 + jnp.exp(logvar) - logvar - 1).sum(-1)


def reconstruction(images: jax.Array, decoded: jax.Array, colour_weight: float = 0) -> jax.Array:
    """Squared errors, summed over pixels, channels and frames, `[B]`; both `[B, F, H, W, 3]`.

    A pixel weighs 1 + colour_weight (max - min over its channels): 1 where it is grey. Published is
    0, which on few steps leaves small things unseen.
    """
    errors = ((images - decoded) ** 2).sum(-1)
    if colour_weight:
        errors *= 1 + colour_weight * (images.max(-1) - images.min(-1))
    return errors.sum((1, 2, 3))


def vae_loss(
    params: Params, images: jax.Array, key: jax.Array, config: Config
) -> tuple[jax.Array, Metrics]:
    """L = 50 sum w (x - x')^2 + KL, averaged over the batch (section 3 of the page; model.py).

    Args:
      params: of encoder and decoder.
      images: `[B, F, 64, 64, 3]` uint8.
      key: of the posterior's draw; consumed.
      config: static.
    """
    latents = networks.encode(params, config, images)
    decoded = networks.decode(params, config, networks.sample(key, latents))
    errors = reconstruction(networks.pixels(images), decoded, config.colour_weight).mean()
    kl = divergence(latents).mean()
    loss = config.reconstruction_weight * errors + config.kl_weight * kl
    return loss, {"vae/loss": loss, "vae/reconstruction": errors, "vae/kl": kl}


def heads_loss(
    heads: Params, range_: Range, pairs: Pairs, key: jax.Array, config: Config
) -> tuple[jax.Array, Metrics]:
    """Mean squared error of normalised semantics over batch and dimensions, summed over predictors.

    The paper's is a sum over dimensions, S times as much. Latents get noise, or are sampled as
    published, so that few labels are not learned by heart. `key` is consumed.

    Args:
      heads: parameters, leaves `[V, ...]`.
      range_: of semantics.
      pairs: `[V, B, ...]`.
      key: typed PRNG key.
      config: static.
    """
    if config.sample_latents:
        z = networks.sample(key, pairs.latents)
    else:
        z = pairs.latents.mean
        noise = jax.random.normal(key, z.shape)
        z += config.latent_noise * z.std(1, keepdims=True) * noise
    wanted = networks.normalised(range_, pairs.semantics)
    predict = lambda p, x: networks.normalised_prediction(p, config, wanted.shape[-1], x)  # noqa: E731
    errors = ((jax.vmap(predict)(heads, z) - wanted) ** 2).mean((1, 2))
    return errors.sum(), {"heads/loss": errors.mean(), "heads/worst_loss": errors.max()}
