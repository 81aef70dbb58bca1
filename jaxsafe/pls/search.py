# SPDX-License-Identifier: Apache-2.0
"""Safe search over targets (paper algorithm 1, repaired): init, ask, tell; or one scan of them.

The loop outside may be JAX (`run_search`) or a person who runs episodes: `ask` says which targets
to try, `tell` takes the episodes' returns. Nothing is random but the `seed` baseline.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsafe.core.checks import UserError
from jaxsafe.pls import acquisition, bounds
from jaxsafe.pls.acquisition import View
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.types import Evaluation, Problem, Query, State, Trace

Metrics = dict[str, jax.Array]


def init(key: jax.Array, problem: Problem, config: SearchConfig) -> State:
    """Returns a search with no evaluation yet. `key` is consumed.

    Raises:
      UserError: alpha is still to be calibrated (only checked outside of jit).
    """
    if not isinstance(problem.alpha, jax.core.Tracer) and np.isnan(problem.alpha).any():
        raise UserError(
            "alpha='calibrated' has no alpha_value: find it by pls.calibrate, or set it."
        )
    posterior = bounds.prior(problem, config.capacity)
    low, high = bounds.confidence(posterior, problem.alpha[0])
    thresholds = problem.thresholds.shape[0]
    seed = jnp.argmax(problem.seed).astype(jnp.int32)
    state = State(
        problem=problem,
        posterior=posterior,
        lower=low[1:],
        upper=high[1:],
        safe=jnp.broadcast_to(problem.seed, (thresholds, *problem.seed.shape)),
        explored=jnp.zeros(thresholds, bool),
        alarms=jnp.int32(0),
        step=jnp.int32(0),
        last=jnp.broadcast_to(seed, (thresholds,)),
        key=key,
    )
    return bounds.refresh(state, config)[0]


def ask(state: State, config: SearchConfig) -> tuple[Query, State]:
    """Returns what to evaluate next, Q points, and the state that waits for their returns.

    Thresholds take turns. Points after the first are chosen as if those before had come out at
    their means (Desautels et al. 2014), but within the safe set as it is.
    """
    problem, turn = state.problem, state.step % state.safe.shape[0]
    stage1 = ~state.explored[turn] & (state.step < config.explore_steps)
    lower, upper = bounds.intervals(
        state.lower, state.upper, problem.thresholds[turn], problem, config
    )
    step_key = jax.random.fold_in(state.key, state.step)
    alpha, places = problem.alpha[state.step], jnp.arange(config.batch)

    def pick(carry, place):
        key = jax.random.fold_in(step_key, place)
        posterior, lower, upper = carry
        view = View(
            problem, posterior, alpha, problem.thresholds[turn], lower, upper, state.safe[turn]
        )
        index, expanding = _choose(key, view, stage1, config)
        return _imagine(view, index, config), (index, expanding)

    _, (index, expanding) = lax.scan(pick, (state.posterior, lower, upper), places)
    query = Query(index, problem.grid[index], turn, expanding[0])
    return query, state.replace(explored=state.explored.at[turn].set(~expanding[0]))


def _choose(
    key: jax.Array, view: View, stage1: jax.Array, config: SearchConfig
) -> tuple[jax.Array, jax.Array]:
    """One point by the configured method, and whether it is one of stage 1."""
    no = jnp.bool_(False)
    if config.method == "seed":
        return jax.random.categorical(key, jnp.where(view.problem.seed, 0.0, -jnp.inf)).astype(
            jnp.int32
        ), no
    if config.method == "ucb":
        return acquisition.unsafe_ucb(view), no
    if config.method == "safeopt":
        return acquisition.safeopt(view, config), no
    expanding, widest = acquisition.expand(view, config, wanted=stage1)
    return jnp.where(expanding, widest, acquisition.exploit(view)), expanding


def _imagine(view: View, index: jax.Array, config: SearchConfig):
    """Posterior and intervals as if the point had come out at its mean: narrower, else the same."""
    posterior, lower, upper = view.posterior, view.lower, view.upper
    if config.batch == 1:
        return posterior, lower, upper
    noise = view.problem.episode_var / config.episodes
    mean = posterior.mean[:, :, index]
    posterior = bounds.observe(posterior, view.problem, index, mean, noise, config)
    low, high = bounds.confidence(posterior, view.alpha)
    return posterior, jnp.maximum(lower, low[1:]), jnp.minimum(upper, high[1:])


def tell(state: State, batch: Evaluation, config: SearchConfig) -> tuple[State, Metrics]:
    """Takes in the returns of Q points, in any order; the same for every threshold.

    Args:
      state: what `ask` returned; without an `ask` between them, points of one's own choice.
      batch: `point [Q]`, `returns [Q, W, O]`; Q as configured.
      config: static.

    Returns:
      The state, and metrics: `search/safe` mean number of safe points, `search/empty` points with
      an empty interval, `search/alarms` steps with one so far, `search/surprise` the greatest
      `|y - mu| / sd` of the new values before they were known, `search/width` the widest interval
      of a safe point in prior deviations.
    """
    problem = state.problem
    turn = state.step % state.safe.shape[0]

    def one(posterior, evaluation):
        index, returns = evaluation
        noise_var = bounds.evaluation_noise(returns, problem, config)
        value = jnp.broadcast_to(returns.mean(0)[:, None], posterior.mean.shape[:2])
        sd = jnp.sqrt(posterior.var[:, :, index] + noise_var[:, None])
        surprise = (jnp.abs(value - posterior.mean[:, :, index]) / sd).min(1).max()
        return bounds.observe(posterior, problem, index, value, noise_var, config), surprise

    posterior, surprise = lax.scan(one, state.posterior, (batch.point, batch.returns))
    state = state.replace(
        posterior=posterior,
        step=state.step + 1,
        last=state.last.at[turn].set(batch.point[-1].astype(jnp.int32)),
    )
    state, empty = bounds.refresh(state, config)
    sd = jnp.sqrt(problem.prior_var[1:, None])
    width = jnp.where(state.safe.any(0), ((state.upper - state.lower) / sd).max(0), 0.0).max()
    return state, {
        "search/safe": state.safe.sum(1).mean(dtype=width.dtype),
        "search/empty": empty,
        "search/alarms": state.alarms,
        "search/surprise": surprise.max(),
        "search/width": width,
    }


def advance(state: State, batch: Evaluation, config: SearchConfig) -> tuple[Query, State, Metrics]:
    """Does `tell` and the next `ask` in one compiled call, for loops outside of JAX.

    The state is brought up to date in place: the arrays of the one given, but for its problem's,
    are used up. The next query after the last step is one more of stage 2.
    """
    changing = state.replace(problem=None)
    query, changing, metrics = _advance(changing, state.problem, batch, config)
    return query, changing.replace(problem=state.problem), metrics


@partial(jax.jit, static_argnums=3, donate_argnums=0)
def _advance(changing: State, problem: Problem, batch: Evaluation, config: SearchConfig):
    state, metrics = tell(changing.replace(problem=problem), batch, config)
    query, state = ask(state, config)
    return query, state.replace(problem=None), metrics


def recommend(state: State, config: SearchConfig) -> jax.Array:
    """Returns the point to deploy for each threshold, `[B]` places in the grid."""
    if config.recommend == "last":
        return state.last
    return _most_rewarding(state, state.safe, config)


def _most_rewarding(state: State, safe: jax.Array, config: SearchConfig) -> jax.Array:
    score = state.posterior.mean[0].mean(0)
    if config.recommend == "lower":
        score = bounds.confidence(state.posterior, state.problem.alpha[state.step])[0][0]
    return jax.vmap(lambda allowed: acquisition.best(score, allowed))(safe)


def serve(state: State, thresholds: jax.Array, config: SearchConfig) -> tuple[jax.Array, jax.Array]:
    """Answers for other thresholds from the same evaluations: the cost model does not depend on b.

    Args:
      state: of any search.
      thresholds: `[B, C]`, at which the seed set is safe too and, where the prior mean is the
        greatest threshold, none above it.
      config: static.

    Returns:
      The point to deploy for each `[B]` (no last one is known for it, so `last` counts as `mean`),
      and the safe sets `[B, Z]`.
    """
    thresholds = jnp.asarray(thresholds, state.upper.dtype)
    seeds = jnp.broadcast_to(state.problem.seed, (thresholds.shape[0], *state.problem.seed.shape))
    problem = state.problem.replace(thresholds=thresholds)
    safe = bounds.safe_sets(state.replace(problem=problem, safe=seeds), config)
    return _most_rewarding(state, safe, config), safe


def run_search(
    key: jax.Array,
    evaluate: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    problem: Problem,
    config: SearchConfig,
    track: Callable[[State], Any] = lambda state: (),
) -> tuple[State, Trace]:
    """Runs a whole search as one scan; `key` is consumed. Maps over keys and problems.

    Args:
      key: of the evaluations and of the `seed` baseline.
      evaluate: pure `(key, point [Q], z [Q, D]) -> returns [Q, W, O]`.
      problem: from `make_problem`.
      config: static.
      track: what else to note of the state after each step.

    Returns:
      The last state, and a row per step.
    """
    key_state, key = jax.random.split(key)

    def step(state, _):
        query, state = ask(state, config)
        returns = evaluate(jax.random.fold_in(key, state.step), query.point, query.z)
        state, metrics = tell(state, Evaluation(query.point, returns), config)
        row = Trace(
            query.point, query.threshold, query.expanding, returns.mean(1), metrics, track(state)
        )
        return state, row

    return lax.scan(step, init(key_state, problem, config), None, config.num_steps)
