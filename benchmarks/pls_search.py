# SPDX-License-Identifier: Apache-2.0
"""Time of a safe search's step, two models on 2,500 points: take an observation, choose the next.

Latency: whole searches, one after the other on drawn functions, each engine by its own rule and
through plain calls from Python; timed is the step that takes observation number N. Engines of one
rule choose the same points, but for rounding. Ours stands beside SafeOpt's rule in NumPy, safe UCB
by scikit-learn and, where it is installed (`pip install .[peers]`), by BoTorch. Throughput: whole
searches mapped over seeds.
"""

import functools
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import safe_game, timing

FLAGS = flags.FLAGS
timing.define_flags(repeats=5)
flags.DEFINE_list("observations", ["5", "20", "50", "100"], "The observations N that are timed.")
flags.DEFINE_integer("side", 50, "Grid points along each axis.", 2)
flags.DEFINE_list("seeds", ["5", "50", "500"], "Searches side by side of throughput rows.")
flags.DEFINE_integer("steps", 20, "Steps of each stage of the throughput rows.", 1)
flags.DEFINE_list(
    "engines", ["jaxsafe", "safeopt", "sklearn", "botorch", "throughput"], "Which rows to measure."
)


def _observations() -> list[int]:
    return sorted(map(int, FLAGS.observations))


def latency_rows(what: str, make: Callable[[safe_game.Game], object]) -> list[dict]:
    """Times an engine's step at each N over searches on different functions."""
    steps = max(_observations())
    runs = []
    for number in range(FLAGS.repeats + 1):
        game = safe_game.draw(number, FLAGS.side, steps)
        runs.append(safe_game.play(make(game), game, steps)[1])
    rows = []
    for count in _observations():
        wall, cpu = np.stack(runs[1:])[:, count - 1].T * 1e3
        low, middle, high = np.percentile(wall, [25, 50, 75])
        rows.append(
            {"what": what, "N": count, "seeds": 1, "ms": middle, "low_ms": low, "high_ms": high}
            | {"cpu_ms": float(np.median(cpu)), "rate": 1e3 / middle, "repeats": FLAGS.repeats}
            | {"compile_s": float(runs[0][0, 0])}
        )
    return rows


def peer_rows(what: str, make: Callable[[safe_game.Game], object]) -> list[dict]:
    """`latency_rows` of an engine that compiles nothing."""
    return [row | {"compile_s": 0.0} for row in latency_rows(what, make)]


def throughput_row(expander: str, seeds: int) -> dict:
    """Times whole searches mapped over seeds, each on a function of its own."""
    import jax
    import jax.numpy as jnp

    from jaxsafe import pls

    config = pls.SearchConfig(
        explore_steps=FLAGS.steps, reward_steps=FLAGS.steps, expander=expander
    )
    games = [safe_game.draw(n, FLAGS.side, 0) for n in range(seeds)]
    problem = safe_game.problem_of(games[0], config)
    truths = jnp.asarray(np.stack([game.truth for game in games]), float)
    masks = jnp.asarray(np.stack([game.seed for game in games]))

    def one(key, truth, mask):
        def evaluate(key, point, z):
            noise = safe_game.NOISE_SD * jax.random.normal(key, (1, 1, 2))
            return truth[:, point].T[:, None] + noise

        state, trace = pls.run_search(key, evaluate, problem.replace(seed=mask), config)
        return pls.recommend(state, config), trace.point

    arguments = (jax.random.split(jax.random.key(0), seeds), truths, masks)
    program, costs = timing.compiled(jax.vmap(one), *arguments)
    work, cpu = config.num_steps * seeds, []

    def call():
        start = time.process_time()
        jax.block_until_ready(program(*arguments))
        cpu.append(time.process_time() - start)

    measured = timing.repeat(call, work, FLAGS.repeats)
    cpu_ms = 1e3 * float(np.median(cpu)) / work
    head = {"what": f"jaxsafe, whole searches, expander {expander}", "N": config.num_steps}
    per_step = {"ms": 1e3 / measured["rate"], "cpu_ms": cpu_ms, "per_cpu_s": 1e3 / cpu_ms}
    return head | {"seeds": seeds} | per_step | measured | costs


def botorch_rows(alphas: np.ndarray, cores: int) -> list[dict]:
    """Safe UCB by BoTorch; none where it is not installed."""
    try:
        from benchmarks import botorch_search
    except ImportError:
        return []
    rows = []
    for how in botorch_search.HOW:

        def make(game, how=how):
            return botorch_search.SafeUCB(game, alphas, how, cores)

        rows += peer_rows(f"BoTorch, safe UCB, {how}", make)
    return rows


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores = timing.pin(cores)
    from benchmarks import safeopt_numpy, sklearn_search
    from jaxsafe import pls

    rows, steps = [], max(_observations())
    for rule in safe_game.RULES if "jaxsafe" in FLAGS.engines else ():
        config = safe_game.config_of(rule, steps)
        make = functools.partial(safe_game.Ours, config=config)
        memory = {"temporary_mb": make(safe_game.draw(0, FLAGS.side, steps)).temporary_mb()}
        rows += [row | memory for row in latency_rows(f"jaxsafe, {rule}", make)]
    alphas = pls.alpha_table(safe_game.config_of("SafeOpt", steps), FLAGS.side**2, 1)[:, 0]
    if "safeopt" in FLAGS.engines:
        name = "SafeOpt's rule, our NumPy reference"
        rows += peer_rows(name, lambda game: safeopt_numpy.SafeOpt(game, alphas))
    if "sklearn" in FLAGS.engines:
        rows += peer_rows("scikit-learn, safe UCB", lambda g: sklearn_search.SafeUCB(g, alphas))
    if "botorch" in FLAGS.engines:
        rows += botorch_rows(alphas, cores)
    if "throughput" in FLAGS.engines:
        sizes = [int(n) for n in FLAGS.seeds]
        rows += [throughput_row(expander, n) for expander in ("none", "gp") for n in sizes]
    return [{"cores": cores} | row for row in rows]


def main(argv):
    """Measures and writes `results/pls_search.json`."""
    del argv
    timing.main(
        "pls_search",
        worker,
        ["side", "seeds", "steps", "observations", "engines"],
        f"one step of a safe search, 2 models on {FLAGS.side}x{FLAGS.side} points; N: observations "
        "after it; ms: wall, median and quartiles over functions; rate: steps/s, over all seeds; "
        "cpu_ms, per_cpu_s: by CPU time; compile_s: the first step, with its compilation",
    )


if __name__ == "__main__":
    app.run(main)
