# SPDX-License-Identifier: Apache-2.0
"""The context-free difference of two models at the first positions of an answer.

For random prompts x and answers y, `d_i(v) = log pi_safe(v | x, y_<i) - log pi_ref(v | x, y_<i)`;
the bias is its mean over K draws (arXiv 2502.02153, our reconstruction of its equation 7).

Where `pi_safe = pi_ref exp(b_i(v)) / Z_i(x)` with b free of context, d is b but for a constant per
row, so one draw is enough and taking b off gives pi_ref exactly. Differences of logits less their
mean are the same d less another constant per row, and so decode alike; those of probabilities
depend on pi_ref, and taking them off is exact in one context only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.tsdi.config import Config
from jaxsafe.tsdi.types import Batch, Model, Pair, State, Table

Metrics = dict[str, jax.Array]


def init(key: jax.Array, config: Config, vocab_size: int) -> State:
    """The moments of no draw. `key` is kept; it decides which half a draw belongs to."""
    shape = (config.positions, vocab_size)
    return State(
        key=key,
        count=jnp.float32(0),
        mean=jnp.zeros(shape),
        squares=jnp.zeros(shape),
        reference=jnp.zeros(shape),
        halves=jnp.zeros((2, *shape)),
        half_counts=jnp.zeros(2),
        divergence=jnp.zeros(config.positions),
    )


def difference(safe: jax.Array, reference: jax.Array, space: str) -> jax.Array:
    """d `[..., V]` of logits `[..., V]`, in a space of `SPACES`."""
    if space == "centred_logit":
        centred = [x - x.mean(-1, keepdims=True) for x in (safe, reference)]
        return centred[0] - centred[1]
    if space == "prob":
        return jax.nn.softmax(safe) - jax.nn.softmax(reference)
    return jax.nn.log_softmax(safe) - jax.nn.log_softmax(reference)


def update(
    state: State, batch: Batch, config: Config, model: Model, pair: Pair
) -> tuple[State, Metrics]:
    """Adds B draws to the moments.

    One pass of each model gives what the head reads at every position; logits are then made for
    one position at a time, `[B, V]`, so that `[K, L, V]` never exists.

    Args:
      state: moments so far.
      batch: prompts and answers, `[B, P + L]`.
      config: static.
      model: static, of both.
      pair: parameters.

    Returns:
      the moments, and `bias/mean_abs`, `bias/error` (largest standard error), `bias/divergence`
      (nats at the first position) and `bias/split_half` (mean correlation of two halves).
    """
    length = config.positions
    key, side = _sides(state.key, batch.ids.shape[0])
    first = batch.ids.shape[1] - length - 1  # the prompt's last token predicts the answer's first

    def read(params):
        # The last token predicts nothing that is wanted.
        hidden = model.hidden(params, batch.ids[:, :-1], batch.mask[:, :-1])
        return jnp.moveaxis(hidden[:, first:], 1, 0)

    def position(_, hidden):
        safe, reference = (
            model.head(params, h).astype(jnp.float32)
            for params, h in zip(pair, hidden, strict=True)
        )
        d = difference(safe, reference, config.space)
        mean = d.mean(0)
        logs = jax.nn.log_softmax(safe), jax.nn.log_softmax(reference)
        divergence = (jnp.exp(logs[0]) * (logs[0] - logs[1])).sum(-1).mean()
        return None, _Part(
            mean, ((d - mean) ** 2).sum(0), jnp.exp(logs[1]).mean(0), side @ d, divergence
        )

    pairs = (read(pair.safe), read(pair.reference))
    part = lax.scan(position, None, pairs)[1]
    state = _merged(state.replace(key=key), side.sum(1), part)
    zero = jnp.float32(0)
    found = table(state, config)
    return state, {
        "bias/mean_abs": jnp.abs(found.bias).mean() if length else zero,
        "bias/error": found.error.max() if length else zero,
        "bias/divergence": state.divergence[0] if length else zero,
        "bias/split_half": split_half(state, config).mean() if length else zero,
    }


class _Part(NamedTuple):
    """Moments of one batch."""

    mean: jax.Array  # [L, V]
    squares: jax.Array  # [L, V]
    reference: jax.Array  # [L, V]
    sides: jax.Array  # [L, 2, V] sums over either half
    divergence: jax.Array  # [L]


def _sides(key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """A new key, and `[2, B]` of 0 and 1: B draws into halves by chance, an odd one by a coin."""
    key, key_order, key_coin = jax.random.split(key, 3)
    place = jax.random.permutation(key_order, size) + jax.random.randint(key_coin, (), 0, 2)
    return key, jax.nn.one_hot(place % 2, 2, axis=0)


def _merged(state: State, sizes: jax.Array, part: _Part) -> State:
    """Joins the moments of two sets of draws (Chan, Golub and LeVeque 1979)."""
    size = sizes.sum()
    count = state.count + size
    share = size / count
    away = part.mean - state.mean
    half_counts = state.half_counts + sizes
    new = jnp.moveaxis(part.sides, 1, 0) - sizes[:, None, None] * state.halves
    return state.replace(
        count=count,
        mean=state.mean + share * away,
        squares=state.squares + part.squares + away**2 * state.count * share,
        reference=state.reference + share * (part.reference - state.reference),
        halves=state.halves + new / jnp.maximum(half_counts, 1)[:, None, None],
        half_counts=half_counts,
        divergence=state.divergence + share * (part.divergence - state.divergence),
    )


def table(state: State, config: Config) -> Table:
    """The bias of the draws so far, centred, shrunk where asked for.

    Centring changes no decoded token; it makes tables comparable. Differences of probabilities sum
    to 0 already.
    """
    bias = centred(state.mean, state.reference, config.space)
    variance = state.squares / jnp.maximum(state.count - 1, 1)
    error = jnp.sqrt(variance / jnp.maximum(state.count, 1))
    if config.shrinkage:
        reach = config.shrinkage * error
        bias = jnp.sign(bias) * jnp.maximum(jnp.abs(bias) - reach, 0)
    return Table(bias, error, config.space)


def centred(bias: jax.Array, reference: jax.Array, space: str) -> jax.Array:
    """`bias` `[L, V]` less its mean under the reference's probabilities `[L, V]`, row by row."""
    if space == "prob":
        return bias
    return bias - (reference * bias).sum(-1, keepdims=True)


def split_half(state: State, config: Config) -> jax.Array:
    """Correlation `[L]` over tokens between the biases of two halves of the draws."""
    one, two = (centred(half, state.reference, config.space) for half in state.halves)
    one, two = (x - x.mean(-1, keepdims=True) for x in (one, two))
    norms = jnp.sqrt((one**2).sum(-1) * (two**2).sum(-1))
    return (one * two).sum(-1) / jnp.maximum(norms, 1e-30)
