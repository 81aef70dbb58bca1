# SPDX-License-Identifier: Apache-2.0
"""Image-to-semantics' kernels: images drawn, autoencoder and predictor steps, episodes replayed.

Where torch is installed, the published networks written in PyTorch stand beside ours: the same
layers, batch and optimizer. Our steps run inside of a scan, as in a run.
"""

import dataclasses
import functools
import time
from typing import Any

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


def _measure(what: str, by: str, batch: int, call, work: float, costs: dict) -> dict:
    """Rate by the clock, and the processor's milliseconds per unit, which load does not change."""
    call()
    start, calls = time.process_time(), 0
    while time.process_time() - start < 0.5 or not calls:
        call()
        calls += 1
    cpu_ms = 1e3 * (time.process_time() - start) / (calls * work)
    measured = timing.repeat(call, work, FLAGS.repeats)
    return {"what": what, "by": by, "batch": batch} | measured | {"cpu_ms": cpu_ms} | costs


def raycast_row(images: int) -> dict:
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
    return _measure("images drawn", "jaxsafe", images, call, images, costs)


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


def vae_row(how: str, batch: int) -> dict:
    """Autoencoder steps a second: the published encoder with one of `VAES`, or our default."""
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
    return _measure(f"autoencoder steps, {how}", "jaxsafe", batch, call, FLAGS.per_call, costs)


def heads_row(size: int, batch: int) -> dict:
    """Predictor steps a second on cached latents."""
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
    return _measure(f"predictor steps, {size} semantics", "jaxsafe", batch, call, number, costs)


def replay_row(episodes: int) -> dict:
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
    return _measure("labels replayed", "jaxsafe", episodes, call, work, costs)


def torch_rows(cores: int) -> list[dict]:
    """The published autoencoder and predictor in PyTorch, data ready in memory."""
    try:
        import torch

        from benchmarks import torch_i2s
    except ImportError:
        return []
    torch.set_num_threads(cores)
    torch.manual_seed(0)
    vae = torch_i2s.VaeLearner(LATENT)
    heads = {size: torch_i2s.HeadsLearner(LATENT, size) for size in SIZES}
    rows, cost = [], {"compile_s": 0.0}
    for batch in map(int, FLAGS.batches):
        images = torch.rand(batch, 3, 64, 64)
        z = torch.randn(batch, LATENT)
        sides = {
            "autoencoder steps, published": functools.partial(vae.update, images),
        }
        for size, one in heads.items():
            call = functools.partial(one.update, z, torch.rand(batch, size))
            sides[f"predictor steps, {size} semantics"] = call
        rows += [_measure(what, "PyTorch", batch, call, 1, cost) for what, call in sides.items()]
    return rows


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores = timing.pin(cores)
    batches = [int(n) for n in FLAGS.batches]
    rows = [raycast_row(int(n)) for n in FLAGS.images]
    rows += [vae_row(how, n) for how in (*VAES, "default") for n in batches]
    rows += [heads_row(size, n) for size in SIZES for n in batches] + [
        replay_row(int(n)) for n in FLAGS.episodes
    ]
    if FLAGS.torch:
        rows += torch_rows(cores)
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
