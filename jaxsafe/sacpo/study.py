# SPDX-License-Identifier: Apache-2.0
"""How near stages on sampled preferences come to the constrained optimum, on tables.

`results` of `summary.json` is then one flat row per number of pairs:

  pairs              sampled for each of the two stages
  order              reward first or safety first
  divergence         KL(pi* || pi), nats: mean over seeds, with _low and _high (95% bootstrap)
  lagrangian_gap     L(pi*) - L(pi) = beta KL(pi || pi*), at the true multiplier; never negative
  optimality_gap     objective(pi*) - objective(pi); negative where the bound is broken for reward
  violation          max(0, b - E[g])
  kept               seeds whose policy keeps the bound
"""

import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import metrics, parallel, plots, stats, tables
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.run import Folder
from jaxsafe.sacpo import pairwise, tabular
from jaxsafe.sacpo.experiment import Tables
from jaxsafe.sacpo.tabular import Problem

MEASURES = ("divergence", "lagrangian_gap", "optimality_gap", "violation")
_PRIOR = 0.1  # wins that every ordered pair has beforehand, so that a minimum exists


def problem(sizes: Tables, seed: int = 0) -> Problem:
    """Random tables; b lies half-way between E[g] of the reward's optimum and the best there is."""
    rng = np.random.default_rng(seed)
    reference = rng.dirichlet(2 * np.ones(sizes.responses), sizes.prompts)
    reward, safety = rng.normal(size=(2, sizes.prompts, sizes.responses))
    free = tabular.make(reference, reward, safety, sizes.beta, 0.0)
    low = tabular.expected(free, tabular.tilted(free, 0.0), safety)
    return free._replace(bound=(low + float(free.weights @ safety.max(1))) / 2)


def sampled_wins(key: jax.Array, given: Problem, score: jax.Array, number: int) -> jax.Array:
    """Wins `[X, Y, Y]` among pairs drawn from the reference, labelled by Bradley-Terry's law.

    `key` is consumed. Prompts come by their weights; two responses independently from pi_ref, until
    they differ.
    """
    reference = jnp.exp(given.log_reference)
    both = reference[:, :, None] * reference[:, None] * (1 - jnp.eye(reference.shape[1]))
    apart = both / both.sum((1, 2), keepdims=True) * jnp.asarray(given.weights)[:, None, None]
    # Which response wins is part of the draw, so this is a law of (winner, loser).
    law = 2 * apart * jax.nn.sigmoid(score[:, :, None] - score[:, None])
    below = jnp.cumsum(law.reshape(-1))
    drawn = jnp.searchsorted(below, jax.random.uniform(key, (number,)) * below[-1], side="right")
    wins = jnp.zeros(below.size).at[jnp.minimum(drawn, below.size - 1)].add(1.0)
    return wins.reshape(law.shape)


@partial(jax.jit, static_argnames=("number", "reward_first"))
def _stepwise(
    keys: jax.Array, given: Problem, at: jax.Array, number: int, reward_first: bool
) -> jax.Array:
    """log pi `[S, X, Y]` of two stages on samples of their own, one run per key."""
    helpful = (jnp.asarray(given.reward), jnp.asarray(given.beta))
    safe = (jnp.asarray(given.safety), given.beta / at)
    prior = _PRIOR * (1 - jnp.eye(given.reward.shape[1]))

    def one(key: jax.Array) -> jax.Array:
        policy = jnp.asarray(given.log_reference)
        for i, (score, temperature) in enumerate(
            (helpful, safe) if reward_first else (safe, helpful)
        ):
            wins = sampled_wins(jax.random.fold_in(key, i), given, score, number)
            policy = pairwise.align(policy, wins + prior, temperature, tolerance=1e-9)
        return policy

    return jax.vmap(one)(keys)


def measure(given: Problem, policies: np.ndarray, at: float) -> dict[str, np.ndarray]:
    """`MEASURES` of policies `[S, X, Y]`, given by logarithms, `[S]` each."""
    optimum = tabular.tilted(given, at)
    best = tabular.outcome(given, optimum, optimum)
    found = [tabular.outcome(given, policy, optimum) for policy in policies]
    back = [tabular.divergence(given, policy, optimum) for policy in policies]
    return {
        "divergence": np.array([x.divergence for x in found]),
        "lagrangian_gap": given.beta * np.array(back),
        "optimality_gap": np.array([best.objective - x.objective for x in found]),
        "violation": np.array([max(0.0, given.bound - x.safety) for x in found]),
    }


def run(given: Problem, sizes: Tables, seed: int, num_seeds: int) -> list[dict[str, Any]]:
    """Every number of pairs in both orders, all seeds as one batch; rows as the module tells."""
    at = tabular.multiplier(given)
    rows = []
    with jax.enable_x64(True):
        keys = parallel.seed_keys(seed, num_seeds)
        for number in sizes.pairs:
            for reward_first in (True, False):
                policies = np.asarray(_stepwise(keys, given, at, number, reward_first))
                order = "reward first" if reward_first else "safety first"
                row: dict[str, Any] = {"pairs": number, "order": order, "multiplier": at}
                each = measure(given, policies, at)
                for name in MEASURES:
                    low, high = stats.stratified_bootstrap_ci(each[name], np.mean)
                    row |= {name: float(each[name].mean()), f"{name}_low": low}
                    row |= {f"{name}_high": high, f"{name}_per_seed": each[name].tolist()}
                rows.append(row | {"kept": int((each["violation"] == 0).sum())})
    return rows


def finish(folder: Folder, options: RunOptions, sizes: Tables) -> list[dict[str, Any]]:
    """Solves the tables, tells how exact the stages are, and measures them on samples."""
    given = problem(sizes)
    reference = np.exp(given.log_reference)
    arrays = (reference, given.reward, given.safety, given.beta, given.bound, given.weights)
    solution = tabular.solve(*arrays)
    told = [
        {"policy": name, "KL from the optimum": x.divergence, "E[r]": x.reward, "E[g]": x.safety}
        for name, x in {"optimum": solution.optimum, **solution.outcomes}.items()
    ]
    folder.say(f"multiplier {solution.multiplier:.6f}, bound {given.bound:.6f}")
    folder.say(tables.text_table(told))
    rows = run(given, sizes, options.seed, options.num_seeds)
    for row in rows:
        metrics.append(folder.evals, [row])
    shown = ("pairs", "order", *MEASURES, "kept")
    folder.say("\n" + tables.text_table([{name: row[name] for name in shown} for row in rows]))
    folder.say(f"picture: {picture(folder.plots / 'gaps.png', rows)}")
    return rows


def picture(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> pathlib.Path:
    """Draws gaps against pairs with 95% intervals over seeds, one panel per measure."""
    figure = plots.new_figure((9.6, 3.4))
    panels = figure.subplots(1, 3)
    for axes, name in zip(panels, ("divergence", "lagrangian_gap", "violation"), strict=True):
        for i, order in enumerate(("reward first", "safety first")):
            own = [row for row in rows if row["order"] == order]
            x = [row["pairs"] for row in own]
            middle, low, high = (
                [row[f"{name}{end}"] for row in own] for end in ("", "_low", "_high")
            )
            colour = plots.PALETTE[i]
            axes.plot(x, middle, color=colour, marker="o", label=order)
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.set_xscale("log")
        axes.set_yscale("log" if name != "violation" else "linear")
        axes.set_xlabel("sampled pairs of each kind", **plots.LABEL)
        axes.set_title(name.replace("_", " "), loc="left", **plots.BOLD)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    caption = "mean over seeds · band: 95% bootstrap interval"
    figure.supxlabel(caption, fontsize=8.5, color=plots.MUTED)
    return plots.save(figure, path)
