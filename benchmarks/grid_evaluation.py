# SPDX-License-Identifier: Apache-2.0
"""Time to score one policy on InvertedPendulum-2: 100 omegas x 30 episodes, cut to 200 steps.

A whole evaluation has episodes of 1000 steps, `--length=1000`, and takes five times as long. The
policy is a linear controller that keeps every pole up, but for starts in a corner of the reset box
at the lightest masses, which fall some ten steps before the thousandth (in MuJoCo C as well). So no
episode ends early to speak of, and every engine takes every step. MuJoCo C is stepped through
Python on one thread per core, as scores are made; the JAX engines run `worst_case` in one call on
one device, without a search. All do the same work and take turns.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
from absl import app, flags

from benchmarks import balance, timing

FLAGS = flags.FLAGS
timing.define_flags(repeats=5)
flags.DEFINE_integer("grid", 10, "Points per parameter.")
flags.DEFINE_integer("episodes", 30, "Episodes a point.")
flags.DEFINE_integer("length", 200, "Control steps of an episode.")
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


def jax_side(engine: str, batch: int):
    """A call of `worst_case` in a JAX engine, and its program's costs."""
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
    return lambda: jax.block_until_ready(program(key, gains)), costs


def host_side(cores: int):
    """A call of MuJoCo C, all episodes in one batch."""
    from jaxsafe.envs import host
    from jaxsafe.envs import uncertainty as sets

    task, uncertainty = sets.scenario("InvertedPendulum-2")
    task = dataclasses.replace(task, max_episode_steps=FLAGS.length)
    omegas = np.asarray(uncertainty.grid(FLAGS.grid))
    act = partial(balance.force, np)

    def call():
        return host.score(task, act, uncertainty, omegas, FLAGS.episodes, 0, num_threads=cores)

    return call


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores = timing.pin(cores)
    cases: dict[str, tuple[str, int]] = {}
    sides: dict[str, Callable[[], object]] = {}
    costs: dict[str, dict] = {}
    if "mujoco_c" in FLAGS.engines:
        name = "MuJoCo C"
        cases[name], costs[name] = (name, FLAGS.grid**2 * FLAGS.episodes), {"compile_s": 0.0}
        sides[name] = host_side(cores)
    for engine in (e for e in FLAGS.engines if e != "mujoco_c"):
        for batch in map(int, FLAGS.batches):
            name = f"{engine} {batch}"
            cases[name] = (engine, batch)
            sides[name], costs[name] = jax_side(engine, batch)
    found = timing.interleaved(sides, _work(), FLAGS.repeats, min_s=0.5)
    return [{"cores": cores} | _row(*cases[name], found[name], costs[name]) for name in sides]


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
