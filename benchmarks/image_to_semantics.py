# SPDX-License-Identifier: Apache-2.0
"""Image-to-semantics' kernels: images drawn, autoencoder and predictor steps, episodes replayed.

Where torch is installed, the published networks written in PyTorch take their turns beside ours:
the same layers, batch and optimizer. Our steps run inside of a scan, as in a run.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from absl import app, flags

from benchmarks import timing

FLAGS = flags.FLAGS
timing.define_flags(repeats=5)
flags.DEFINE_list("images", ["16", "64", "256"], "Images drawn together.")
flags.DEFINE_list("batches", ["10", "50", "100"], "Images, or pairs, in a minibatch.")
flags.DEFINE_list("episodes", ["20", "200"], "Episodes replayed together.")
flags.DEFINE_integer("length", 100, "Their steps.")
flags.DEFINE_integer("per_call", 5, "Autoencoder steps in a scan; of predictors 100 times as many.")
flags.DEFINE_bool("torch", True, "Measure PyTorch too, if installed.")

SIZES, LATENT = (2, 8), 32  # semantics of the page's measurement, and of the reacher


class Side(NamedTuple):
    """One that is measured: a call, what it does in units, and what its program costs."""

    call: Callable[[], Any]
    work: float
    costs: dict[str, Any]


def _rows(what: str, batch: int, sides: Mapping[str, Side]) -> list[dict]:
    """One kernel's rows on one batch, in turns.

    `cpu_ms` is the processor's milliseconds per unit, which load does not change.
    """
    calls = {by: side.call for by, side in sides.items()}
    rows = []
    for by, row in timing.interleaved(calls, 1, FLAGS.repeats, min_s=0.5).items():
        work, costs = sides[by].work, sides[by].costs
        rate = {key: work * row[key] for key in ("rate", "low", "high")}
        counts = {key: row[key] for key in ("repeats", "calls")}
        cpu_ms = {"cpu_ms": 1e3 / (work * row["per_cpu_s"])}
        rows.append({"what": what, "by": by, "batch": batch} | rate | counts | cpu_ms | costs)
    return rows


def raycast_rows(images: int) -> list[dict]:
    """Images a second of the reacher at 64 x 64, of other poses each."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxsafe.envs import raycaster, scenes
    from jaxsafe.image_to_semantics import target, worlds

    world = worlds.make("reacher")
    rng = np.random.default_rng(0)
    qpos = np.stack([world.start(rng)[0] for _ in range(images)])
    poses = raycaster.Poses(*map(jnp.asarray, target.Renderer(world).poses(qpos)))
    scene = scenes.scene_of(world.task.host.model, world.square, world.dark)

    def draw(scene, camera, poses):
        one = lambda p: raycaster.to_bytes(raycaster.render(scene, p, camera))  # noqa: E731
        return jax.vmap(one)(poses)

    program, costs = timing.compiled(draw, scene, world.eye, poses)
    call = lambda: jax.block_until_ready(program(scene, world.eye, poses))  # noqa: E731
    return _rows("images drawn", images, {"jaxsafe": Side(call, images, costs)})


# What trains the autoencoder, and how its decoder differs from the published one.
VAES: dict[str, dict[str, Any]] = {
    "published": {"decoder": "transposed"},
    "published, subpixel decoder of its size": {
        "decoder": "subpixel",
        "decoder_widths": (64, 32, 32, 16),
    },
    "published, our decoder": {"decoder": "subpixel"},
}


def _config(how: str):
    """Published widths on one frame, with one of `VAES`' decoders; or what runs here by default."""
    from jaxsafe import image_to_semantics as i2s

    if how not in VAES:
        return dataclasses.replace(i2s.Config(), frames=1)
    same: dict[str, Any] = {
        "frames": 1,
        "encoders": "shared",
        "sample_latents": False,
        "latent_noise": 0.0,
    }
    return dataclasses.replace(i2s.PAPER, **same, **VAES[how])


def vae_side(how: str, batch: int) -> Side:
    """Autoencoder steps of ours: the published encoder with one of `VAES`, or our default."""
    import jax
    import jax.numpy as jnp

    from jaxsafe import image_to_semantics as i2s
    from jaxsafe.image_to_semantics import algorithm

    config = _config(how)
    state = i2s.init(jax.random.key(0), config, i2s.Range(jnp.zeros(2), jnp.ones(2)))
    images = jax.random.randint(jax.random.key(1), (batch, 1, 64, 64, 3), 0, 256)

    def steps(state, images):
        one = lambda s, _: algorithm.vae_update(s, images, config)  # noqa: E731
        return jax.lax.scan(one, state, length=FLAGS.per_call)

    images = images.astype(jnp.uint8)
    program, costs = timing.compiled(steps, state, images)
    call = lambda: jax.block_until_ready(program(state, images))  # noqa: E731
    return Side(call, FLAGS.per_call, costs)


def heads_side(size: int, batch: int) -> Side:
    """Predictor steps of ours on cached latents."""
    import jax
    import jax.numpy as jnp

    from jaxsafe import image_to_semantics as i2s
    from jaxsafe.image_to_semantics import algorithm

    config, number = _config("published"), 100 * FLAGS.per_call
    state = i2s.init(jax.random.key(0), config, i2s.Range(jnp.zeros(size), jnp.ones(size)))
    z = jax.random.normal(jax.random.key(1), (1, batch, LATENT))
    pairs = i2s.Pairs(i2s.Latents(z, 0 * z), jnp.tanh(z[..., :size]))

    def steps(state, pairs):
        one = lambda s, _: algorithm.heads_update(s, pairs, config)  # noqa: E731
        return jax.lax.scan(one, state, length=number)

    program, costs = timing.compiled(steps, state, pairs)
    call = lambda: jax.block_until_ready(program(state, pairs))  # noqa: E731
    return Side(call, number, costs)


def replay_rows(episodes: int) -> list[dict]:
    """Labels a second that MJX gives the reacher's logged actions."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxsafe import image_to_semantics as i2s
    from jaxsafe.image_to_semantics import worlds

    world, rng = worlds.make("reacher"), np.random.default_rng(0)
    states = [world.task.host.spec.observe(np, *world.start(rng)) for _ in range(episodes)]
    starts = jnp.asarray(np.stack(states), jnp.float32)
    shape = (episodes, FLAGS.length, world.task.action_size)
    actions = jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32)
    lengths = jnp.full(episodes, FLAGS.length)
    simulator = worlds.simulator(world)
    roll = lambda s, a, n: i2s.roll_out(simulator, s, a, n, FLAGS.length)  # noqa: E731
    program, costs = timing.compiled(roll, starts, actions, lengths)
    call = lambda: jax.block_until_ready(program(starts, actions, lengths))  # noqa: E731
    work = episodes * FLAGS.length
    return _rows("labels replayed", episodes, {"jaxsafe": Side(call, work, costs)})


class Torch:
    """The published autoencoder and predictors in PyTorch, data ready in memory."""

    costs: ClassVar = {"compile_s": 0.0}

    def __init__(self, cores: int):
        import torch

        from benchmarks import torch_i2s

        torch.set_num_threads(cores)
        torch.manual_seed(0)
        self.torch = torch
        self.autoencoder = torch_i2s.VaeLearner(LATENT)
        self.predictors = {size: torch_i2s.HeadsLearner(LATENT, size) for size in SIZES}

    def vae(self, batch: int) -> Side:
        """A step of the autoencoder."""
        images = self.torch.rand(batch, 3, 64, 64)
        return Side(functools.partial(self.autoencoder.update, images), 1, self.costs)

    def heads(self, size: int, batch: int) -> Side:
        """A step of a predictor of that many semantics."""
        z, wanted = self.torch.randn(batch, LATENT), self.torch.rand(batch, size)
        return Side(functools.partial(self.predictors[size].update, z, wanted), 1, self.costs)


def training_rows(batch: int, peer: Torch | None) -> list[dict]:
    """Steps of the networks on minibatches of that size, beside PyTorch where there are such."""
    rows = []
    for how in (*VAES, "default"):
        sides = {"jaxsafe": vae_side(how, batch)}
        if peer and how == "published":
            sides["PyTorch"] = peer.vae(batch)
        rows += _rows(f"autoencoder steps, {how}", batch, sides)
    for size in SIZES:
        sides = {"jaxsafe": heads_side(size, batch)}
        if peer:
            sides["PyTorch"] = peer.heads(size, batch)
        rows += _rows(f"predictor steps, {size} semantics", batch, sides)
    return rows


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores, peer = timing.pin(cores), None
    if FLAGS.torch:
        with contextlib.suppress(ImportError):
            peer = Torch(cores)
    rows = [row for n in FLAGS.images for row in raycast_rows(int(n))]
    rows += [row for n in FLAGS.batches for row in training_rows(int(n), peer)]
    rows += [row for n in FLAGS.episodes for row in replay_rows(int(n))]
    return [{"cores": cores} | row for row in rows]


def main(argv):
    """Measures and writes `results/image_to_semantics.json`."""
    del argv
    timing.main(
        "image_to_semantics",
        worker,
        ["images", "batches", "episodes", "length", "per_call", "torch"],
        f"units/s: images of the reacher at 64 x 64, steps on one frame, "
        f"labels of episodes of {FLAGS.length} steps; batch: images, pairs or episodes at once; "
        "cpu_ms: processor time per unit",
    )


if __name__ == "__main__":
    app.run(main)
