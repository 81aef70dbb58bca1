# SPDX-License-Identifier: Apache-2.0
"""Decoders of `jaxsafe.lm` as what is measured and corrected, and whether two fit together.

model, pair = models.of_decoder(config), tsdi.Pair(safe, reference)
ids = models.draws(key, pool, template, config)
state = models.estimate(ids, config, model, pair, key)
models.generate(lm.prepare(safe, config), prompts, options, key, tsdi.correction(table))
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.core.checks import UserError
from jaxsafe.lm import generate as lm_generate
from jaxsafe.lm import reference_cache
from jaxsafe.lm import tokenizer as tokens
from jaxsafe.lm.choosing import Generation
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.decoder import Decoder
from jaxsafe.lm.decoding import Prepared
from jaxsafe.lm.generate import Answers
from jaxsafe.tsdi import bias, decode
from jaxsafe.tsdi import pool as pools
from jaxsafe.tsdi.config import Config
from jaxsafe.tsdi.pool import Template
from jaxsafe.tsdi.table_file import Made
from jaxsafe.tsdi.types import Batch, Correction, Model, Pair, Params, State

_PROBES = ("a", "7 up", "Zo", "(x)")
_SAMPLE = "Two words, 1234; nai\u0308ve \u00e7a \u4e16\u754c \U0001f512\n\tend"


@functools.cache
def of_decoder(config: DecoderConfig) -> Model:
    """The two parts of a decoder; equal configs give the same functions, so jit knows them."""
    network = Decoder(config)

    def hidden(params: Params, ids: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.asarray(network.apply({"params": params}, ids, mask, method="hidden"))

    def head(params: Params, states: jax.Array) -> jax.Array:
        return jnp.asarray(network.apply({"params": params}, states, method="head"))

    return Model(hidden, head)


def fingerprint_tokenizer(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer's words, special ids, merges, and what it makes of a sample."""
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    ids = tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
    told = [words, sorted(tokenizer.all_special_ids), list(ids)]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        whole = json.loads(backend.to_str())
        told += [whole.get(name) for name in ("normalizer", "pre_tokenizer", "model")]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def check_alike(
    safe: DecoderConfig, reference: DecoderConfig, tokenizers: Sequence[Any] = ()
) -> None:
    """Raises `UserError` unless the two decoders share vocabulary, sizes and tokenizer."""
    if safe.vocab_size != reference.vocab_size:
        raise UserError(
            f"the safe model has {safe.vocab_size} tokens and the reference "
            f"{reference.vocab_size}: name the model that safety training started from."
        )
    for name in DecoderConfig.__dataclass_fields__:
        if name in ("remat", "scan_layers", "dtype", "param_dtype", "max_positions"):
            continue
        one, other = getattr(safe, name), getattr(reference, name)
        if one != other:
            raise UserError(
                f"the safe model has {name}={one!r} and the reference {other!r}: name the model "
                "that safety training started from."
            )
    if len({fingerprint_tokenizer(tokenizer) for tokenizer in tokenizers}) > 1:
        raise UserError(
            "the tokenizers of the two models differ: name folders with one tokenizer, as a table "
            "is made of token ids."
        )


def made(
    pair: Pair, tokenizer: Any, template: Template, config: Config, pool: str, seed: int
) -> Made:
    """What a table was made of, with fingerprints of everything it is bound to."""
    return Made(
        safe=reference_cache.fingerprint_tree(pair.safe),
        reference=reference_cache.fingerprint_tree(pair.reference),
        tokenizer=fingerprint_tokenizer(tokenizer),
        template=json.dumps([list(template.before), list(template.after)]),
        draws=config.draws,
        prompt_length=config.prompt_length,
        prefix=config.prefix,
        pool=pool,
        seed=seed,
    )


def template_of(tokenizer: Any, template: str = tokens.CHAT) -> Template:
    """The ids that a template puts around a user's words: what all of many prompts share."""
    count = len(tokenizer)
    # Words of its own, of all kinds: the last ones are the longest where tokens were merged.
    some = [*range(0, count, max(1, count // 40)), *range(max(0, count - 20), count)]
    own = (tokens.decode(tokenizer, [i]).strip() for i in some)
    texts = [*_PROBES, *(text for text in own if text.isalpha())]
    each = [tokens.encode_prompt(tokenizer, text, template) for text in texts]
    before = _shared(each)
    after = _shared([ids[len(before) :][::-1] for ids in each])[::-1]
    return Template(tuple(before), tuple(after))


def _shared(each: Sequence[Sequence[int]]) -> list[int]:
    """The longest common beginning."""
    found = []
    for column in zip(*each, strict=False):
        if len(set(column)) > 1:
            break
        found.append(column[0])
    return found


def draws(
    key: jax.Array,
    pool: np.ndarray,
    template: Template,
    config: Config,
    author: Prepared | None = None,
    stop_ids: Sequence[int] = (),
    pad_id: int = 0,
) -> np.ndarray:
    """All K random prompts with what stands for their answers, `[K / B, B, P + L]` int32.

    Args:
      key: consumed.
      pool: `[M]` ids to draw words from.
      template: around them.
      config: of the estimate.
      author: whose own answers follow, sampled at temperature 1 and without an end; None: random
        tokens of the pool. Which of the two models it is is `config.prefix`.
      stop_ids: tokens that end an answer, not sampled.
      pad_id: of the model, never seen.

    Raises:
      UserError: `config.prefix` names a model and there is no author.
    """
    if (config.prefix == "random") != (author is None):
        raise UserError(
            f"prefix={config.prefix!r} needs {config.prefix!r} answers: give an author."
        )
    length, words = config.positions, jnp.asarray(pool)
    own = Generation(
        max_new=max(length, 1),
        min_new=max(length, 1),
        temperature=1.0,
        stop_ids=tuple(stop_ids),
        pad_id=pad_id,
    )
    draw = jax.jit(lambda key: pools.batch(key, words, template, config).ids)
    found = []
    for i in range(config.draws // config.batch_size):
        ids = draw(jax.random.fold_in(key, 2 * i))
        if author is not None and length:
            prompts = np.asarray(ids[:, :-length])
            own_key = jax.random.fold_in(key, 2 * i + 1)
            width = (prompts.shape[1],)
            said = lm_generate.generate(author, prompts.tolist(), own, own_key, buckets=width)
            ids = pools.with_answers(jnp.asarray(prompts), said.tokens).ids
        found.append(np.asarray(ids, np.int32))
    return np.stack(found)


def chunk(
    state: State,
    first: jax.Array,
    length: int,
    ids: jax.Array,
    config: Config,
    model: Model,
    pair: Pair,
) -> tuple[State, bias.Metrics]:
    """Adds `length` batches of `ids` `[N, B, P + L]` from `first` on; metrics of the last."""

    def one(state: State, step: jax.Array) -> tuple[State, bias.Metrics]:
        row = ids[step]
        return bias.update(state, Batch(row, jnp.ones(row.shape, bool)), config, model, pair)

    state, traced = lax.scan(one, state, first + jnp.arange(length))
    return state, jax.tree.map(lambda x: x[-1], traced)


@functools.partial(jax.jit, static_argnames=("config", "model", "vocab_size"))
def _estimate(
    key: jax.Array, ids: jax.Array, config: Config, model: Model, pair: Pair, vocab_size: int
) -> State:
    state = bias.init(key, config, vocab_size)
    return chunk(state, jnp.int32(0), ids.shape[0], ids, config, model, pair)[0]


def estimate(
    ids: np.ndarray, config: Config, model: Model, pair: Pair, vocab_size: int, key: jax.Array
) -> State:
    """The moments of all draws `[N, B, P + L]`, in one program. `key` is consumed.

    Raises:
      UserError: a model's logits are not finite.
    """
    check_logits(ids[0, :2], config, model, pair)
    return _estimate(key, jnp.asarray(ids), config, model, pair, vocab_size)


def check_logits(ids: np.ndarray, config: Config, model: Model, pair: Pair) -> None:
    """Raises `UserError` where either model's logits of `ids` `[B, P + L]` are not finite."""

    rows = jnp.asarray(ids)

    def bad(params: Params) -> jax.Array:
        hidden = model.hidden(params, rows, jnp.ones(rows.shape, bool))
        return ~jnp.isfinite(model.head(params, hidden[:, -config.positions - 1 :])).all()

    for name, params in zip(("safe", "reference"), pair, strict=True):
        if bool(jax.jit(bad)(params)):
            raise UserError(
                f"the {name} model's logits are not finite on random prompts: check its weights, "
                "or compute in float32."
            )


def generate(
    model: Prepared,
    prompts: Sequence[Sequence[int]],
    options: Generation,
    key: jax.Array | None = None,
    correction: Correction | None = None,
    space: str = "logprob",
    **kwargs: Any,
) -> Answers:
    """`lm.generate` with a table at work; another table, alpha or length is no other program.

    Args:
      model: the safe one, prepared.
      prompts: ids of each, `B` of them.
      options: as for `lm.generate`; temperature, top-k and top-p act on corrected logits.
      key: consumed.
      correction: alpha may be one number or `[B]`; None decodes plainly.
      space: the table's.
      **kwargs: further arguments of `lm.generate`.

    Raises:
      UserError: the table is of another vocabulary, alpha of another number of prompts, or what
        `lm.generate` raises.
    """
    if correction is None:
        return lm_generate.generate(model, prompts, options, key, **kwargs)
    vocab = model.embed.shape[0]
    if correction.bias.shape[1] != vocab:
        raise UserError(
            f"the table has {correction.bias.shape[1]} tokens and the model {vocab}: estimate a "
            "table of this model."
        )
    if correction.alpha.ndim:
        if correction.alpha.shape != (len(prompts),):
            raise UserError(
                f"alpha has shape {correction.alpha.shape}: give one for each of the "
                f"{len(prompts)} prompts, or one for all."
            )
        correction = correction.replace(alpha=jnp.repeat(correction.alpha, options.samples))
    hook = decode.processor(space)
    return lm_generate.generate(
        model, prompts, options, key, processor=hook, extra=correction, **kwargs
    )
