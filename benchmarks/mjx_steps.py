# SPDX-License-Identifier: Apache-2.0
"""Environment steps a second of InvertedPendulum-v5 in MJX, MuJoCo C taking its turns beside it.

Every world has masses of its own and starts anew when its episode ends. One environment step is
two physics steps of RK4. Actions are uniform noise, or a linear controller that keeps every
pole up.
"""

import contextlib
from functools import partial

import numpy as np
from absl import app, flags

from benchmarks import balance, timing

FLAGS = flags.FLAGS
timing.define_flags(repeats=5)
flags.DEFINE_list("batches", ["16", "256", "1024"], "Worlds stepped together.")
flags.DEFINE_bool("mujoco_c", True, "Measure MuJoCo C too.")

STEPS = 100


def _actions(xp, noise, obs, kind):
    return noise if kind == "noise" else balance.force(xp, obs)


def _scan(task, uncertainty, omegas, states, key, kind):
    """STEPS control steps of B worlds `[B, ...]`, all in one compiled loop."""
    import jax
    from jax import lax

    from jaxsafe.envs import rollout

    models, axes = uncertainty.batched(task.model, omegas)
    observe = jax.vmap(task.observe, in_axes=(axes, 0))
    advance = jax.vmap(task.step, in_axes=(axes, 0, 0))
    reset = jax.vmap(partial(rollout.auto_reset, task), in_axes=(axes, 0, 0, 0))

    def body(states, key):
        key_noise, key_reset = jax.random.split(key)
        batch = omegas.shape[0]
        noise = jax.random.uniform(key_noise, (batch, 1), minval=-3.0, maxval=3.0)
        action = _actions(jax.numpy, noise, observe(models, states), kind)
        states, timestep = advance(models, states, action)
        states = reset(models, states, timestep, jax.random.split(key_reset, batch))
        return states, timestep.reward.sum()

    return lax.scan(body, states, jax.random.split(key, STEPS))[0]


def mjx_side(batch: int, kind: str, cores: int):
    """A call of MJX, the batch split over one device per core, and its program's costs."""
    import jax
    from jax.sharding import PartitionSpec as P

    from jaxsafe.core import parallel
    from jaxsafe.envs import uncertainty as sets

    task, uncertainty = sets.scenario("InvertedPendulum-2")
    mesh = parallel.seed_mesh(cores)
    omegas = uncertainty.sample(jax.random.key(0), (batch,))
    states = jax.vmap(lambda k: task.reset(task.model, k))(
        jax.random.split(jax.random.key(1), batch)
    )
    keys = jax.random.split(jax.random.key(2), cores)
    omegas, states, keys = jax.device_put((omegas, states, keys), parallel.seed_sharding(mesh))
    split = jax.shard_map(
        lambda w, s, k: _scan(task, uncertainty, w, s, k[0], kind),
        mesh=mesh,
        in_specs=P(parallel.SEED_AXIS),
        out_specs=P(parallel.SEED_AXIS),
        check_vma=False,
    )
    program, costs = timing.compiled(split, omegas, states, keys)
    return lambda: jax.block_until_ready(program(omegas, states, keys)), costs


def host_side(batch: int, kind: str, pool):
    """A call of MuJoCo C on a pool of threads, stepped through Python once per control step."""
    from jaxsafe.envs import host, host_steps
    from jaxsafe.envs import uncertainty as sets

    task, uncertainty = sets.scenario("InvertedPendulum-2")
    spec, nominal = task.host
    rng = np.random.default_rng(0)
    omegas = rng.uniform(uncertainty.low, uncertainty.high, (batch, 2))
    models = [uncertainty.apply_host(nominal, omega) for omega in omegas]
    starts = host.initial_states(task, batch, 0)

    def call():
        qpos, qvel = (x.copy() for x in starts)
        for _ in range(STEPS):
            noise = rng.uniform(-3, 3, (batch, 1))
            action = _actions(np, noise, spec.observe(np, qpos, qvel), kind)
            qpos, qvel = host_steps.step_batch(spec, pool, models, qpos, qvel, action)
            ended = spec.terminated(np, qpos, qvel)
            qpos[ended], qvel[ended] = starts[0][ended], starts[1][ended]

    return call


def rows_of(batch: int, kind: str, cores: int) -> list[dict]:
    """Both engines on one setting, in turns."""
    from jaxsafe.envs import host_steps
    from jaxsafe.envs import uncertainty as sets

    ours, costs = mjx_side(batch, kind, cores)
    sides = {"MJX": ours}
    with contextlib.ExitStack() as stack:
        if FLAGS.mujoco_c:
            pool = host_steps.make_pool(sets.scenario("InvertedPendulum-2")[0].host.model, cores)
            stack.callback(pool.rollout.close)
            sides["MuJoCo C"] = host_side(batch, kind, pool)
        found = timing.interleaved(sides, batch * STEPS, FLAGS.repeats, min_s=0.5)
    return [
        {"engine": engine, "worlds": batch, "actions": kind}
        | row
        | (costs if engine == "MJX" else {})
        for engine, row in found.items()
    ]


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    from jaxsafe.core import parallel

    cores = timing.pin(cores)
    parallel.split_host_cpu(cores)
    rows = []
    for kind in ("controller", "noise"):
        for batch in map(int, FLAGS.batches):
            rows += rows_of(batch, kind, cores)
    return [{"cores": cores} | row for row in rows]


def main(argv):
    """Measures and writes `results/mjx_steps.json`."""
    del argv
    timing.main(
        "mjx_steps",
        worker,
        ["batches", "mujoco_c"],
        "environment steps/s of InvertedPendulum-v5 (two RK4 physics steps each), own masses in "
        "every world, episodes restarted; MJX splits the worlds over one device per core",
    )


if __name__ == "__main__":
    app.run(main)
