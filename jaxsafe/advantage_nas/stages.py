# SPDX-License-Identifier: Apache-2.0
"""What the binary trains, a stage per method."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.advantage_nas import algorithm, image_task, tables, tabular, text_task, toy
from jaxsafe.advantage_nas import experiment as experiments
from jaxsafe.advantage_nas.experiment import Experiment
from jaxsafe.advantage_nas.tables import Table
from jaxsafe.advantage_nas.task import Task
from jaxsafe.advantage_nas.types import Metrics, State
from jaxsafe.core.checks import UserError
from jaxsafe.core.program import Stage


@functools.cache
def table(path: str) -> Table:
    """The table of a tabular search."""
    return tables.load(path)


@functools.cache
def task(experiment: Experiment) -> Task:
    """The supernet and the data of an experiment."""
    if experiment.task == "text":
        return text_task.make(experiment.text)
    return image_task.make(experiment.images)


def stages(experiment: Experiment) -> list[Stage]:
    """One stage per method.

    Raises:
      UserError: a file of data is absent or unsound.
    """
    makers = {"toy": _toy, "tabular": _tabular, "images": _search, "text": _search}
    return [makers[experiment.task](experiment, method) for method in experiment.methods]


def _toy(experiment: Experiment, method: str) -> Stage:
    config = experiments.toy_config(experiment, method)
    return Stage(
        name=method,
        init=lambda key: toy.init(key, config),
        chunk=lambda state, first, n: toy.chunk(state, first, n, config),
        num_steps=config.steps,
        parameters=lambda state: state.theta,
        result=lambda state: state.theta,
        unit="iterations",
    )


def tabular_config(experiment: Experiment, method: str) -> tabular.TabularConfig:
    """The search on a table, for one method."""
    return dataclasses.replace(experiment.tabular, method=method)


def _tabular(experiment: Experiment, method: str) -> Stage:
    if experiment.table is None:
        raise UserError("--table is not given: name a .csv or .json file of cells' accuracies.")
    config, cells = tabular_config(experiment, method), table(experiment.table)
    for column in (config.selection, config.score):
        cells.column(column)  # or an error, before anything is compiled
    queries = tabular.queries_per_step(config)
    return Stage(
        name=method,
        init=lambda key: tabular.init_searches(key, config, cells),
        chunk=lambda state, first, n: tabular.chunk(state, n, config, cells),
        num_steps=config.queries // queries,
        parameters=lambda state: state.theta[0],
        result=lambda state: state.best,
        unit="queries",
        units_per_step=queries,
    )


def probabilities(state: State, task: Task) -> Metrics:
    """`p/FROM-TO/NAME` of every edge and operation, for the picture of theta's way."""
    p = jax.nn.softmax(state.theta)
    return {
        f"p/{a}-{b}/{name}": p[e, k]
        for e, (a, b) in enumerate(task.space.edges)
        for k, name in enumerate(task.space.names)
    }


def chunk(
    state: State, first: jax.Array, length: int, experiment: Experiment, method: str
) -> tuple[State, Metrics]:
    """Search steps `first` `[]` to `first + length - 1`, each on fresh minibatches.

    Returns:
      the search, and the metrics' means and the `probabilities` at the end, scalars.
    """
    config, on = experiments.search(experiment, method), task(experiment)

    def one(state: State, step: jax.Array) -> tuple[State, Metrics]:
        batch = on.batch(jax.random.fold_in(state.key, 2**31 - 1), step)
        return algorithm.update(state, batch, config, on.network)

    state, traced = lax.scan(one, state, first + jnp.arange(length))
    return state, jax.tree.map(jnp.mean, traced) | probabilities(state, on)


def _search(experiment: Experiment, method: str) -> Stage:
    config, on = experiments.search(experiment, method), task(experiment)

    def chunk_in_turn(state: State, first: jax.Array, length: int) -> tuple[State, Metrics]:
        # Seeds of one device one after the other: vmap would run every operation.
        one = jax.custom_batching.sequential_vmap(
            lambda s, i: chunk(s, i, length, experiment, method)
        )
        return one(state, first)

    return Stage(
        name=method,
        init=lambda key: algorithm.init(key, config, on.network),
        chunk=chunk_in_turn,
        num_steps=config.total_steps,
        parameters=lambda state: state.weights,
        result=lambda state: (state.weights, state.theta, state.best),
        unit="search_steps",
    )
