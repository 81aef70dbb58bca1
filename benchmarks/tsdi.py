# SPDX-License-Identifier: Apache-2.0
"""Bias estimation beside bare forward passes, and corrected beside plain generation.

A Llama of 5.26 million parameters, random weights, float32, in turns. Estimation rates count tokens
of both models' input; `all logits` makes logits of every token, `same logits` of the answers only,
as the estimate does. Generation rates count new tokens.
"""

import functools

from absl import app, flags

from benchmarks import timing

FLAGS = flags.FLAGS
timing.define_flags()
flags.DEFINE_list("passes", ["8", "32", "128"], "Random prompts of a pass.")
flags.DEFINE_integer("prompt", 48, "Tokens of a random prompt.")
flags.DEFINE_integer("positions", 16, "Positions of the table.")
flags.DEFINE_list("batches", ["1", "8", "32"], "Prompts answered at once.")
flags.DEFINE_integer("new", 128, "New tokens of an answer.")
flags.DEFINE_integer("layers", 4, "Layers of the model.")


def setting():
    """The decoder, its two parts, and two sets of parameters."""
    import dataclasses

    import jax

    from jaxsafe import lm, tsdi
    from jaxsafe.lm import tiny
    from jaxsafe.tsdi import models

    config = dataclasses.replace(tiny.CONFIG, num_layers=FLAGS.layers)
    one, other = (
        jax.tree.map(lambda x: 4 * x if x.ndim > 2 else x, lm.init(jax.random.key(i), config))
        for i in range(2)
    )
    return config, models.of_decoder(config), tsdi.Pair(one, other)


def estimation(config, model, pair, size: int, repeats: int) -> list[dict]:
    """Rows of the estimate and of the passes it is measured against."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxsafe import tsdi

    how = tsdi.Config(
        positions=FLAGS.positions,
        draws=2 * size,
        prompt_length=FLAGS.prompt,
        batch_size=size,
    )
    pool = jnp.arange(3, config.vocab_size)
    batch = tsdi.pool.batch(jax.random.key(0), pool, tsdi.pool.Template(), how)
    state = tsdi.init(jax.random.key(1), how, config.vocab_size)

    def bare(pair, batch, first):
        def one(params):
            hidden = model.hidden(params, batch.ids, batch.mask)
            return model.head(params, hidden[:, first:])

        return one(pair.safe), one(pair.reference)

    update, costs = timing.compiled(
        lambda s, b, p: tsdi.update(s, b, how, model, p), state, batch, pair
    )
    programs = {
        "estimate": (functools.partial(update, state, batch, pair), costs),
        "all logits": _bare(bare, pair, batch, 0),
        "same logits": _bare(bare, pair, batch, FLAGS.prompt),
    }
    sides = {
        name: lambda call=call: jax.block_until_ready(call())
        for name, (call, _) in programs.items()
    }
    tokens = 2 * int(np.prod(batch.ids.shape))
    measured = timing.interleaved(sides, tokens, repeats)
    return [
        {"of": "estimation", "what": name, "batch": size} | row | programs[name][1]
        for name, row in measured.items()
    ]


def _bare(bare, pair, batch, first: int):
    program, costs = timing.compiled(functools.partial(bare, first=first), pair, batch)
    return functools.partial(program, pair, batch), costs


def generation(config, pair, repeats: int) -> list[dict]:
    """Rows of plain and corrected greedy answers; those of alpha 0 must be the plain ones."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxsafe import lm, tsdi
    from jaxsafe.tsdi import models

    model, options = lm.prepare(pair.safe, config), lm.Generation(max_new=FLAGS.new)
    shape = (FLAGS.positions, config.vocab_size)
    drawn = jax.random.normal(jax.random.key(2), shape)
    table = tsdi.Table(drawn, jnp.zeros(shape))
    at_work, nothing = tsdi.correction(table), tsdi.correction(table, 0.0)
    rng, rows = np.random.default_rng(0), []
    for size in map(int, FLAGS.batches):
        prompts = rng.integers(3, config.vocab_size, (size, FLAGS.prompt)).tolist()

        def program(model, correction, prompts=prompts):
            how = {"correction": correction, "buckets": (FLAGS.prompt,)}
            return models.generate(model, prompts, options, **how).tokens

        def answer(correction, program=program):
            return np.asarray(program(model, correction))

        if (answer(None) != answer(nothing)).any():
            raise SystemExit("error: a correction by nothing changes answers.")
        sides = {
            "plain": functools.partial(answer, None),
            "corrected": functools.partial(answer, at_work),
        }
        measured = timing.interleaved(sides, size * FLAGS.new, repeats)
        for name, correction in (("plain", None), ("corrected", at_work)):
            _, costs = timing.compiled(program, model, correction)
            memory = {"temporary_mb": costs["temporary_mb"]}
            told = {"of": "answers", "what": name, "batch": size}
            rows.append(told | measured[name] | memory)
    return rows


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores = timing.pin(cores)
    config, model, pair = setting()
    found = []
    for size in map(int, FLAGS.passes):
        found += estimation(config, model, pair, size, FLAGS.repeats)
    found += generation(config, pair, FLAGS.repeats)
    return [{"cores": cores} | row for row in found]


def main(argv):
    """Measures and writes `results/tsdi.json`."""
    del argv
    timing.main(
        "tsdi",
        worker,
        ["passes", "prompt", "positions", "batches", "new", "layers"],
        f"tokens/s: estimates of {FLAGS.positions} positions after prompts of {FLAGS.prompt}, both "
        f"models' tokens; greedy answers of {FLAGS.new} tokens; 5.26 M-parameter Llama "
        f"({FLAGS.layers} layers), float32",
    )


if __name__ == "__main__":
    app.run(main)
