# SPDX-License-Identifier: Apache-2.0
"""What a search of a supernet found: the architectures, and how they score with its weights.

`results` of `summary.json` has one flat row per method, lists in the order of the seeds:

  method                    as the flag --methods has it
  architecture_per_seed     the most likely one ("AM"); for random, the best of `candidates` by
                            validation loss
  loss_per_seed, accuracy_per_seed
                            of that, on the fixed validation half, with the supernet's weights
  lucky_per_seed            the sampled one of lowest single-minibatch loss ("PB")
  lucky_loss_per_seed, lucky_accuracy_per_seed
                            of that, on the fixed validation half
  accuracy_mean, accuracy_sd
                            over the seeds; text has `perplexity` where images have `accuracy`
  retrained_per_seed        `accuracy` or `perplexity` on the test set of each architecture, trained
                            from scratch: a list per seed, one number per training; and their mean
                            and deviation over architectures, `retrained_mean`, `retrained_sd`
  step_ms                   milliseconds of a search step of one seed on one device, over the whole
                            search (see `equal_time.py`)
  equal_time_step           the last row of the method at the time at which the quickest one ended
  equal_time_retrained_per_seed, equal_time_retrained_mean, equal_time_retrained_sd
                            as `retrained`, of the architectures of that row; none of these four
                            where they are not asked for, and of random search only if it is the
                            quickest, since its choice is made at the end
  parameters_per_seed, multiply_adds_per_seed
                            of the architectures
  rank_correlation_per_seed, rank_correlation_mean, rank_correlation_sd
                            Spearman's, between each supernet's validation loss of the same random
                            architectures and what training them gives on average, signed so that 1
                            is perfect
  rank_ceiling              Spearman's, between the averages of the first and of the second half of
                            those trainings, the same for all methods: near 0, training hardly
                            tells the architectures apart. All are absent where it tells none apart
  confidence_per_seed       mean over edges of theta's greatest probability
  COLUMN_per_seed           what --table says of the architectures; none where there is no table
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxsafe.advantage_nas import algorithm, strings
from jaxsafe.advantage_nas.experiment import Scoring
from jaxsafe.advantage_nas.retrain import RetrainConfig
from jaxsafe.advantage_nas.tables import Table
from jaxsafe.advantage_nas.task import Task
from jaxsafe.advantage_nas.types import Metrics


class Found(NamedTuple):
    """What S seeds of one method ended with.

    Attributes:
      choice: `[S, E]` the architectures.
      lucky: `[S, E]` those of lowest single-minibatch loss.
      scores: name -> `[S]` of `choice` on the validation half.
      lucky_scores: likewise of `lucky`.
      theta: `[S, E, K]`.
    """

    choice: np.ndarray
    lucky: np.ndarray
    scores: dict[str, np.ndarray]
    lucky_scores: dict[str, np.ndarray]
    theta: np.ndarray


def find(result: Any, method: str, task: Task, scoring: Scoring, seeds: range) -> Found:
    """Scores what a stage's `result`, `(weights, theta, best)` of S seeds, holds."""
    weights, theta, best = result
    score = _scorer(task)
    choice, rows, lucky_rows = [], [], []
    for i, seed in enumerate(seeds):
        one = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), weights)
        candidates = _candidates(theta[i], method, scoring, seed)
        both = jnp.concatenate([candidates, jnp.asarray(best.choice[i])[None]])
        values = {name: np.asarray(x) for name, x in score(one, both).items()}
        pick = int(np.argmin(values["loss"][:-1]))
        choice.append(np.asarray(candidates[pick]))
        rows.append({name: x[pick] for name, x in values.items()})
        lucky_rows.append({name: x[-1] for name, x in values.items()})

    def stacked(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}

    return Found(
        np.stack(choice),
        np.asarray(best.choice),
        stacked(rows),
        stacked(lucky_rows),
        np.asarray(theta),
    )


def _candidates(theta: np.ndarray, method: str, scoring: Scoring, seed: int) -> jax.Array:
    """The most likely architecture `[1, E]`, or those `[N, E]` among which random search picks."""
    if method != "random":
        return algorithm.most_likely(jnp.asarray(theta))[None]
    key = jax.random.fold_in(jax.random.key(seed), 1)
    shape = (scoring.candidates, theta.shape[0])
    return jax.random.randint(key, shape, 0, theta.shape[1], jnp.int32)


@functools.cache
def _scorer(task: Task) -> Callable[..., Metrics]:
    """`(weights, architectures [N, E]) -> scores [N]`, compiled once for all methods."""
    return jax.jit(lambda weights, choice: jax.lax.map(lambda c: task.score(weights, c), choice))


@functools.cache
def _trainer(task: Task, how: RetrainConfig) -> Callable[..., jax.Array]:
    """`(key, architecture [E]) -> the task's measure []`, compiled once for all architectures."""
    return jax.jit(lambda key, choice: task.train(key, choice, how)[task.measure])


def retrained(
    choice: np.ndarray,
    task: Task,
    scoring: Scoring,
    seed: int,
    count: int,
    done: Callable[[], Any] = lambda: None,
    known: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """The task's measure `[A, count]` of architectures `[A, E]`, each trained `count` times.

    One training after the other on each of this process's devices; `done` is called after each.

    Args:
      choice: `[A, E]`.
      task: of the architectures.
      scoring: how to train.
      seed: of all trainings.
      count: trainings of each.
      done: see above.
      known: architectures `[A, E]` and what this function gave of them; those that are the same
        here are not trained again, since they would come out the same.
    """
    train, devices = _trainer(task, scoring.retrain), jax.local_devices()
    found: list[jax.Array] = []
    for pair in range(len(choice) * count):
        if known is not None and np.array_equal(known[0][pair // count], choice[pair // count]):
            found.append(jnp.asarray(known[1][pair // count, pair % count]))
            done()
            continue
        key = jax.random.fold_in(jax.random.key(seed), 100 + pair)
        given = key, jnp.asarray(choice[pair // count], jnp.int32)
        found.append(train(*jax.device_put(given, devices[pair % len(devices)])))
        if pair >= len(devices):
            found[pair - len(devices)].block_until_ready()
        done()
    return np.array(found, np.float64).reshape(len(choice), count)


class Ranked(NamedTuple):
    """Random architectures and what training each from scratch gave.

    Attributes:
      choice: `[A, E]`.
      trained: `[A, T]` the task's measure on the test set, T trainings of each.
    """

    choice: np.ndarray
    trained: np.ndarray


def rank(task: Task, scoring: Scoring, seed: int, done: Callable[[], Any] = lambda: None) -> Ranked:
    """Draws `scoring.ranked` architectures and trains them; `done` is called after each training.

    One seed draws the same ones for every method.
    """
    key = jax.random.fold_in(jax.random.key(seed), 2)
    shape = (scoring.ranked, task.space.num_edges)
    choice = np.asarray(jax.random.randint(key, shape, 0, task.space.num_operations, jnp.int32))
    return Ranked(choice, retrained(choice, task, scoring, seed, scoring.ranked_seeds, done))


def rank_correlations(result: Any, ranked: Ranked, task: Task) -> dict[str, Any]:
    """The fields `rank_...` of a method's row, of its S supernets in `result`."""
    score, choice, trained = _scorer(task), jnp.asarray(ranked.choice), ranked.trained.mean(axis=1)
    # A low loss should go with a high accuracy, or a low perplexity.
    sign = -1 if task.measure == "accuracy" else 1
    found = []
    for i in range(len(result[1])):
        weights = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), result[0])
        found.append(_spearman(sign * np.asarray(score(weights, choice)["loss"]), trained))
    if not all(np.isfinite(found)):
        return {}
    told: dict[str, Any] = {"rank_correlation_per_seed": found}
    told["rank_correlation_mean"] = float(np.mean(found))
    told["rank_correlation_sd"] = float(np.std(found, ddof=1)) if len(found) > 1 else 0.0
    half = ranked.trained.shape[1] // 2
    if half:
        halves = ranked.trained[:, :half].mean(axis=1), ranked.trained[:, half:].mean(axis=1)
        ceiling = _spearman(*halves)
        told |= {"rank_ceiling": ceiling} if np.isfinite(ceiling) else {}
    return told


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one of them is the same throughout."""
    if not (np.ptp(x) and np.ptp(y)):
        return float("nan")
    found: Any = stats.spearmanr(x, y)
    return float(found.statistic)


def name_of(choice: np.ndarray, task: Task) -> str:
    """The architecture's string."""
    return strings.encode(choice, task.space.names)


def costs(choice: np.ndarray, task: Task) -> dict[str, list[int]]:
    """`parameters_per_seed` and `multiply_adds_per_seed` of architectures `[S, E]`."""
    told = [task.cost(tuple(int(k) for k in one)) for one in choice]
    return {f"{name}_per_seed": [int(one[name]) for one in told] for name in told[0]}


def row(method: str, found: Found, task: Task, table: Table | None) -> dict[str, Any]:
    """One row of `summary.json`; the module's docstring has its schema."""
    told: dict[str, Any] = {
        "method": method,
        "architecture_per_seed": [name_of(c, task) for c in found.choice],
        "lucky_per_seed": [name_of(c, task) for c in found.lucky],
        "confidence_per_seed": jax.nn.softmax(found.theta).max(-1).mean(-1).tolist(),
    }
    told |= costs(found.choice, task)
    for name, values in found.scores.items():
        told |= {f"{name}_per_seed": values.tolist(), f"{name}_mean": float(values.mean())}
        told[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        told[f"lucky_{name}_per_seed"] = found.lucky_scores[name].tolist()
    if table is not None:
        places = table.place(found.choice)
        told |= {f"{n}_per_seed": x[places].tolist() for n, x in table.columns.items()}
    return told


def rows(method: str, seeds: range, told: dict[str, Any]) -> list[dict[str, Any]]:
    """Flat rows for `eval.jsonl`, one per seed."""
    lists = {k.removesuffix("_per_seed"): v for k, v in told.items() if k.endswith("_per_seed")}
    return [
        {"method": method, "seed": seed} | {name: values[i] for name, values in lists.items()}
        for i, seed in enumerate(seeds)
    ]
