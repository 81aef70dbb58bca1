# SPDX-License-Identifier: Apache-2.0
"""DPO updates of a 5.26M-parameter Llama on pairs of 256 tokens, float32, beside TRL's trainer.

Half of each row is prompt. Both sides start from one Hugging Face folder and see the same rows,
with AdamW at one rate and a clipped gradient, so that their losses must agree; a row tells that of
the fifth update. On two cores ours runs as one device and as two. TRL is measured where the extra
`peers` is installed: its own loop, dataloader and logging included, the time between the ends of
two steps being one step. Ours takes its turns from a callback of TRL's loop, whose clock stands
still meanwhile.
"""

import contextlib
import io
import pathlib
import sys
import tempfile

import numpy as np
from absl import app, flags

from benchmarks import timing
from jaxsafe.core import parallel

FLAGS = flags.FLAGS
timing.define_flags(repeats=5)
flags.DEFINE_list("pairs", ["2", "8", "16"], "Pairs of an update.")
flags.DEFINE_integer("tokens", 256, "Tokens of a row, half of them the prompt's.")
flags.DEFINE_integer("layers", 4, "Layers of the model.")
flags.DEFINE_integer("at_once", 2, "Pairs of an update that a device of ours computes at once.")
flags.DEFINE_bool("share", True, "Run a pair's prompt once for both answers, as the binary does.")
flags.DEFINE_bool("trl", True, "Measure TRL too, if installed.")

RATE, BETA, FIRST_WORD = 1e-4, 0.1, 3
WARM_UP = 4  # steps of TRL that are not counted; losses are compared at the fifth


def rows(count: int) -> np.ndarray:
    """Token ids `[count pairs, 2, T]`: pairs share a prompt, answers end in EOS (2)."""
    rng = np.random.default_rng(0)
    ids = rng.integers(FIRST_WORD, 4096, (count, 2, FLAGS.tokens))
    half = FLAGS.tokens // 2
    ids[:, 1, :half] = ids[:, 0, :half]
    ids[:, :, -1] = 2
    return ids


def write_model(folder: pathlib.Path):
    """Writes the model, and a tokenizer whose word `wN` is token N; returns the config."""
    import dataclasses

    import jax
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from jaxsafe.lm import decoder, tiny

    config = dataclasses.replace(tiny.CONFIG, num_layers=FLAGS.layers)
    special = (tiny.PAD, tiny.BOS, tiny.EOS)
    words = {special[n] if n < len(special) else f"w{n}": n for n in range(config.vocab_size)}
    inner = Tokenizer(models.WordLevel(words, unk_token=tiny.PAD))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=tiny.PAD, eos_token=tiny.EOS
    )
    tiny.save(folder, config, decoder.init(jax.random.key(0), config), tokenizer)
    return config


def our_side(folder: pathlib.Path, ids: np.ndarray, reference: str, devices: int = 1):
    """Our update, with the reference online or from a cache, rows spread over devices.

    Returns:
      a call that makes one, the program's costs, and the list to which calls append their losses.
    """
    import jax
    import jax.numpy as jnp

    from jaxsafe.lm import hf, sharding
    from jaxsafe.lm.optimiser import Optimiser
    from jaxsafe.sacpo import algorithm, batches, experiment
    from jaxsafe.sacpo.config import Config, Stage
    from jaxsafe.sacpo.types import Batch

    model, params = hf.load(folder)
    model = experiment.decoder_config(experiment.Model(folder=str(folder)), model.vocab_size)
    how = Optimiser(learning_rate=RATE, schedule="constant", warmup_ratio=0.0)
    # In parts whose activations stay in a core's cache; gradients add up to the same update.
    stage = Stage(
        loss="dpo",
        temperature=BETA,
        batch_size=len(ids),
        accumulation=max(1, len(ids) // (FLAGS.at_once * devices)),
        reference=reference,
        optimiser=how,
    )
    half = FLAGS.tokens // 2
    ids = jnp.asarray(ids, jnp.int32)
    answer = jnp.broadcast_to(jnp.arange(FLAGS.tokens) >= half, ids.shape)
    batch = Batch(ids, jnp.ones_like(answer), answer)
    shared = batches.shared_prompt(batch) if FLAGS.share else None
    config = Config(model, stage, 10**6, max_completion=FLAGS.tokens - half, max_prompt=shared)
    state = algorithm.init(jax.random.key(0), config, params)
    # XLA runs element-wise loops of a program on one core, so two cores do better as two devices.
    mesh = sharding.make_mesh(data=devices, devices=jax.devices()[:devices])
    whole = jax.NamedSharding(mesh, jax.P())
    state = jax.device_put(state, whole)
    if reference == "cached":
        sums = jax.jit(algorithm.answer_sums, static_argnums=2)
        batch = batch._replace(reference=sums(params, batch, config))
    batch = sharding.place(batch, mesh)
    with jax.set_mesh(mesh):
        program, costs = timing.compiled(
            lambda s, b: algorithm.update(s, b, config),
            state,
            batch,
            donate_argnums=0,
            out_shardings=whole,
        )
    losses = []

    def call():
        nonlocal state
        state, metrics = jax.block_until_ready(program(state, batch))
        losses.append(float(metrics["policy/loss"]))

    return call, costs, losses


def _row(
    by: str, pairs: int, reference: str, measured: dict, costs: dict, losses: list[float]
) -> dict:
    """The losses of the fifth update stand side by side, so that both are seen to do the same."""
    seconds = {"s_per_update": 1 / measured["rate"]}
    loss = {"loss_at_5": losses[4] if len(losses) > 4 else float("nan")}
    setting = {"by": by, "pairs": pairs, "reference": reference}
    return setting | seconds | measured | costs | loss


def trl_installed() -> bool:
    """Whether there is TRL."""
    try:
        import trl  # noqa: F401
    except ImportError:
        print("TRL is not installed: pip install '.[peers]'", file=sys.stderr)
        return False
    return True


def measure(
    folder: pathlib.Path, ids: np.ndarray, reference: str, cores: int, peer: bool
) -> list[dict]:
    """Rows of everything that is measured on one setting, in turns."""
    names = {1: "jaxsafe"} | ({cores: f"jaxsafe, {cores} devices"} if cores > 1 else {})
    ours = {by: our_side(folder, ids, reference, devices) for devices, by in names.items()}
    turns = timing.Turns({by: call for by, (call, _, _) in ours.items()}, 1, min_s=0.5)
    theirs = []
    if peer:
        import torch

        from benchmarks import trl_dpo

        torch.set_num_threads(cores)
        steps, cached = (WARM_UP, FLAGS.repeats), reference == "cached"
        # The trainer prints rows of its own, and the last line of output is ours.
        with contextlib.redirect_stdout(io.StringIO()):
            seconds, losses = trl_dpo.train(folder, ids, steps, cached, RATE, BETA, turns.take)
        measured = timing.rates(seconds) | {"calls": 1}
        theirs = [_row("TRL", len(ids), reference, measured, {"compile_s": 0.0}, losses)]
    else:
        for _ in range(FLAGS.repeats):
            turns.take()
    found = turns.found()
    return [
        _row(by, len(ids), reference, found[by], costs, losses)
        for by, (_, costs, losses) in ours.items()
    ] + theirs


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores = timing.pin(cores)
    parallel.split_host_cpu(cores)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_model(folder)
        peer = FLAGS.trl and trl_installed()
        found = []
        for ids in (rows(int(pairs)) for pairs in FLAGS.pairs):
            for reference in ("online", "cached"):
                found += measure(folder, ids, reference, cores, peer)
    return [{"cores": cores} | row for row in found]


def main(argv):
    """Measures and writes `results/sacpo_dpo.json`."""
    del argv
    timing.main(
        "sacpo_dpo",
        worker,
        ["pairs", "tokens", "layers", "at_once", "share", "trl"],
        f"DPO updates/s, Llama of 5.26M parameters ({FLAGS.layers} layers), pairs of "
        f"{FLAGS.tokens} tokens, float32, AdamW",
    )


if __name__ == "__main__":
    app.run(main)
