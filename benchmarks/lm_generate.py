# SPDX-License-Identifier: Apache-2.0
"""Greedy generation, a Llama of 5.26 million parameters with random weights, float32.

Where torch is installed, transformers' `generate` takes its turns beside ours: one process, equal
weights from one folder, and the same ids or no result. Rates count new tokens; the prompt's pass is
inside of them, compilation is apart. With `--unequal`, prompts have a half to all of the length.
"""

import functools
import tempfile
import time
from typing import Any

from absl import app, flags

from benchmarks import timing
from jaxsafe.core import parallel

FLAGS = flags.FLAGS
timing.define_flags()
flags.DEFINE_list("batches", ["1", "8", "32"], "Prompts at once.")
flags.DEFINE_integer("prompt", 128, "Tokens of a prompt.")
flags.DEFINE_integer("new", 128, "New tokens.")
flags.DEFINE_integer("at_once", 16, "Prompts that ours answers at once on a device.")
flags.DEFINE_bool("unequal", True, "Measure the largest batch with unequal prompts as well.")
flags.DEFINE_bool("torch", True, "Measure transformers too, if torch is installed.")


def prompts(batch: int, unequal: bool) -> list[list[int]]:
    """Random prompts."""
    import numpy as np

    from jaxsafe.lm import tiny

    rng = np.random.default_rng(batch)
    low = FLAGS.prompt // 2 if unequal else FLAGS.prompt
    lengths = np.linspace(FLAGS.prompt, low, batch).astype(int)
    return [rng.integers(3, tiny.CONFIG.vocab_size, n).tolist() for n in lengths]


def model_in(folder: str):
    """Our model, written to a folder too, its tokens' probabilities far from uniform."""
    import jax

    from jaxsafe import lm
    from jaxsafe.lm import hf, tiny

    params = jax.tree.map(
        lambda x: 4 * x if x.ndim > 2 else x, lm.init(jax.random.key(0), tiny.CONFIG)
    )
    hf.save(folder, tiny.CONFIG, params)
    return lm.prepare(params, tiny.CONFIG)


def ours(model, batch: list[list[int]], mesh=None):
    """New ids `[B, M]` by jaxsafe, rows shared among the devices of `mesh`."""
    import numpy as np

    from jaxsafe import lm

    options = lm.Generation(max_new=FLAGS.new)
    settings = {"buckets": (FLAGS.prompt,), "at_once": FLAGS.at_once, "mesh": mesh}
    return np.asarray(lm.generate.generate(model, batch, options, **settings).tokens)


def memory(model, batch: list[list[int]], mesh=None) -> float | None:
    """Temporary memory of the program behind `ours`, compiled a second time to ask it."""
    from jaxsafe import lm

    options = lm.Generation(max_new=FLAGS.new)

    def generate(model):
        settings = {"buckets": (FLAGS.prompt,), "at_once": FLAGS.at_once, "mesh": mesh}
        return lm.generate.generate(model, batch, options, **settings)

    return timing.compiled(generate, model)[1]["temporary_mb"]


def transformers_of(folder: str, cores: int):
    """`prompts -> new ids [B, M]` by transformers; None where torch is absent."""
    try:
        import torch
    except ImportError:
        return None
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(cores)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    settings = {"max_new_tokens": FLAGS.new, "do_sample": False, "eos_token_id": None}

    @torch.inference_mode()
    def generate(batch: list[list[int]]):
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        out = model.generate(ids, attention_mask=mask, pad_token_id=0, **settings)
        return out[:, width:].numpy()

    return generate


def our_sides(model, batch: list[list[int]], cores: int) -> dict:
    """Ours on one device, and on one a core where there are prompts for each."""
    from jaxsafe.lm import generate, sharding

    sides = {"jaxsafe": functools.partial(ours, model, batch)}
    if cores > 1 and len(batch) >= cores:
        mesh = sharding.make_mesh(data=cores)
        spread = functools.partial(ours, generate.on_mesh(model, mesh), batch, mesh)
        sides[f"jaxsafe, {cores} devices"] = spread
    return sides


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores, rows = timing.pin(cores), []
    parallel.split_host_cpu(cores)
    batches = [int(n) for n in FLAGS.batches]
    cases = [(n, False) for n in batches]
    if FLAGS.unequal:
        cases.append((max(batches), True))
    with tempfile.TemporaryDirectory() as folder:
        model = model_in(folder)
        theirs = transformers_of(folder, cores) if FLAGS.torch else None
        for size, unequal in cases:
            batch = prompts(size, unequal)
            sides = our_sides(model, batch, cores)
            found: dict[str, Any] = {}
            costs: dict[str, dict[str, float | None]] = {}
            for by, call in sides.items():
                start = time.perf_counter()
                found[by] = call()
                costs[by] = {"first_call_s": time.perf_counter() - start}
                costs[by]["temporary_mb"] = memory(*call.args)
            if theirs is not None:
                sides["transformers"] = functools.partial(theirs, batch)
                expected = theirs(batch)
                for by, ids in found.items():
                    if (ids != expected).any():
                        raise SystemExit(f"error: {by}: ids of batch {size} are not transformers'.")
            measured = timing.interleaved(sides, size * FLAGS.new, FLAGS.repeats)
            for by, row in measured.items():
                case = {"cores": cores, "by": by, "batch": size, "unequal": unequal}
                rows.append(case | row | costs.get(by, {}))
    return rows


def main(argv):
    """Measures and writes `results/lm_generate.json`."""
    del argv
    timing.main(
        "lm_generate",
        worker,
        ["batches", "prompt", "new", "at_once", "unequal", "torch"],
        f"new tokens/s, greedy, prompts of {FLAGS.prompt} and {FLAGS.new} new tokens, "
        "5.26 M-parameter Llama, float32; ids checked to be the same",
    )


if __name__ == "__main__":
    app.run(main)
