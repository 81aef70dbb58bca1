# SPDX-License-Identifier: Apache-2.0
"""Time to score one policy on InvertedPendulum-2: 100 omegas x 30 episodes of 1000 steps.

The policy is a linear controller that keeps every pole up, but for starts in a corner of the reset
box at the lightest masses, which fall some ten steps before the end (in MuJoCo C as well). So no
episode ends early to speak of, and every engine takes every step. MuJoCo C is stepped through
Python on one thread per core, as scores are made; the JAX engines run `worst_case` in one call on
one device, without a search.
"""

import dataclasses
from functools import partial

import numpy as np
from absl import app, flags

from benchmarks import balance, timing

FLAGS = flags.FLAGS
timing.define_flags(repeats=3)
flags.DEFINE_integer("grid", 10, "Points per parameter.")
flags.DEFINE_integer("episodes", 30, "Episodes a point.")
flags.DEFINE_integer("length", 1000, "Control steps of an episode.")
flags.DEFINE_list("batches", ["64", "256", "1024"], "Episodes side by side in the JAX engines.")
flags.DEFINE_list("engines", ["mujoco_c", "mjx", "analytic"], "What to measure.")


def _work() -> int:
    """Environment steps of one evaluation."""
    return FLAGS.grid**2 * FLAGS.episodes * FLAGS.length


def _row(engine: str, batch: int, measured: dict, costs: dict) -> dict:
    """One row; `rate` is environment steps a second, `seconds` those of a whole evaluation."""
    head = {"engine": engine, "omegas": FLAGS.grid**2, "episodes": FLAGS.episodes, "batch": batch}
    seconds = {"seconds": _work() / measured["rate"]}
    return head | seconds | measured | costs


def jax_row(engine: str, batch: int) -> dict:
    """One call of `worst_case` in a JAX engine."""
    import jax
    import jax.numpy as jnp

    from jaxsafe.envs import uncertainty as sets
    from jaxsafe.envs.worst_case import Search, worst_case

    world = sets.scenario("InvertedPendulum-2", engine=engine)

    def evaluate(key, gains):
        act = partial(balance.force, jnp, gains=gains)
        search = Search(random=0, rounds=0)
        return worst_case(key, act, *world, FLAGS.grid, FLAGS.episodes, search, FLAGS.length, batch)

    key, gains = jax.random.key(0), jnp.asarray(balance.GAINS)
    program, costs = timing.compiled(evaluate, key, gains)
    worst = float(program(key, gains).worst)
    if worst < 0.99 * FLAGS.length:
        raise RuntimeError(f"{engine}: a pole fell (worst return {worst}): not what is to be timed")
    measured = timing.repeat(
        lambda: jax.block_until_ready(program(key, gains)), _work(), FLAGS.repeats
    )
    return _row(engine, batch, measured, costs)


def host_row(cores: int) -> dict:
    """MuJoCo C, all episodes in one batch."""
    from jaxsafe.envs import host
    from jaxsafe.envs import uncertainty as sets

    task, uncertainty = sets.scenario("InvertedPendulum-2")
    task = dataclasses.replace(task, max_episode_steps=FLAGS.length)
    omegas = np.asarray(uncertainty.grid(FLAGS.grid))
    act = partial(balance.force, np)

    def call():
        return host.score(task, act, uncertainty, omegas, FLAGS.episodes, 0, num_threads=cores)

    measured = timing.repeat(call, _work(), FLAGS.repeats)
    return _row("MuJoCo C", len(omegas) * FLAGS.episodes, measured, {"compile_s": 0.0})


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores = timing.pin(cores)
    rows = [host_row(cores)] if "mujoco_c" in FLAGS.engines else []
    for engine in (e for e in FLAGS.engines if e != "mujoco_c"):
        rows += [jax_row(engine, batch) for batch in map(int, FLAGS.batches)]
    return [{"cores": cores} | row for row in rows]


def main(argv):
    """Measures and writes `results/grid_evaluation.json`."""
    del argv
    timing.main(
        "grid_evaluation",
        worker,
        ["grid", "episodes", "length", "batches", "engines"],
        f"one policy on InvertedPendulum-2, {FLAGS.grid**2} omegas x {FLAGS.episodes} episodes x "
        f"{FLAGS.length} steps, poles kept up; rate: environment steps/s (two RK4 physics "
        "steps each); JAX engines in one call on one device, batch: episodes side by side",
    )


if __name__ == "__main__":
    app.run(main)
