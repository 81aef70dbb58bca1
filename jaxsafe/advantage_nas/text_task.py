# SPDX-License-Identifier: Apache-2.0
"""The search on text: the Penn Treebank's recurrent cell (papers page, 4.3)."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxsafe.advantage_nas import recurrent, retrain
from jaxsafe.advantage_nas import space as spaces
from jaxsafe.advantage_nas.retrain import RetrainConfig
from jaxsafe.advantage_nas.task import Task
from jaxsafe.advantage_nas.types import Batch, Metrics
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.data import text


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The text and the network around the cell."""

    folder: str | None = field(
        None, "Folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt, or what there is of them."
    )
    streams: int = field(16, "Streams read side by side; theirs: 256.", low=1)
    length: int = field(35, "Words of a chunk, through which gradients flow.", low=1)
    units: int = field(32, "Units of the embedding and of the cell; theirs: 300.", low=1)
    dropout: float = field(0.0, "Share dropped of words and outputs; theirs: .5.", 0.0, 0.99)
    sum_loss: bool = field(
        True, "A loss is the sum over a chunk's words, as theirs; else the mean."
    )
    held_out: bool = field(
        True, "theta learns from the validation text; theirs from the training text."
    )


def make(config: TextConfig) -> Task:
    """Reads the text and builds the task.

    Raises:
      UserError: no folder is given, or it has no usable text.
    """
    if config.folder is None:
        raise UserError("--text.folder is not given: name a folder with ptb.train.txt or the like.")
    corpus = text.load(config.folder)
    space = spaces.ptb()
    language = recurrent.Language(
        vocabulary=len(corpus.vocabulary),
        streams=config.streams,
        units=config.units,
        dropout=config.dropout,
        sum_loss=config.sum_loss,
    )
    network = recurrent.recurrent_network(space, language)
    train, valid, test = (
        jnp.asarray(text.streams(part, config.streams))
        for part in (corpus.train, corpus.valid, corpus.test)
    )
    for part in (train, valid, test):
        text.num_chunks(part, config.length)

    def batch(key: jax.Array, step: jax.Array) -> Batch:
        del key  # text is read in its order
        first = text.chunk(train, step if config.held_out else 2 * step, config.length)
        if config.held_out:
            return Batch(first, text.chunk(valid, step, config.length))
        return Batch(first, text.chunk(train, 2 * step + 1, config.length))

    def score_on(part: jax.Array, weights, choice: jax.Array) -> Metrics:
        found = retrain.text_score(network, weights, choice, part, config.length)
        return {"loss": found["nats"], "perplexity": found["perplexity"]}

    def train_one(key: jax.Array, choice: jax.Array, how: RetrainConfig) -> Metrics:
        state = retrain.init(key, choice, network, how)
        draw = lambda key, step: text.chunk(train, step, config.length)  # noqa: E731
        state, _ = retrain.chunk(state, how.steps, draw, network, how)
        return score_on(test, state.weights, choice)

    comparable = "" if corpus.comparable else ", perplexities not comparable"
    return Task(
        space=space,
        network=network,
        batch=batch,
        score=lambda weights, choice: score_on(valid, weights, choice),
        train=train_one,
        cost=lambda choice: retrain.text_cost(space, language, choice),
        measure="perplexity",
        data=f"text, {len(corpus.train):,} words ({corpus.note}{comparable})",
    )
