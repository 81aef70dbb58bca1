# SPDX-License-Identifier: Apache-2.0
"""What the binary trains: one stage, the autoencoder first and then all predictors."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core.program import Stage
from jaxsafe.data import image_episodes
from jaxsafe.data.image_episodes import ImageEpisodes
from jaxsafe.image_to_semantics import collect, networks, plans, study, unpaired, worlds
from jaxsafe.image_to_semantics.collect import Recipe
from jaxsafe.image_to_semantics.config import SIDE
from jaxsafe.image_to_semantics.experiment import Data, Experiment
from jaxsafe.image_to_semantics.runs import Family, Setup, Table
from jaxsafe.image_to_semantics.types import Range
from jaxsafe.image_to_semantics.worlds import SourceEpisodes

NAME = "image_to_semantics"


class Seen(NamedTuple):
    """What there is to learn from.

    Attributes:
      offline: episodes of the target world.
      range: of the source's semantics.
      std: `[S]` their standard deviations.
      source: behaviour in the source world.
    """

    offline: ImageEpisodes
    range: Range
    std: np.ndarray
    source: SourceEpisodes


@functools.lru_cache(maxsize=4)
def seen(data: Data, margin: str) -> Seen:
    """Makes or reads the data of an experiment, once per process.

    Raises:
      UserError: the file is absent or unsound.
    """
    world = worlds.make(data.world)
    source = worlds.source_episodes(world, data.source_episodes, jax.random.key(data.seed))
    std = np.asarray(source.semantics).reshape(-1, world.size).std(0)
    if data.file:
        limits = {"action_low": world.task.action_low, "action_high": world.task.action_high}
        offline, _ = image_episodes.load(data.file, size=(SIDE, SIDE), **limits)
    else:
        recipe = Recipe(data.world, data.level, data.seed, data.renderer)
        offline = collect.collect(recipe, data.episodes, data.processes)
    range_ = networks.make_range(source.semantics, margin)
    if world.limits is not None:
        range_ = networks.make_range(jnp.asarray(np.stack(world.limits)), margin)
    # A dimension that the source never moves has no scale of its own.
    return Seen(offline, range_, np.where(std > 1e-6, std, np.asarray(range_.width)), source)


@functools.lru_cache(maxsize=4)
def held_out(data: Data) -> ImageEpisodes:
    """Further episodes of the target world, which nothing is trained on."""
    recipe = Recipe(data.world, data.level, data.seed + 500_000, data.renderer)
    return collect.collect(recipe, data.held_out, data.processes)


def setup(experiment: Experiment) -> tuple[Setup, Table]:
    """What a run of the experiment learns from, and how.

    Raises:
      UserError: a file of data is absent or unsound, or has too few episodes.
    """
    what = seen(experiment.data, experiment.algo.range_margin)
    plans.validate(experiment.study, len(what.offline.lengths))
    world = worlds.make(experiment.data.world)
    simulator = worlds.simulator(world)
    how, source = experiment.unpaired, None
    if "unpaired" in experiment.study.methods:
        key = jax.random.fold_in(jax.random.key(experiment.data.seed), 1)
        source = unpaired.make_source(key, *what.source, what.range, how)
    family = None
    if "identified" in experiment.study.methods:
        one = functools.partial(worlds.simulator, world)
        family = Family(one, len(worlds.FACTORS), world.shown)
    made = Setup(experiment.algo, experiment.study, simulator, what.range, how, source, family)
    return made, study.table(what.offline, experiment.algo.frames, what.std)


def stages(experiment: Experiment) -> list[Stage]:
    """The binary's one stage.

    Raises:
      UserError: as `setup`.
    """
    how, data = setup(experiment)
    return [
        Stage(
            name=NAME,
            init=lambda key: study.init(key, how, data),
            chunk=lambda run, first, n: study.chunk(run, first, n, how, data),
            num_steps=experiment.algo.vae_steps + experiment.algo.head_steps,
            parameters=lambda run: (run.learner.vae, run.learner.heads),
            result=study.result,
            unit="minibatches",
        )
    ]
