# SPDX-License-Identifier: Apache-2.0
"""The learner: an autoencoder that is trained first and frozen, and predictors on its latents.

`update` keeps the contract of every system: a step of both. Runs take `vae_update` until the
autoencoder is done and `heads_update` from then on, as the paper does (algorithm 1).
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxsafe.image_to_semantics import losses, networks
from jaxsafe.image_to_semantics.config import Config
from jaxsafe.image_to_semantics.types import Batch, Latents, Metrics, Pairs, Params, Range, State


def init(key: jax.Array, config: Config, range_: Range, predictors: int = 1) -> State:
    """Returns a fresh learner. `key` is consumed.

    Args:
      key: typed PRNG key.
      config: static.
      range_: of the source buffer's semantics, `networks.make_range`.
      predictors: V, trained side by side on one frozen encoder.
    """
    vae_key, heads_key, key = jax.random.split(key, 3)
    vae = networks.init_vae(vae_key, config)
    heads = networks.init_heads(heads_key, config, len(range_.low), predictors)
    return State(
        vae=vae,
        vae_opt=optax.adam(config.vae_lr).init(vae),
        heads=heads,
        heads_opt=optax.adam(config.head_lr).init(heads),
        # Copies, so that a caller may donate the state.
        range=jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), range_),
        step=jnp.int32(0),
        key=key,
    )


def vae_update(state: State, images: jax.Array, config: Config) -> tuple[State, Metrics]:
    """One step of the autoencoder on `images` `[B, F, 64, 64, 3]` uint8."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 0)
    grads, metrics = jax.grad(losses.vae_loss, has_aux=True)(state.vae, images, key, config)
    # Else XLA merges sums of gradients into Adam's, and rounds them by the program they are in.
    grads = lax.optimization_barrier(grads)
    updates, opt = optax.adam(config.vae_lr).update(grads, state.vae_opt, state.vae)
    vae = optax.apply_updates(state.vae, updates)
    return state.replace(vae=vae, vae_opt=opt, step=state.step + 1), metrics


def heads_update(state: State, pairs: Pairs, config: Config) -> tuple[State, Metrics]:
    """One step of the V predictors; the encoder stays as it is."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)
    grads, metrics = jax.grad(losses.heads_loss, has_aux=True)(
        state.heads, state.range, pairs, key, config
    )
    updates, opt = optax.adam(config.head_lr).update(grads, state.heads_opt, state.heads)
    heads = optax.apply_updates(state.heads, updates)
    return state.replace(heads=heads, heads_opt=opt, step=state.step + 1), metrics


def update(state: State, batch: Batch, config: Config) -> tuple[State, Metrics]:
    """One step of the autoencoder and one of the predictors.

    Returns:
      the next learner, and scalars: `vae/loss`, `vae/reconstruction`, `vae/kl`, `heads/loss` and
      `heads/worst_loss` (mean and largest over the V predictors).
    """
    state, first = vae_update(state, batch.images, config)
    state, second = heads_update(state, batch.pairs, config)
    return state, first | second


def encode_rows(
    params: Params, config: Config, images: jax.Array, stacks: jax.Array, block: int = 250
) -> Latents:
    """Encodes a whole data set once: `[N, F * latent]`.

    Args:
      params: of the autoencoder.
      config: static.
      images: `[N, 64, 64, 3]` uint8.
      stacks: `[N, F]` int32, the rows of images that each row's stack is made of, newest first.
      block: rows encoded at a time.
    """
    number = len(images)
    rows = jnp.arange(-(-number // block) * block).reshape(-1, block) % number
    if config.encoders == "shared":
        # A frame's code does not depend on its place, so each is computed once.
        codes = lax.map(lambda r: networks.encode(params, config, images[r][:, None]), rows)
        flat = [code.reshape(-1, config.latent)[:number] for code in codes]
        return Latents(*(code[stacks].reshape(number, -1) for code in flat))
    codes = lax.map(lambda r: networks.encode(params, config, images[stacks[r]]), rows)
    return Latents(*(code.reshape(-1, config.encoded)[:number] for code in codes))
