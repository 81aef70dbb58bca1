# SPDX-License-Identifier: Apache-2.0
"""Time of a safe search's step, two models on 2,500 points: take an observation, choose the next.

Latency: whole searches on drawn functions, each engine by its own rule and through plain calls from
Python; timed is the step that takes observation number N. Every function is searched by all
engines, one after the other, before the next is; the first steps on one more function warm up.
Engines of one rule choose the same points, but for rounding. Ours stands beside SafeOpt's rule in
NumPy, safe UCB by scikit-learn and, where it is installed (`pip install .[peers]`), by BoTorch,
whose slow forms run at the observations that are timed only. Throughput: whole searches mapped over
seeds.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

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

Maker = Callable[[safe_game.Game], Any]  # makes one search of an engine
WARM_UP = 3  # steps of every engine before the first that counts


def _observations() -> list[int]:
    return sorted(map(int, FLAGS.observations))


def latency_rows(engines: Mapping[str, Maker]) -> list[dict]:
    """Times engines' steps at each N over searches on different functions, engines in turns."""
    steps, first = max(_observations()), {}
    game = safe_game.draw(0, FLAGS.side, steps)
    for what, make in engines.items():
        first[what] = float(safe_game.play(make(game), game, min(WARM_UP, steps))[1][0, 0])
    runs: dict[str, list[np.ndarray]] = {what: [] for what in engines}
    for number in range(1, FLAGS.repeats + 1):
        game = safe_game.draw(number, FLAGS.side, steps)
        for what, make in engines.items():
            runs[what].append(safe_game.play(make(game), game, steps)[1])
    return [
        _latency_row(what, count, np.stack(runs[what])[:, count - 1] * 1e3, first[what])
        for what in engines
        for count in _observations()
    ]


def _latency_row(what: str, count: int, ms: np.ndarray, first: float) -> dict:
    """Of the wall and CPU milliseconds `[n, 2]` of a step, and the seconds of the first one."""
    low, middle, high = np.percentile(ms[:, 0], [25, 50, 75])
    return (
        {"what": what, "N": count, "seeds": 1, "ms": middle, "low_ms": low, "high_ms": high}
        | {"cpu_ms": float(np.median(ms[:, 1])), "rate": 1e3 / middle, "repeats": len(ms)}
        # Of the peers nothing compiles.
        | {"compile_s": first if what.startswith("jaxsafe") else 0.0}
    )


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
    call = lambda: jax.block_until_ready(program(*arguments))  # noqa: E731
    measured = timing.repeat(call, config.num_steps * seeds, FLAGS.repeats)
    head = {"what": f"jaxsafe, whole searches, expander {expander}", "N": config.num_steps}
    per_step = {"ms": 1e3 / measured["rate"], "cpu_ms": 1e3 / measured["per_cpu_s"]}
    return head | {"seeds": seeds} | per_step | measured | costs


def our_engines(steps: int) -> tuple[dict[str, Maker], dict[str, dict]]:
    """Our rules, and the temporary memory of a step of each."""
    engines: dict[str, Maker] = {}
    memory = {}
    game = safe_game.draw(0, FLAGS.side, steps)
    for rule in safe_game.RULES:
        config = safe_game.config_of(rule, steps)
        make = functools.partial(safe_game.Ours, config=config)
        engines[f"jaxsafe, {rule}"] = make
        memory[f"jaxsafe, {rule}"] = {"temporary_mb": make(game).temporary_mb()}
    return engines, memory


def peers(alphas: np.ndarray, cores: int) -> dict[str, Maker]:
    """The other engines that are asked for and installed."""
    from benchmarks import safeopt_numpy, sklearn_search

    engines: dict[str, Maker] = {}
    if "safeopt" in FLAGS.engines:
        engines["SafeOpt's rule, our NumPy reference"] = functools.partial(
            safeopt_numpy.SafeOpt, alphas=alphas
        )
    if "sklearn" in FLAGS.engines:
        engines["scikit-learn, safe UCB"] = functools.partial(sklearn_search.SafeUCB, alphas=alphas)
    if "botorch" in FLAGS.engines:
        with contextlib.suppress(ImportError):
            from benchmarks import botorch_search

            given = {"alphas": alphas, "threads": cores, "timed": _observations()}
            for how in botorch_search.HOW:
                make = functools.partial(botorch_search.SafeUCB, how=how, **given)
                engines[f"BoTorch, safe UCB, {how}"] = make
    return engines


def worker(cores: int) -> list[dict]:
    """Rows of one core count; JAX must not have started in this process."""
    cores = timing.pin(cores)
    from jaxsafe import pls

    steps = max(_observations())
    ours, memory = our_engines(steps) if "jaxsafe" in FLAGS.engines else ({}, {})
    alphas = pls.alpha_table(safe_game.config_of("SafeOpt", steps), FLAGS.side**2, 1)[:, 0]
    rows = latency_rows(ours | peers(alphas, cores))
    rows = [row | memory.get(row["what"], {}) for row in rows]
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
