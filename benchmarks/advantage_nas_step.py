# SPDX-License-Identifier: Apache-2.0
"""Search steps a second of the NAS-Bench-201 supernet, a weight half and an architecture half each.

A step is full-featured: clipped gradients, weight decay, Nesterov's momentum, Adam, cosine
schedules. Ours runs AdvantageNAS, PyTorch (where it is installed) GDAS; both run the same random
architectures in turn with each other, so that both see the same machine. GDAS's published step also
computes the weights' gradients in its architecture half; the lean one does not. Rows "3x3" have the
convolution on every edge, where a search may end. On two cores ours runs as one device and as two,
each with half of every minibatch, which batch norm then normalises by itself.
"""

import contextlib
import dataclasses
import time

import numpy as np
from absl import app, flags

from benchmarks import timing
from jaxsafe.core import parallel

FLAGS = flags.FLAGS
timing.define_flags(repeats=4)
flags.DEFINE_bool("torch", True, "Measure PyTorch too, if installed.")
flags.DEFINE_list("forms", ["scan"], "Sparse forms to measure: scan; unrolled compiles long.")
flags.DEFINE_list(
    "sizes", ["8x1x8", "8x1x32", "8x1x128", "16x5x64"], "Channels x cells x batch of each setting."
)
flags.DEFINE_list(
    "dense", ["8x1x32"], "Sizes at which to measure our dense form too: it compiles long."
)
flags.DEFINE_integer("chunk", 2, "Steps of one call of ours, as the search's loop makes them.")
flags.DEFINE_integer("image", 32, "Rows and columns of the images.")
flags.DEFINE_bool("native", False, "JAX's own gradients of convolutions (for GPUs).")

EDGES, STEPS = 6, 390 * 90


def architectures(shape: tuple[int, ...], operations: int, seed: int = 0) -> np.ndarray:
    """Random architectures `[..., E]`."""
    return np.random.default_rng(seed).integers(0, operations, (*shape, EDGES)).astype(np.int32)


class Ours:
    """A compiled step of the library's own search."""

    def __init__(self, channels: int, cells: int, batch: int, form: str, devices: int = 1):
        import jax
        import jax.numpy as jnp

        from jaxsafe.advantage_nas import algorithm, config, data_parallel, space, supernet
        from jaxsafe.advantage_nas.types import Batch

        dense = form == "dense"
        self.what = f"jaxsafe, {form}" + (", native gradients" if FLAGS.native else "")
        self.what += f", {devices} devices" if devices > 1 else ""
        setting = dataclasses.replace(
            config.Config(epochs=90, freeze_epochs=0, steps_per_epoch=390, theta_lr=3e-4),
            estimator=config.EstimatorConfig(method="darts" if dense else "advantage"),
        )
        size = FLAGS.image
        skeleton = supernet.Skeleton(
            (size, size, 3), 10, channels, cells, "unrolled" if dense else form, FLAGS.native
        )
        network = supernet.image_network(space.nas_bench_201(native=FLAGS.native), skeleton)

        # XLA keeps most of a step on one core, so two cores do better as two devices.
        used = jax.devices()[:devices]
        update = data_parallel.updates(setting, network, used)

        def step(state, choice, data):
            # So far from level that the architecture drawn is the one given.
            theta = 1e3 * jax.nn.one_hot(choice, network.num_ops)
            return update(state.replace(theta=theta), data)

        def steps(state, choices, data):
            return jax.lax.scan(lambda state, choice: step(state, choice, data), state, choices)

        keys = jax.random.split(jax.random.key(0), 3)
        data = Batch(
            *(
                (jax.random.normal(key, (batch, size, size, 3)), jnp.arange(batch) % 10)
                for key in keys[:2]
            )
        )
        mesh = jax.sharding.Mesh(np.asarray(used), ("data",))
        self.whole = jax.NamedSharding(mesh, jax.P())
        self.data = jax.device_put(data, jax.NamedSharding(mesh, jax.P("data")))
        init = jax.jit(lambda key: algorithm.init(key, setting, network), out_shardings=self.whole)
        self.state = init(keys[2])
        choices = jax.device_put(jnp.zeros((FLAGS.chunk, EDGES), jnp.int32), self.whole)
        self.program, self.costs = timing.compiled(
            steps, self.state, choices, self.data, donate_argnums=0
        )
        self.put, self.block = jax.device_put, jax.block_until_ready

    def steps(self, choices: np.ndarray) -> None:
        """A search step of each architecture `[chunk, E]`."""
        choices = self.put(choices, self.whole)
        self.state, metrics = self.program(self.state, choices, self.data)
        self.block(metrics)


class Theirs:
    """A step of GDAS in PyTorch."""

    def __init__(self, channels: int, cells: int, batch: int, lean: bool, threads: int):
        import torch

        from benchmarks import torch_gdas
        from jaxsafe.advantage_nas.space import NAS_BENCH_201

        torch.set_num_threads(threads)
        self.what = "PyTorch GDAS, lean" if lean else "PyTorch GDAS"
        self.costs, self.lean = {"compile_s": 0.0}, lean
        names = NAS_BENCH_201[:4]
        self.learner = torch_gdas.Learner(names, channels, cells, batch, FLAGS.image, STEPS)

    def steps(self, choices: np.ndarray) -> None:
        """A search step of each architecture `[chunk, E]`."""
        for choice in choices.tolist():
            self.learner.step(choice, choice, self.lean)


def engines(channels: int, cells: int, batch: int, threads: int) -> list:
    """Everything that is measured at one size."""
    found: list = [
        Ours(channels, cells, batch, form, devices)
        for devices in sorted({1, threads})
        for form in FLAGS.forms
    ]
    if f"{channels}x{cells}x{batch}" in FLAGS.dense:
        found.append(Ours(channels, cells, batch, "dense"))
    if FLAGS.torch:
        with contextlib.suppress(ImportError):
            found += [Theirs(channels, cells, batch, lean, threads) for lean in (False, True)]
    return found


def measure(running: list, choices: np.ndarray) -> list[dict]:
    """Steps a second of each engine over architectures `[n, chunk, E]`, in turns.

    The first turn is not counted. The rate is over the sum of the times, since architectures differ
    in cost; `low` and `high` are quartiles over turns.
    """
    seconds = np.zeros((len(choices), len(running)))
    for i, chosen in enumerate(choices):
        for j, engine in enumerate(running):
            start = time.perf_counter()
            engine.steps(chosen)
            seconds[i, j] = time.perf_counter() - start
    rows = []
    for engine, taken in zip(running, seconds[1:].T / FLAGS.chunk, strict=True):
        low, high = np.percentile(1 / taken, [25, 75])
        rate = {"rate": len(taken) / taken.sum(), "low": low, "high": high, "n": len(taken)}
        rows.append({"what": engine.what} | rate | engine.costs)
    return rows


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores = timing.pin(cores)
    parallel.split_host_cpu(cores)
    rows = []
    for size in FLAGS.sizes:
        channels, cells, batch = map(int, size.split("x"))
        running = engines(channels, cells, batch, cores)
        chosen = {
            "random": architectures((FLAGS.repeats + 1, FLAGS.chunk), 4),
            "3x3": np.full((FLAGS.repeats // 2 + 2, FLAGS.chunk, EDGES), 2, np.int32),
        }
        for edges, choices in chosen.items():
            label = {"cores": cores, "size": f"{channels}x{cells}", "batch": batch, "edges": edges}
            rows += [label | row for row in measure(running, choices)]
    return rows


def main(argv):
    """Measures and writes `results/advantage_nas_step.json`."""
    del argv
    timing.main(
        "advantage_nas_step",
        worker,
        ["torch", "dense", "forms", "sizes", "chunk", "image", "native"],
        "search steps/s (weight half and architecture half), NAS-Bench-201 supernet with 4 "
        "candidates; size is channels x cells; PyTorch runs GDAS on the same architectures",
    )


if __name__ == "__main__":
    app.run(main)
