# SPDX-License-Identifier: Apache-2.0
"""Environment steps a second of InvertedPendulum-v5 in MJX, beside MuJoCo C.

Every world has masses of its own and starts anew when its episode ends. One environment step is
two physics steps of RK4. Actions are uniform noise, or a linear controller that keeps every
pole up.
"""

from functools import partial

import numpy as np
from absl import app, flags

from benchmarks import balance, timing

FLAGS = flags.FLAGS
timing.define_flags()
flags.DEFINE_list("batches", ["16", "256", "1024"], "Worlds stepped together.")

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


def mjx_row(batch: int, kind: str, cores: int, repeats: int) -> dict:
    """MJX, the batch split over one device per core."""
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
    measured = timing.repeat(
        lambda: jax.block_until_ready(program(omegas, states, keys)), batch * STEPS, repeats
    )
    row = {"engine": "MJX", "worlds": batch, "actions": kind}
    return row | measured | costs


def host_row(batch: int, kind: str, cores: int, repeats: int) -> dict:
    """MuJoCo C on that many threads, stepped through Python once per control step."""
    from jaxsafe.envs import host, host_steps
    from jaxsafe.envs import uncertainty as sets

    task, uncertainty = sets.scenario("InvertedPendulum-2")
    spec, nominal = task.host
    rng = np.random.default_rng(0)
    omegas = rng.uniform(uncertainty.low, uncertainty.high, (batch, 2))
    models = [uncertainty.apply_host(nominal, omega) for omega in omegas]
    starts = host.initial_states(task, batch, 0)
    pool = host_steps.make_pool(nominal, cores)

    def call():
        qpos, qvel = (x.copy() for x in starts)
        for _ in range(STEPS):
            noise = rng.uniform(-3, 3, (batch, 1))
            action = _actions(np, noise, spec.observe(np, qpos, qvel), kind)
            qpos, qvel = host_steps.step_batch(spec, pool, models, qpos, qvel, action)
            ended = spec.terminated(np, qpos, qvel)
            qpos[ended], qvel[ended] = starts[0][ended], starts[1][ended]

    measured = timing.repeat(call, batch * STEPS, repeats)
    pool.rollout.close()
    return {"engine": "MuJoCo C", "worlds": batch, "actions": kind} | measured


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    from jaxsafe.core import parallel

    cores = timing.pin(cores)
    parallel.split_host_cpu(cores)
    rows = []
    for kind in ("controller", "noise"):
        for batch in map(int, FLAGS.batches):
            rows.append(mjx_row(batch, kind, cores, FLAGS.repeats))
            rows.append(host_row(batch, kind, cores, FLAGS.repeats))
    return [{"cores": cores} | row for row in rows]


def main(argv):
    """Measures and writes `results/mjx_steps.json`."""
    del argv
    timing.main(
        "mjx_steps",
        worker,
        ["batches"],
        "environment steps/s of InvertedPendulum-v5 (two RK4 physics steps each), own masses in "
        "every world, episodes restarted; MJX splits the worlds over one device per core",
    )


if __name__ == "__main__":
    app.run(main)
