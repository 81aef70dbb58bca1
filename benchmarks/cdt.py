# SPDX-License-Identifier: Apache-2.0
"""Training steps and rollouts of the decision transformer, OSRL's default size, 40-d observations.

Where torch is installed, the same layers written in PyTorch take their turns beside ours. A rollout
there is OSRL's: the whole window through the network at every step, here also for many episodes at
once.
Worlds cost next to nothing, so that a policy step is the policy's.
"""

import contextlib
import dataclasses
from collections.abc import Callable

from absl import app, flags

from benchmarks import timing
from jaxsafe.core import parallel

FLAGS = flags.FLAGS
timing.define_flags(repeats=5)
flags.DEFINE_list("batches", ["16", "64", "256"], "Windows per training step.")
flags.DEFINE_list("episodes", ["1", "20", "200"], "Episodes at once, of rollouts.")
flags.DEFINE_integer("length", 50, "Steps of an episode; the window is full after ten.")
flags.DEFINE_integer("width", 128, "Of the embeddings.")
flags.DEFINE_bool("torch", True, "Measure PyTorch too, if installed.")

OBS, ACTION, STEPS, PER_CALL = 40, 2, 300, 5


def _setting(batch: int = 1):
    """The config, of that many windows a step, and the sizes of the data."""
    import jax.numpy as jnp

    from jaxsafe import pls

    config = dataclasses.replace(
        pls.osrl_compat(pls.CDT), batch_size=batch, width=FLAGS.width, augment=0.0
    )
    scale = jnp.float32(0.1)
    sizes = pls.Sizes(
        jnp.zeros(OBS), jnp.ones(OBS), scale, jnp.float32(1), obs=OBS, action=ACTION, steps=STEPS
    )
    return config, sizes


def _data(config):
    """Random episodes of 300 steps, as windows."""
    import numpy as np

    from jaxsafe.data import trajectories
    from jaxsafe.pls import windows

    rng, size = np.random.default_rng(0), 100 * STEPS
    columns = {
        "observations": rng.normal(size=(size, OBS)),
        "next_observations": rng.normal(size=(size, OBS)),
        "actions": rng.uniform(-1, 1, (size, ACTION)),
        "rewards": rng.normal(size=size),
        "costs": rng.uniform(size=size) < 0.05,
        "terminals": np.zeros(size),
        "timeouts": np.arange(1, size + 1) % STEPS == 0,
    }
    return windows.make(trajectories.build(columns), config)


def our_training(batch: int):
    """A call of PER_CALL training steps of ours, window sampling included, and its costs."""
    import jax

    from jaxsafe.pls import algorithm

    config, sizes = _setting(batch)
    data = _data(config)
    state = algorithm.init(jax.random.key(0), config, sizes)
    program, costs = timing.compiled(
        lambda s, d: algorithm.chunk(s, d, s.step, PER_CALL, config), state, data, donate_argnums=0
    )

    def call():
        nonlocal state
        state, _ = jax.block_until_ready(program(state, data))

    return call, costs


def _world(length: int):
    """A task whose step is an addition."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxsafe.envs.types import Task, Timestep

    def step(model, state, action):
        after = 0.9 * state + model * action[0]
        paid = (action[0], jnp.float32(0), jnp.bool_(False), jnp.bool_(False))
        return after, Timestep(after, *paid)

    limit = np.ones(ACTION, np.float32)
    return Task(
        name="Additions",
        model=jnp.float32(0.1),
        reset=lambda model, key: jax.random.normal(key, (OBS,)),
        explore=lambda model, key: jax.random.normal(key, (OBS,)),
        step=step,
        observe=lambda model, state: state,
        obs_size=OBS,
        action_size=ACTION,
        action_low=-limit,
        action_high=limit,
        obs_scale=np.ones(OBS, np.float32),
        max_episode_steps=length,
        parameters={},
        host=None,
    )


def our_rollouts(episodes: int, length: int, devices: int = 1):
    """A call that rolls ours out, equal parts of the episodes on each device, and its costs."""
    import jax
    import jax.numpy as jnp

    from jaxsafe.pls import algorithm, rollout

    config, sizes = _setting()
    policy = algorithm.policy(algorithm.init(jax.random.key(0), config, sizes))
    task, z, part = _world(length), jnp.array([300.0, 20.0]), episodes // devices

    def roll(key, policy):
        return rollout.returns(policy, key, task, z, config, part)

    keys = jax.random.split(jax.random.key(1), devices)
    spread = parallel.map_seeds(roll, parallel.seed_mesh(devices), num_shared=1)
    program, costs = timing.compiled(spread, keys, policy)
    return lambda: jax.block_until_ready(program(keys, policy)), costs


class Torch:
    """The same in PyTorch: data ready in memory, and rollouts by whole windows."""

    def __init__(self, cores: int):
        import torch

        from benchmarks import torch_cdt

        torch.set_num_threads(cores)
        torch.manual_seed(0)
        self.torch, self.roll = torch, torch_cdt.rollout
        self.network = torch_cdt.Network(OBS, ACTION, STEPS, width=FLAGS.width)
        self.learner = torch_cdt.Learner(self.network, ACTION)

    def training(self, size: int) -> Callable[[], None]:
        """A call of PER_CALL training steps on a batch of that size."""
        torch, shape = self.torch, (size, 10)
        batch = (
            torch.randn(*shape, OBS),
            torch.rand(*shape, ACTION) * 2 - 1,
            torch.randn(shape),
            torch.randn(shape),
            (torch.rand(shape) < 0.05).float(),
            torch.randint(0, STEPS, shape),
            torch.ones(shape, dtype=torch.bool),
        )

        def train():
            self.network.train()
            for _ in range(PER_CALL):
                self.learner.update(batch)

        return train

    def rollouts(self, episodes: int) -> Callable[[], object]:
        """A call that rolls that many episodes out."""
        obs = self.torch.randn(episodes, OBS)

        def roll():
            self.network.eval()
            return self.roll(self.network, obs, FLAGS.length)

        return roll


def _rows(what: str, size: int, ours: dict, theirs: Callable | None, work: float) -> list[dict]:
    """One setting's rows, in turns, of our calls and their costs by name, and of PyTorch's call."""
    costs = {by: cost for by, (_, cost) in ours.items()}
    sides = {by: call for by, (call, _) in ours.items()}
    if theirs is not None:
        sides["PyTorch"], costs["PyTorch"] = theirs, {"compile_s": 0.0}
    found = timing.interleaved(sides, work, FLAGS.repeats, min_s=0.5)
    head = {"what": what}
    return [head | {"by": by, "batch": size} | row | costs[by] for by, row in found.items()]


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores = timing.pin(cores)
    parallel.split_host_cpu(cores)
    peer = None
    if FLAGS.torch:
        with contextlib.suppress(ImportError):
            peer = Torch(cores)
    rows = []
    for size in map(int, FLAGS.batches):
        ours = {"jaxsafe": our_training(size)}
        rows += _rows("training", size, ours, peer and peer.training(size), PER_CALL)
    for episodes in map(int, FLAGS.episodes):
        ours = {"jaxsafe": our_rollouts(episodes, FLAGS.length)}
        if cores > 1 and episodes % cores == 0:
            name = f"jaxsafe, {cores} devices"
            ours[name] = our_rollouts(episodes, FLAGS.length, cores)
        work = episodes * FLAGS.length
        rows += _rows("rollouts", episodes, ours, peer and peer.rollouts(episodes), work)
    return [{"cores": cores} | row for row in rows]


def main(argv):
    """Measures and writes `results/cdt.json`."""
    del argv
    timing.main(
        "cdt",
        worker,
        ["torch", "batches", "episodes", "length", "width"],
        f"training steps/s and policy steps/s, CDT of width {FLAGS.width}, 3 layers, 10 steps of "
        f"context, {OBS}-d observations, {ACTION}-d actions; ours draws its windows, PyTorch's lie "
        "ready",
    )


if __name__ == "__main__":
    app.run(main)
