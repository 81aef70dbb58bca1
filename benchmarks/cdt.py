# SPDX-License-Identifier: Apache-2.0
"""Training steps and rollouts of the decision transformer, OSRL's default size, 40-d observations.

Where torch is installed, the same layers written in PyTorch stand beside ours. A rollout there is
OSRL's: the whole window through the network at every step, here also for many episodes at once.
Worlds cost next to nothing, so that a policy step is the policy's.
"""

import dataclasses

from absl import app, flags

from benchmarks import timing
from jaxsafe.core import parallel

FLAGS = flags.FLAGS
timing.define_flags()
flags.DEFINE_list("batches", ["16", "64", "256"], "Windows per training step.")
flags.DEFINE_list("episodes", ["1", "20", "1000"], "Episodes at once, of rollouts.")
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


def training_row(batch: int, repeats: int) -> dict:
    """Our training steps per second, window sampling included."""
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

    measured = timing.repeat(call, PER_CALL, repeats)
    return _row("training", "jaxsafe", batch, measured, costs)


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


def rollout_row(episodes: int, length: int, repeats: int, devices: int = 1) -> dict:
    """Our policy steps per second, equal parts of the episodes on each device."""
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
    call = lambda: jax.block_until_ready(program(keys, policy))  # noqa: E731
    measured = timing.repeat(call, part * devices * length, repeats)
    by = "jaxsafe" if devices == 1 else f"jaxsafe, {devices} devices"
    return _row("rollouts", by, episodes, measured, costs)


def torch_rows(cores: int, repeats: int) -> list[dict]:
    """The same in PyTorch: data ready in memory, and rollouts by whole windows."""
    try:
        import torch

        from benchmarks import torch_cdt
    except ImportError:
        return []
    torch.set_num_threads(cores)
    torch.manual_seed(0)
    network = torch_cdt.Network(OBS, ACTION, STEPS, width=FLAGS.width)
    learner, rows = torch_cdt.Learner(network, ACTION), []
    for size in map(int, FLAGS.batches):
        shape = (size, 10)
        batch = (
            torch.randn(*shape, OBS),
            torch.rand(*shape, ACTION) * 2 - 1,
            torch.randn(shape),
            torch.randn(shape),
            (torch.rand(shape) < 0.05).float(),
            torch.randint(0, STEPS, shape),
            torch.ones(shape, dtype=torch.bool),
        )

        def train(batch=batch):
            for _ in range(PER_CALL):
                learner.update(batch)

        measured = timing.repeat(train, PER_CALL, repeats)
        rows.append(_row("training", "PyTorch", size, measured, {"compile_s": 0.0}))
    network.eval()
    for episodes in map(int, FLAGS.episodes):
        obs = torch.randn(episodes, OBS)
        roll = lambda obs=obs: torch_cdt.rollout(network, obs, FLAGS.length)  # noqa: E731
        measured = timing.repeat(roll, episodes * FLAGS.length, repeats)
        rows.append(_row("rollouts", "PyTorch", episodes, measured, {"compile_s": 0.0}))
    return rows


def _row(what: str, by: str, batch: int, measured: dict, costs: dict) -> dict:
    return {"what": what, "by": by, "batch": batch} | measured | costs


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores = timing.pin(cores)
    parallel.split_host_cpu(cores)
    rows = [training_row(int(n), FLAGS.repeats) for n in FLAGS.batches]
    for episodes in map(int, FLAGS.episodes):
        for devices in sorted({1, cores} if episodes >= cores else {1}):
            rows.append(rollout_row(episodes, FLAGS.length, FLAGS.repeats, devices))
    if FLAGS.torch:
        rows += torch_rows(cores, FLAGS.repeats)
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
