# SPDX-License-Identifier: Apache-2.0
"""Critic updates a second of M2TD3 with the paper's networks and batch, replay sampling included.

One update is one critic step; every second one also moves the actor, a candidate and the targets.
Where torch is installed, the same update written in PyTorch takes its turns beside ours with one
seed, and, with `--reference=PATH`, so does the authors' own code from a checkout of
akimotolab/M2TD3 at a650b10.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable

from absl import app, flags

from benchmarks import timing

FLAGS = flags.FLAGS
timing.define_flags(repeats=5)
flags.DEFINE_list("seeds", ["1", "8", "32"], "Seeds side by side; 8 in turn as well.")
flags.DEFINE_bool("torch", True, "Measure PyTorch too, if installed.")
flags.DEFINE_string("reference", "", "A checkout of the authors' code, to measure it as well.")

DIMS = {"obs": 4, "action": 1, "omega": 2}  # InvertedPendulum-2
STORED, PER_CALL = 100_000, 100
IN_TURN = 8  # seeds that are measured one after the other as well


def _learner(num_seeds: int, in_turn: bool, devices: int):
    """A compiled call of PER_CALL critic updates per seed, its arguments, and its costs."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from jaxsafe.core import parallel
    from jaxsafe.m2td3 import Transition, init, make_world, train
    from jaxsafe.m2td3.config import PAPER
    from jaxsafe.m2td3.draws import draw

    config = dataclasses.replace(
        PAPER, updates_per_step=2, num_envs=1, replay_capacity=STORED, probability_horizon=1000
    )
    world = make_world([4, 20, 2, 3], [-3], [3], [1, 1], [31, 11])
    key_init, key_data, key_run = jax.random.split(jax.random.key(0), 3)
    states = jax.vmap(lambda k: init(k, config, world))(jax.random.split(key_init, num_seeds))
    sizes = (DIMS["obs"], DIMS["action"], None, None, DIMS["obs"], DIMS["omega"])
    buffer = Transition(
        *(
            jax.random.normal(key, (STORED,) if size is None else (STORED, size))
            for key, size in zip(jax.random.split(key_data, 6), sizes, strict=True)
        )
    )._replace(discount=jnp.full(STORED, 0.99))

    def many(state_and_key):
        state, key = state_and_key

        def one(state, x):
            step, draws = x
            state, metrics = train.learn(draws, state, buffer, step, config)
            return state, metrics["critic/loss"]

        steps = STORED + state.step // 2 + jnp.arange(PER_CALL // 2)
        draws = jax.vmap(lambda step: draw(key, step, config, world))(steps)
        return lax.scan(one, state, (steps, draws))

    keys = jax.random.split(key_run, num_seeds)
    mapped = parallel.map_seeds(many, parallel.seed_mesh(devices), in_turn=in_turn)
    program, costs = timing.compiled(mapped, (states, keys))
    return program, states, keys, costs


def our_side(num_seeds: int, in_turn: bool = False, devices: int = 1):
    """A call of ours with that many seeds, as one batch or in turn on each of some devices.

    Returns:
      the call, of PER_CALL critic updates a seed, and the program's costs.
    """
    import jax

    program, states, keys, costs = _learner(num_seeds, in_turn, devices)

    def call():
        nonlocal states
        states, _ = jax.block_until_ready(program((states, keys)))

    return call, costs


def torch_side(learner) -> Callable[[], None]:
    """A call of PER_CALL critic updates of a PyTorch learner, whose `update` does two."""

    def call():
        for _ in range(PER_CALL // 2):
            learner.update()

    return call


def torch_sides(cores: int) -> dict[str, Callable[[], None]]:
    """The same update in PyTorch, and the authors' code where it is given."""
    try:
        from benchmarks import reference_m2td3, torch_m2td3
    except ImportError:
        return {}
    setting = DIMS | {"stored": STORED, "threads": cores}
    sides = {"PyTorch": torch_side(torch_m2td3.Learner(**setting))}
    if FLAGS.reference:
        theirs = reference_m2td3.Learner(FLAGS.reference, **setting)
        sides["authors' code"] = torch_side(theirs)
    return sides


def rows_of(seeds: int, cores: int) -> list[dict]:
    """Everything that is measured with that many seeds, in turns."""
    sides, costs = {}, {}
    sides["jaxsafe"], costs["jaxsafe"] = our_side(seeds)
    if seeds == IN_TURN:
        name = f"jaxsafe, in turn on {cores}"
        sides[name], costs[name] = our_side(seeds, in_turn=True, devices=cores)
    if seeds == 1 and FLAGS.torch:
        sides |= torch_sides(cores)
    found = timing.interleaved(sides, PER_CALL * seeds, FLAGS.repeats, min_s=0.5)
    return [
        {"what": what, "seeds": seeds} | row | costs.get(what, {}) for what, row in found.items()
    ]


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    from jaxsafe.core import parallel

    cores = timing.pin(cores)
    parallel.split_host_cpu(cores)
    rows = [row for seeds in map(int, FLAGS.seeds) for row in rows_of(seeds, cores)]
    return [{"cores": cores} | row for row in rows]


def main(argv):
    """Measures and writes `results/m2td3_updates.json`."""
    del argv
    if FLAGS.reference and not pathlib.Path(FLAGS.reference, "M2TD3/m2td3.py").is_file():
        print(
            f"error: --reference={FLAGS.reference} has no M2TD3/m2td3.py: give the path of a "
            "checkout of akimotolab/M2TD3.",
            file=sys.stderr,
        )
        sys.exit(2)
    timing.main(
        "m2td3_updates",
        worker,
        ["seeds", "torch", "reference"],
        "critic updates/s, hard M2TD3, networks 2 x 256, batch 100, K = 5, replay sampling "
        "included; rates are totals over seeds",
    )


if __name__ == "__main__":
    app.run(main)
