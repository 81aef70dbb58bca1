# SPDX-License-Identifier: Apache-2.0
"""How near each method comes to the closed forms of `envs.games` (papers/m2td3 section 7).

`results` of `summary.json` is then one flat row per game and method:

  game, method       as the flags --games and --methods have them
  policy_per_seed    the policy number of each seed: the action, or the gain k
  worst_per_seed     its exact worst return over the set; "-inf" where that is unbounded
  gap_per_seed       best worst return minus that, at least 0
  gap_median, gap_max
  answer             the policy number this method should reach; none where it plays another game
  minimax, minimax_worst
                     the best worst case
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsafe.core import metrics, plots, tables
from jaxsafe.core.run import Folder
from jaxsafe.envs import game_tasks, games
from jaxsafe.envs.games import ClosedForm, Game
from jaxsafe.m2td3 import algorithm
from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.evaluate import plain
from jaxsafe.m2td3.experiment import Experiment
from jaxsafe.m2td3.report import NAMES
from jaxsafe.m2td3.types import Params, World

_DOT: dict[str, Any] = {
    "color": plots.INK,
    "markersize": 4.5,
    "alpha": 0.55,
    "markeredgewidth": 0,
    "clip_on": False,
}


class Solved(NamedTuple):
    """Policies of S seeds in one game.

    Attributes:
      numbers: `[S]` policy numbers.
      worst: `[S]` their exact worst returns.
      gap: `[S]` what the best worst return is above that.
    """

    numbers: np.ndarray
    worst: np.ndarray
    gap: np.ndarray


def solve(game: Game, actors: Params, worlds: World, config: Config) -> Solved:
    """Reads the policy numbers off actors with leaves `[S, ...]`, at the game's start state."""
    task, _ = game_tasks.make(game)
    obs = task.observe(task.model, task.reset(task.model, jax.random.key(0)))
    act = jax.vmap(lambda actor, world: algorithm.act(actor, obs, config, world)[0])
    actions = np.asarray(act(actors, worlds), np.float64)
    numbers = np.array([game_tasks.policy_number(game, action) for action in actions])
    worst = np.array([games.worst_return(game, x) for x in numbers])
    return Solved(numbers, worst, games.closed_form(game).minimax_worst - worst)


def answer(method: str, known: ClosedForm) -> float | None:
    """What `method` should reach; None for those that play the game at every step."""
    if method in ("rarl", "m3ddpg"):
        return None
    return {"td3": known.nominal, "dr_td3": known.redrawn}.get(method, known.minimax)


def row(name: str, method: str, game: Game, solved: Solved) -> dict[str, Any]:
    """One row of `summary.json`; the module's docstring has its schema."""
    known = games.closed_form(game)
    return {
        "game": name,
        "method": method,
        "policy_per_seed": solved.numbers.tolist(),
        "worst_per_seed": [plain(x) for x in solved.worst],
        "gap_per_seed": [plain(x) for x in solved.gap],
        "gap_median": plain(np.median(solved.gap)),
        "gap_max": plain(solved.gap.max()),
        "answer": answer(method, known),
        "minimax": known.minimax,
        "minimax_worst": known.minimax_worst,
    }


def rows(name: str, method: str, seeds: range, solved: Solved) -> list[dict[str, Any]]:
    """Flat rows for `eval.jsonl`, one per seed."""
    return [
        {
            "game": name,
            "method": method,
            "seed": seed,
            "policy": float(solved.numbers[i]),
            "return": plain(solved.worst[i]),
            "gap": plain(solved.gap[i]),
        }
        for i, seed in enumerate(seeds)
    ]


def table(game: Game, solved: Mapping[str, Solved]) -> list[dict[str, Any]]:
    """One row per method of one game."""
    known = games.closed_form(game)
    return [
        {
            "method": NAMES[method],
            "should reach": _text(answer(method, known)),
            "policy (median)": float(np.median(found.numbers)),
            "least": float(found.numbers.min()),
            "greatest": float(found.numbers.max()),
            "worst (median)": float(np.median(found.worst)),
            "gap (median)": float(np.median(found.gap)),
            "gap (greatest)": float(found.gap.max()),
        }
        for method, found in solved.items()
    ]


def finish(
    folder: Folder, seeds: range, experiment: Experiment, results: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Compares all policies of `results`, by `stage_name`; writes rows, tables and the picture."""
    played = {name: getattr(experiment, name) for name in experiment.games}
    solved: dict[str, dict[str, Solved]] = {}
    table_rows = []
    for name, game in played.items():
        solved[name] = {}
        for method in experiment.methods:
            actors, worlds = results[stage_name(name, method)]
            solved[name][method] = solve(game, actors, worlds, experiment.algo)
        for method, found in solved[name].items():
            metrics.append(folder.evals, rows(name, method, seeds, found))
            table_rows.append(row(name, method, game, found))
        folder.say(f"\n{headline(name, game)}")
        folder.say(tables.text_table(table(game, solved[name])))
    path = picture(folder.plots / "known_answers.png", solved, played)
    folder.say(f"picture: {path}")
    return table_rows


def stage_name(game: str, method: str) -> str:
    """What training one method in one game is called."""
    return f"{game}-{method}"


def _text(number: float | None) -> str:
    return "none" if number is None else f"{number:.4g}"


def headline(name: str, game: Game) -> str:
    """What the numbers of `table` are."""
    known = games.closed_form(game)
    where = " and ".join(f"{w:.4g}" for w in known.worst_at)
    return (
        f"{name}: best worst return {known.minimax_worst:.4f} at policy {known.minimax:.4f}, worst "
        f"at w = {where}; gap: what a policy's worst return is below that"
    )


def picture(
    path: pathlib.Path,
    solved: Mapping[str, Mapping[str, Solved]],
    played: Mapping[str, Game],
) -> pathlib.Path:
    """Draws each game's policies, a row of dots per method, before lines at the closed forms."""
    figure = plots.new_figure((7.2, 0.9 + 2.4 * len(played)))
    panels = figure.subplots(len(played), 1, squeeze=False)[:, 0]
    for axes, (name, game) in zip(panels, played.items(), strict=True):
        known = games.closed_form(game)
        for i, (label, x) in enumerate(
            (
                ("best worst case", known.minimax),
                ("best mean", known.redrawn),
                ("nominal", known.nominal),
            )
        ):
            axes.axvline(x, color=plots.PALETTE[i], linestyle=("-", "--", ":")[i], label=label)
        for row, (_, found) in enumerate(solved[name].items()):
            axes.plot(found.numbers, np.full(len(found.numbers), row), "o", **_DOT)
        axes.set_yticks(range(len(solved[name])), [NAMES[m] for m in solved[name]])
        axes.set_ylim(len(solved[name]) - 0.5, -0.5)
        axes.set_xlabel("action a" if name == "quadratic" else "gain k")
        axes.set_title(name, loc="left", **plots.BOLD)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return plots.save(figure, path)
