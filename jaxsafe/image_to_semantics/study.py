# SPDX-License-Identifier: Apache-2.0
"""One run: a frozen encoder, and predictors that differ in what was annotated and replayed.

V predictors stand side by side on one encoder; each is a plan: a method and a number of
annotations. The one without annotations learns beside them. N rows are images of the offline data,
E its episodes, T their greatest length.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.image_to_semantics import algorithm, unpaired
from jaxsafe.image_to_semantics.labelling import prepare, relabel
from jaxsafe.image_to_semantics.plans import taught
from jaxsafe.image_to_semantics.runs import Run, Setup, Table, draw_key, metric_names, table
from jaxsafe.image_to_semantics.types import Latents, Metrics, Pairs
from jaxsafe.image_to_semantics.unpaired import Seen

__all__ = ["Run", "Setup", "Table", "chunk", "init", "prepare", "relabel", "result", "table"]


def init(key: jax.Array, setup: Setup, data: Table) -> Run:
    """Returns a run before its first step; `key` is consumed."""
    number, (episodes, steps, size) = len(taught(setup.study)), data.truth.shape
    blank = jnp.zeros((len(data.images), setup.config.encoded))
    learner, alone = algorithm.init(key, setup.config, setup.range, number), None
    if setup.source is not None:
        mine = jax.random.fold_in(jax.random.fold_in(learner.key, 0), 8)
        alone = unpaired.init(mine, setup.config, setup.how, size)
    family = setup.family
    return Run(
        learner=learner,
        latents=Latents(blank, blank + 0.0),
        labels=jnp.zeros((number, episodes, steps, size)),
        mask=jnp.zeros((number, episodes, steps), bool),
        horizon=jnp.full((number, episodes), -1, jnp.int32),
        last=jnp.zeros(len(metric_names(setup.study))),
        label_error=jnp.zeros(number),
        factors=None if family is None else jnp.ones((len(setup.study.budgets), family.factors)),
        alone=alone,
    )


def _image_batch(run: Run, setup: Setup, data: Table) -> jax.Array:
    rows = jax.random.randint(draw_key(run, 2), (setup.config.vae_batch,), 0, len(data.images))
    if setup.config.encoders == "shared":
        return data.images[rows][:, None]
    return data.images[data.stacks[rows]]


def _pools(run: Run) -> tuple[jax.Array, jax.Array]:
    """The used steps of each predictor first, `[V, E T]`, and how many they are, `[V]`."""
    flat = run.mask.reshape(len(run.mask), -1)
    return jnp.argsort(~flat, axis=1, stable=True), flat.sum(1)


def _pairs(run: Run, setup: Setup, data: Table, pools: tuple[jax.Array, jax.Array]) -> Pairs:
    """Draws uniformly over all pairs of each predictor."""
    order, count = pools
    shape = (len(order), setup.config.head_batch)
    places = jax.random.uniform(draw_key(run, 2), shape) * count[:, None]
    places = jnp.minimum(places.astype(jnp.int32), count[:, None] - 1)
    steps = jnp.take_along_axis(order, places, axis=1)
    rows = data.rows.reshape(-1)[steps]
    semantics = jax.vmap(lambda x, s: x.reshape(-1, x.shape[-1])[s])(run.labels, steps)
    return Pairs(Latents(run.latents.mean[rows], run.latents.logvar[rows]), semantics)


def _moves(data: Table) -> tuple[jax.Array, jax.Array]:
    """Steps that have a next one in their episode first, `[E T]`, and how many they are."""
    inner = (jnp.arange(data.rows.shape[1]) < data.lengths[:, None] - 1).reshape(-1)
    return jnp.argsort(~inner, stable=True), inner.sum()


def _seen(run: Run, setup: Setup, data: Table, moves: tuple[jax.Array, jax.Array]) -> Seen:
    """Draws uniformly over the target's transitions."""
    order, count = moves
    size = (setup.config.head_batch,)
    steps = order[jax.random.randint(draw_key(run, 8), size, 0, jnp.maximum(count, 1))]
    rows = data.rows.reshape(-1)[steps]
    actions = data.actions.reshape(-1, data.actions.shape[-1])[steps]
    z = run.latents.mean
    return Seen(z[rows], actions, z[rows + 1])  # rows of an episode lie side by side


def _unpaired_step(run: Run, setup: Setup, data: Table, moves: tuple[jax.Array, jax.Array]):
    """A step of the predictor without annotations: its next state and its metrics."""
    config, source = setup.config, setup.source
    assert source is not None and run.alone is not None
    drawn = jax.random.randint(draw_key(run, 9), (config.head_batch,), 0, len(source.states))
    lr = unpaired.rate(run.learner.step - config.vae_steps, config.head_steps, setup.how)
    some, seen = source.states[drawn], _seen(run, setup, data, moves)
    return unpaired.update(run.alone, source, some, seen, lr, config, setup.how)


def chunk(
    run: Run, first: jax.Array, length: int, setup: Setup, data: Table
) -> tuple[Run, Metrics]:
    """Steps `first` `[]` to `first + length - 1`: of the autoencoder, then of the predictors.

    Loops, and no branches, tell the phases apart, so a step pays for its own phase alone.

    Returns:
      the run, and means `[]` of the metrics; of a phase that it has no step of, the last.
    """
    config, names = setup.config, metric_names(setup.study)
    begin, middle = config.vae_steps, config.vae_steps + config.head_steps // 2
    sums = jnp.zeros(len(names))

    def vae_step(_, carry):
        run, sums = carry
        learner, m = algorithm.vae_update(run.learner, _image_batch(run, setup, data), config)
        return run.replace(learner=learner), sums.at[:3].add(jnp.stack([m[k] for k in names[:3]]))

    def heads_phase(run, sums, low, high):
        pools, moves = _pools(run), _moves(data)

        def heads_step(_, carry):
            run, sums = carry
            pairs = _pairs(run, setup, data, pools)
            learner, m = algorithm.heads_update(run.learner, pairs, config)
            sums = sums.at[3:5].add(jnp.stack([m[k] for k in names[3:5]]))
            if run.alone is not None:
                alone, values = _unpaired_step(run, setup, data, moves)
                run, sums = run.replace(alone=alone), sums.at[5:].add(values)
            return run.replace(learner=learner), sums

        return lax.fori_loop(0, jnp.clip(high - low, 0, length), heads_step, (run, sums))

    end = first + length
    vae_steps = jnp.clip(begin - first, 0, length)
    run, sums = lax.fori_loop(0, vae_steps, vae_step, (run, sums))
    within = lambda step: (first <= step) & (step < end)  # noqa: E731
    run = lax.cond(within(begin), lambda r: prepare(r, setup, data), lambda r: r, run)
    run, sums = heads_phase(run, sums, jnp.maximum(first, begin), jnp.minimum(end, middle))
    if {"auto", "anchored"} & set(setup.study.methods):
        run = lax.cond(within(middle), lambda r: relabel(r, setup, data), lambda r: r, run)
    run, sums = heads_phase(run, sums, jnp.maximum(first, middle), end)
    heads_steps = length - vae_steps
    counts = jnp.stack([vae_steps] * 3 + [heads_steps] * (len(names) - 3))
    last = jnp.where(counts > 0, sums / jnp.maximum(counts, 1), run.last)
    return run.replace(last=last), dict(zip(names, last, strict=True))


def result(run: Run) -> dict[str, Any]:
    """What scoring takes of runs; leaves stay `[num_seeds, ...]`."""
    learner, heads = run.learner, run.learner.heads
    horizon, labelled = run.horizon, run.mask.sum((-1, -2))
    if run.alone is not None:  # as one more predictor, which no label has taught
        join = lambda *x: jnp.concatenate(x, axis=run.horizon.ndim - 2)  # noqa: E731
        heads = jax.tree.map(join, heads, run.alone.heads)
        horizon = join(horizon, jnp.full_like(horizon[..., :1, :], -1))
        labelled = join(labelled, jnp.zeros_like(labelled[..., :1]))
    more = {} if run.factors is None else {"factors": run.factors}
    return more | {
        "vae": learner.vae,
        "heads": heads,
        "range": learner.range,
        "horizon": horizon,
        "labelled": labelled,
        "label_error": run.label_error,
    }
