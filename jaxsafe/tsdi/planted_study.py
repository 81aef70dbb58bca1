# SPDX-License-Identifier: Apache-2.0
"""How well a planted bias is found and taken off, where everything is known.

`results` of `summary.json` is then one flat row per case, each a mean over seeds:

  case               "K draws, SPACE": the bias is there for all prompts, beside what each context
                     adds; "hot prompts": it is there for prompts with a hot token only
  draws, space, noise
  rmse, stated       root mean square of estimate less truth, and the mean of the stated errors;
                     in log spaces, of the cases without hot prompts
  before, after      mean total variation from the reference without and with the correction
  before_hot, after_hot, before_cold, after_cold, gated_hot, gated_cold
                     the same of prompts with and without the bias, and where a gate takes the bias
                     off the former alone, as much more as they are fewer
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import metrics, plots, tables
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.run import Folder
from jaxsafe.lm import tiny
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.tsdi import bias, models, planted
from jaxsafe.tsdi.config import SPACES, Config
from jaxsafe.tsdi.experiment import Experiment, PlantedSizes
from jaxsafe.tsdi.planted import Planted
from jaxsafe.tsdi.pool import Template

_TEMPLATE = Template((1,), (2,))


def decoder(sizes: PlantedSizes) -> DecoderConfig:
    """The decoder that the bias is planted on."""
    return dataclasses.replace(
        tiny.CONFIG,
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.layers,
        num_heads=2,
        num_kv_heads=2,
        head_dim=sizes.hidden_size // 2,
        intermediate_size=2 * sizes.hidden_size,
    )


def _draw(seed: int, sizes: PlantedSizes, config: Config, noise: float, hot: Any) -> Planted:
    slots = config.prompt_length + sum(map(len, _TEMPLATE))
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return planted.make(key, decoder(sizes), config.positions, slots, sizes.scale, noise, hot)


def _ids(seed: int, number: int, config: Config, vocab: int) -> np.ndarray:
    key = jax.random.fold_in(jax.random.key(seed), number)
    return models.draws(key, np.arange(vocab), _TEMPLATE, config)


def recovery(experiment: Experiment, space: str, draws: int, noise: float, seed: int):
    """One case of a bias that all prompts have: its row without name."""
    sizes = experiment.planted
    config = dataclasses.replace(experiment.bias, space=space, draws=draws)
    world = _draw(seed, sizes, config, noise, None)
    ids = _ids(seed, 2, config, sizes.vocab_size)
    key = jax.random.fold_in(jax.random.key(seed), 3)
    state = models.estimate(ids, config, world.model, world.pair, sizes.vocab_size, key)
    found = bias.table(state, config)
    fresh = _ids(seed, 4, config, sizes.vocab_size)[0]
    before, after = planted.distances(world, found, fresh, config)
    row = {"before": float(before.mean()), "after": float(after.mean())}
    if space == "prob":
        return row | {"clipped": planted.clipped(world, found, fresh, config)}
    missed = planted.rmse(found, world, state.reference)
    return {"rmse": missed, "stated": float(found.error.mean())} | row


def hot_prompts(experiment: Experiment, draws: int, seed: int) -> dict[str, float]:
    """The case in which about half the prompts have the bias."""
    sizes = experiment.planted
    config = dataclasses.replace(experiment.bias, space="logprob", draws=draws)
    vocab = sizes.vocab_size
    # A share 1 - (1 - h)^n of prompts has one of them; here about half.
    share_of_tokens = 1 - 0.5 ** (1 / config.prompt_length)
    hot = np.arange(vocab) >= vocab - max(1, round(share_of_tokens * vocab))
    world = _draw(seed, sizes, config, 0.0, hot)
    ids = _ids(seed, 2, config, vocab)
    key = jax.random.fold_in(jax.random.key(seed), 3)
    state = models.estimate(ids, config, world.model, world.pair, vocab, key)
    found = bias.table(state, config)
    end = -config.positions or None
    share = float(hot[ids[..., :end]].any(-1).mean())
    fresh = _ids(seed, 4, config, vocab)[0]
    is_hot = hot[fresh[:, :end]].any(1)
    before, after = planted.distances(world, found, fresh, config)
    gate = jnp.where(is_hot, 1 / share, 0.0)
    _, gated = planted.distances(world, found, fresh, config, gate)
    each = {"before": before, "after": after, "gated": gated}
    return {
        f"{name}_{kind}": float(values[chosen].mean()) if chosen.any() else float("nan")
        for name, values in each.items()
        for kind, chosen in (("hot", is_hot), ("cold", ~is_hot))
    }


def finish(folder: Folder, options: RunOptions, experiment: Experiment) -> list[dict[str, Any]]:
    """Measures every case, prints and draws; returns the rows."""
    sizes, seeds = experiment.planted, range(options.seed, options.seed + options.num_seeds)
    rows: list[dict[str, Any]] = []

    def add(case: str, told: dict[str, Any], each: list[dict[str, float]]) -> None:
        for seed, row in zip(seeds, each, strict=True):
            metrics.append(folder.evals, [{"case": case, "seed": seed} | told | row])
        means = {name: float(np.mean([row[name] for row in each])) for name in each[0]}
        rows.append({"case": case} | told | means)

    for noise in dict.fromkeys((0.0, sizes.noise)):
        for space in SPACES:
            for draws in sizes.draws if noise else sizes.draws[:1]:
                told = {"draws": draws, "space": space, "noise": noise}
                each = [recovery(experiment, space, draws, noise, seed) for seed in seeds]
                add(f"{draws} draws, {space}", told, each)
    draws = max(sizes.draws)
    told = {"draws": draws, "space": "logprob", "noise": 0.0}
    add("hot prompts", told, [hot_prompts(experiment, draws, seed) for seed in seeds])
    folder.say("\n" + tables.text_table(rows[:-1]))
    folder.say("\n" + tables.text_table(rows[-1:]))
    folder.say(f"picture: {_picture(folder, rows)}")
    return rows


def _picture(folder: Folder, rows: list[dict[str, Any]]) -> Any:
    """Error against K, measured and stated, with the line of slope -1/2."""
    own = [r for r in rows if r["space"] == "logprob" and r["noise"] and "rmse" in r]
    figure = plots.new_figure((5.4, 3.8))
    axes = figure.add_subplot()
    x = np.array([row["draws"] for row in own], float)
    for i, name in enumerate(("rmse", "stated")):
        y = [row[name] for row in own]
        axes.plot(x, y, color=plots.PALETTE[i], marker="o", label=name)
    if own:
        axes.plot(x, own[0]["noise"] / np.sqrt(x), color=plots.MUTED, linestyle=":", label="s / √K")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("random prompts K", **plots.LABEL)
    axes.set_ylabel("error of the bias, nats", **plots.LABEL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return plots.save(figure, folder.plots / "recovery.png")
