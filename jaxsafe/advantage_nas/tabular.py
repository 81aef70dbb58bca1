# SPDX-License-Identifier: Apache-2.0
"""Search on a table of every architecture's accuracy: no networks, no gates, only queries.

Each search keeps the queried architecture of best selection score. Every query counts, that of an
architecture seen before too. REINFORCE and RLOO are the estimators of `estimators.py` on the loss
1 - selection / 100; gate gradients do not exist on a table, so `advantage` cannot run here.
Regularised evolution is that of Real et al., 2019 (arXiv 1802.01548): the oldest dies.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import lax

from jaxsafe.advantage_nas import estimators, sampling
from jaxsafe.advantage_nas.config import EstimatorConfig
from jaxsafe.advantage_nas.tables import Table, strides
from jaxsafe.advantage_nas.types import EstimatorState, Losses, Metrics
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds

METHODS = ("random", "evolution", "reinforce", "rloo")


@dataclasses.dataclass(frozen=True)
class TabularConfig:
    """Searches on a table."""

    method: str = field(
        "random",
        "random: distinct architectures; evolution: regularised; reinforce, rloo: on theta.",
        choices=METHODS,
    )
    selection: str = field("cifar10_valid", "Column by which a search keeps its best.")
    score: str = field("cifar10_test", "Column that is reported of the one kept.")
    queries: int = field(300, "Architectures a search looks up, a multiple of 2.", low=2)
    searches: int = field(100, "Searches of one seed, side by side.", low=1)
    lr: float = field(0.05, "Adam's learning rate of theta.", low=0.0)
    beta1: float = field(0.5, "Adam's decay of the first moment.", low=0.0, high=0.9999)
    population: int = field(30, "Architectures alive in evolution.", low=2)
    tournament: int = field(10, "Of these, drawn for a tournament.", low=1)


class Memory(struct.PyTreeNode):
    """Evolution's population, the oldest replaced first."""

    place: jax.Array  # [P] int32, rows of the table; [1] unless it evolves
    score: jax.Array  # [P] of selection


class TabularState(struct.PyTreeNode):
    """One search."""

    theta: jax.Array  # [E, K]
    opt_state: Any
    estimator: EstimatorState
    memory: Memory
    order: jax.Array  # [Q] int32, what random search looks up; others [1]
    best: jax.Array  # [] int32, row of the best so far
    best_score: jax.Array  # [] of selection
    step: jax.Array  # [] int32
    key: jax.Array


def validate(config: TabularConfig, prefix: str = "tabular.") -> None:
    """Raises `UserError` naming field, value and fix."""
    validate_bounds(config, prefix.rstrip("."))
    if config.queries % 2:
        raise UserError(
            f"{prefix}queries={config.queries} is odd and rloo looks up two at a time: give "
            f"{config.queries + 1}."
        )


def queries_per_step(config: TabularConfig) -> int:
    """Architectures looked up in one step."""
    return 2 if config.method == "rloo" else 1


def _optimizer(config: TabularConfig) -> optax.GradientTransformation:
    return optax.adam(config.lr, config.beta1)


def init(key: jax.Array, config: TabularConfig, table: Table) -> TabularState:
    """Returns one search before its first query. `key` is consumed.

    Raises:
      UserError: random search is to query more cells than the table has.
    """
    key_order, key = jax.random.split(key)
    size, num_edges = table.choice.shape
    # Of size 1 where there is no use for it: empty arrays cannot be placed on several devices.
    count = config.queries if config.method == "random" else 1
    if count > size:
        raise UserError(f"tabular.queries={count} is more than the table's {size}: lower it.")
    theta = sampling.init_theta(num_edges, len(table.ops))
    alive = config.population if config.method == "evolution" else 1
    return TabularState(
        theta=theta,
        opt_state=_optimizer(config).init(theta),
        estimator=estimators.init(num_edges, len(table.ops)),
        memory=Memory(jnp.zeros(alive, jnp.int32), jnp.zeros(alive)),
        order=jax.random.permutation(key_order, size)[:count].astype(jnp.int32),
        best=jnp.int32(0),
        best_score=jnp.float32(-jnp.inf),
        step=jnp.int32(0),
        key=key,
    )


def _kept(state: TabularState, place: jax.Array, score: jax.Array) -> TabularState:
    better = score > state.best_score
    return state.replace(
        best=jnp.where(better, place, state.best),
        best_score=jnp.where(better, score, state.best_score),
    )


def step(state: TabularState, config: TabularConfig, table: Table) -> TabularState:
    """One query, or two of rloo."""
    key = jax.random.fold_in(state.key, state.step)
    column = jnp.asarray(table.column(config.selection), jnp.float32)
    if config.method == "random":
        place = state.order[state.step]
        state = _kept(state, place, column[place])
    elif config.method == "evolution":
        state = _evolve(state, key, config, table, column)
    else:
        state = _descend(state, key, config, table, column)
    return state.replace(step=state.step + 1)


def _descend(state, key, config, table, column) -> TabularState:
    """One step of theta down an estimate of the expected loss."""
    places = jnp.asarray(strides(*state.theta.shape), jnp.int32)
    how = EstimatorConfig(method=config.method)
    drawn = estimators.draw(key, state.theta, how)
    losses = Losses(lambda gates, choice: (1 - column[choice @ places] / 100, ()))
    grad, estimator, _ = estimators.estimate_of(drawn, state.theta, losses, state.estimator, how)
    updates, opt_state = _optimizer(config).update(grad, state.opt_state)
    for one in drawn.choice @ places:
        state = _kept(state, one, column[one])
    return state.replace(
        theta=optax.apply_updates(state.theta, updates), opt_state=opt_state, estimator=estimator
    )


def _evolve(state, key, config, table, column) -> TabularState:
    """A random architecture while the population grows, then a mutation of a tournament's best."""
    key_fresh, key_rivals, key_edge, key_op = jax.random.split(key, 4)
    size, num_edges = table.choice.shape
    num_ops, places = len(table.ops), jnp.asarray(strides(num_edges, len(table.ops)), jnp.int32)
    rivals = jax.random.choice(key_rivals, config.population, (config.tournament,), replace=False)
    parent = state.memory.place[rivals[jnp.argmax(state.memory.score[rivals])]]
    edge = jax.random.randint(key_edge, (), 0, num_edges)
    old = parent // places[edge] % num_ops
    # Any operation but the old one.
    new = (old + jax.random.randint(key_op, (), 1, num_ops)) % num_ops
    child = parent + (new - old) * places[edge]
    fresh = jax.random.randint(key_fresh, (), 0, size)
    place = jnp.where(state.step < config.population, fresh, child)
    slot = state.step % config.population
    memory = Memory(
        state.memory.place.at[slot].set(place), state.memory.score.at[slot].set(column[place])
    )
    return _kept(state.replace(memory=memory), place, column[place])


def chunk(
    states: TabularState, length: int, config: TabularConfig, table: Table
) -> tuple[TabularState, Metrics]:
    """`length` steps of searches `[searches, ...]`, side by side.

    Returns:
      the searches, and means over them: `search/score` and `search/selection` of the architectures
      kept, in percent, and `search/entropy` of theta's edges, in nats.
    """
    score = jnp.asarray(table.column(config.score), jnp.float32)

    def one(states: TabularState, _: None) -> tuple[TabularState, None]:
        return jax.vmap(lambda s: step(s, config, table))(states), None

    states, _ = lax.scan(one, states, None, length)
    return states, {
        "search/score": score[states.best].mean(),
        "search/selection": states.best_score.mean(),
        "search/entropy": jax.vmap(sampling.entropy)(states.theta).mean(),
    }


def init_searches(key: jax.Array, config: TabularConfig, table: Table) -> TabularState:
    """The searches of one seed, `[searches, ...]`. `key` is consumed."""
    keys = jax.random.split(key, config.searches)
    return jax.vmap(lambda k: init(k, config, table))(keys)


def found(states: TabularState, config: TabularConfig, table: Table) -> np.ndarray:
    """The reported score `[...]` of what each search kept."""
    return table.column(config.score)[np.asarray(states.best)]
