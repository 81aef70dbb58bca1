# SPDX-License-Identifier: Apache-2.0
"""Where random tokens come from, and random prompts made of them.

Ids are drawn, never text: text made of random tokens would be cut into other tokens.
"""

import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.tsdi.config import Config
from jaxsafe.tsdi.types import Batch


class Template(NamedTuple):
    """Ids around a user's words, such as a chat template's; either may be empty."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def vocabulary(vocab_size: int, special: Collection[int]) -> np.ndarray:
    """Every id `[M]` but the special ones."""
    return checked(np.arange(vocab_size), vocab_size, special, "the vocabulary")


def of_texts(
    texts: Sequence[str],
    encode: Callable[[str], Sequence[int]],
    vocab_size: int,
    special: Collection[int],
    source: str = "the texts",
) -> np.ndarray:
    """The tokens `[M]` of words or texts, as often as they stand there, but the special ones."""
    ids = [np.asarray(encode(text), int).reshape(-1) for text in texts]
    return checked(np.concatenate([np.zeros(0, int), *ids]), vocab_size, special, source)


def of_file(
    path: str | pathlib.Path,
    encode: Callable[[str], Sequence[int]],
    vocab_size: int,
    special: Collection[int],
) -> np.ndarray:
    """The tokens `[M]` of a text file.

    Raises:
      UserError: the file cannot be read, is not UTF-8, or has no token that may be drawn.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}. Name a text file in UTF-8.") from None
    return of_texts([text], encode, vocab_size, special, str(path))


def checked(ids: np.ndarray, vocab_size: int, special: Collection[int], source: str) -> np.ndarray:
    """`ids` without special ones; `UserError` where none is left or one is no token."""
    wrong = ids[(ids < 0) | (ids >= vocab_size)]
    if wrong.size:
        raise UserError(f"{source}: id {wrong[0]} is outside of the {vocab_size} tokens there are.")
    ids = ids[~np.isin(ids, list(special))]
    if not ids.size:
        raise UserError(f"{source} holds no token to draw: name a pool with words in it.")
    return ids.astype(np.int32)


def prompts(key: jax.Array, pool: jax.Array, template: Template, config: Config) -> jax.Array:
    """Random prompts `[B, P]`, the template around n tokens of the pool; `key` is consumed."""
    words = jax.random.choice(key, pool, (config.batch_size, config.prompt_length))
    sides = [jnp.asarray(side, jnp.int32).reshape(1, -1) for side in template]
    before, after = (jnp.repeat(side, config.batch_size, 0) for side in sides)
    return jnp.concatenate([before, words, after], 1)


def batch(key: jax.Array, pool: jax.Array, template: Template, config: Config) -> Batch:
    """Random prompts with random answers, `[B, P + L]`; `key` is consumed.

    For answers in a model's own words give `with_answers` what it generated from `prompts`.
    """
    key_prompts, key_answers = jax.random.split(key)
    answers = jax.random.choice(key_answers, pool, (config.batch_size, config.positions))
    return with_answers(prompts(key_prompts, pool, template, config), answers)


def with_answers(prompts: jax.Array, answers: jax.Array) -> Batch:
    """A batch of prompts `[B, P]` and answers `[B, L]`."""
    ids = jnp.concatenate([prompts, answers], 1).astype(jnp.int32)
    return Batch(ids, jnp.ones(ids.shape, bool))
