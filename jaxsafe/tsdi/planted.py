# SPDX-License-Identifier: Apache-2.0
"""A decoder with a bias planted on it: everything that an estimate should find is known.

pi_safe(v | x, y_<i) = pi_ref(v | x, y_<i) exp(w(x) b_i(v) + n(v | x, y_<i)) / Z, on a decoder of
random weights. w is 1, or 1 for prompts with a hot token only: a bias that depends on the context.
n is noise that a context decides, of mean 0 over contexts and known variance.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe import lm
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.tsdi import bias, decode, models
from jaxsafe.tsdi.config import Config
from jaxsafe.tsdi.types import Model, Pair, Params, Table, correction

_CONTEXTS = 64  # different draws of the noise


class Planted(NamedTuple):
    """A safe model and its reference.

    `pair`'s parameters are `{"model", "bias" [L, V], "noise" [C, V], "hot" [V], "first" []}`.
    """

    model: Model
    pair: Pair
    bias: np.ndarray  # [L, V]


@functools.cache
def model_of(config: DecoderConfig, positions: int) -> Model:
    """The decoder with what is planted on its logits.

    The hidden state carries, beside the decoder's, the position of the answer `[L]` times w, and
    the number of the noise's draw `[C]`, one-hot.
    """
    inner = models.of_decoder(config)

    def hidden(params: Params, ids: jax.Array, mask: jax.Array) -> jax.Array:
        states = inner.hidden(params["model"], ids, mask)
        place = jnp.arange(ids.shape[1]) - params["first"]
        at = jax.nn.one_hot(place, positions)  # none beyond the last
        prompt = (place <= 0) & params["hot"][ids]
        tilted = at * prompt.any(1)[:, None, None]
        drawn = jax.nn.one_hot(jnp.cumsum(ids, 1) % _CONTEXTS, _CONTEXTS)
        return jnp.concatenate([states, tilted, drawn], -1)

    def head(params: Params, states: jax.Array) -> jax.Array:
        own, at, drawn = jnp.split(
            states, [config.hidden_size, config.hidden_size + positions], axis=-1
        )
        return inner.head(params["model"], own) + at @ params["bias"] + drawn @ params["noise"]

    return Model(hidden, head)


def make(
    key: jax.Array,
    config: DecoderConfig,
    positions: int,
    prompt_slots: int,
    scale: float = 1.0,
    noise: float = 0.0,
    hot: np.ndarray | None = None,
) -> Planted:
    """Draws a decoder and what is planted on it. `key` is consumed.

    Args:
      key: of everything.
      config: of the decoder; its weights are made larger than usual, so that contexts differ.
      positions: L.
      prompt_slots: P, tokens of a prompt with its template.
      scale: standard deviation of the planted bias.
      noise: standard deviation of the noise.
      hot: `[V]` bool, tokens of which a prompt must have one for the bias to be there; None: it is
        there always.
    """
    keys = jax.random.split(key, 3)
    weights = jax.tree.map(lambda x: 4 * x, lm.init(keys[0], config))
    vocab = config.vocab_size
    tilt = scale * jax.random.normal(keys[1], (positions, vocab))
    drawn = jax.random.normal(keys[2], (_CONTEXTS, vocab))
    drawn = noise * (drawn - drawn.mean(0)) / np.sqrt(1 - 1 / _CONTEXTS)
    common = {
        "model": weights,
        "hot": jnp.ones(vocab, bool) if hot is None else jnp.asarray(hot),
        "first": jnp.int32(prompt_slots - 1),
    }
    safe = common | {"bias": tilt, "noise": drawn}
    reference = common | {"bias": jnp.zeros_like(tilt), "noise": jnp.zeros_like(drawn)}
    model = model_of(config, positions)
    return Planted(model, Pair(safe, reference), np.asarray(tilt))


def rmse(found: Table, planted: Planted, reference: jax.Array) -> float:
    """Root mean square over `[L, V]` of a table less the planted bias, both centred alike."""
    truth = bias.centred(jnp.asarray(planted.bias), reference, "logprob")
    return float(jnp.sqrt(((found.bias - truth) ** 2).mean()))


def distances(
    planted: Planted,
    table: Table,
    ids: np.ndarray,
    config: Config,
    alpha: float | jax.Array = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Total variation `[B]` from the reference, mean over positions, before and after.

    Args:
      planted: the models.
      table: to take off.
      ids: `[B, P + L]` prompts and answers.
      config: of the estimate.
      alpha: `[]` or `[B]`.
    """
    safe, reference = (_logits(planted, params, ids, config) for params in planted.pair)
    at_work = correction(table, 1.0).replace(alpha=jnp.asarray(alpha, jnp.float32))
    law = jax.nn.softmax(reference)

    def away(logits: jax.Array) -> np.ndarray:
        return np.asarray(0.5 * jnp.abs(jax.nn.softmax(logits) - law).sum(-1).mean(1))

    steps = range(config.positions)
    corrected = [decode.correct(safe[:, i], jnp.int32(i), at_work, table.space) for i in steps]
    return away(safe), away(jnp.stack(corrected, 1))


def clipped(planted: Planted, table: Table, ids: np.ndarray, config: Config) -> float:
    """Probability that taking off a table of probabilities clips at 0, mean over `distances`' rows.

    Args:
      planted: the models.
      table: of space `prob`.
      ids: `[B, P + L]` prompts and answers.
      config: of the estimate.
    """
    safe, at_work = _logits(planted, planted.pair.safe, ids, config), correction(table, 1.0)
    each = [decode.clipped_mass(safe[:, i], jnp.int32(i), at_work) for i in range(config.positions)]
    return float(jnp.stack(each).mean())


def _logits(planted: Planted, params: Params, ids: np.ndarray, config: Config) -> jax.Array:
    """Of the answers' tokens, `[B, L, V]`."""
    first, model = ids.shape[1] - config.positions - 1, planted.model
    rows, mask = jnp.asarray(ids), jnp.ones(ids.shape, bool)
    return jax.jit(lambda p: model.head(p, model.hidden(p, rows, mask)[:, first:-1]))(params)
