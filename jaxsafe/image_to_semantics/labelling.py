# SPDX-License-Identifier: Apache-2.0
"""What lies between encoder and predictors: choosing episodes, annotating and replaying them."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.image_to_semantics import algorithm, augment, identify, networks, select
from jaxsafe.image_to_semantics.plans import ORDERS, second_annotations, taught
from jaxsafe.image_to_semantics.runs import Run, Setup, Table, draw_key
from jaxsafe.image_to_semantics.types import Latents


def _orders(run: Run, setup: Setup, data: Table, latents: Latents) -> dict[str, jax.Array]:
    """The orders in which episodes are annotated, as far as the study's methods need them."""
    study, most = setup.study, max(setup.study.budgets)
    wanted = {ORDERS[plan.method] for plan in taught(study)}
    inside = augment.horizon_mask(data.lengths, data.rows.shape[1], data.rows.shape[1])
    seen = inside[:, :: study.stride]
    z = latents.mean[data.rows[:, :: study.stride]]
    orders = {"uniform": select.uniform(draw_key(run, 3), len(data.rows), most)}
    if "diverse" in wanted:
        orders["diverse"] = select.diverse(draw_key(run, 4), z, seen, most, study.share, study.pool)
    if "k_center" in wanted:
        orders["k_center"] = select.k_center(draw_key(run, 5), z, seen, most)
    if "uncertain" in wanted:
        doubt = latents.logvar.mean(-1)[data.rows]
        orders["uncertain"] = select.uncertain((doubt * inside).sum(1) / data.lengths, most)
    return orders


def prepare(run: Run, setup: Setup, data: Table) -> Run:
    """Encodes all images, annotates, and replays: what lies between the two phases."""
    latents = algorithm.encode_rows(run.learner.vae, setup.config, data.images, data.stacks)
    orders, study = _orders(run, setup, data, latents), setup.study
    error = jax.random.normal(draw_key(run, 6), data.truth[:, 0].shape)
    starts = data.truth[:, 0] + study.annotation_error * data.std * error
    steps = data.rows.shape[1]
    rolled = augment.roll_out(setup.simulator, starts, data.actions, data.lengths, steps)
    inside, anywhere = rolled.mask, _anywhere(run, rolled.mask)
    family = setup.family
    if family is not None:
        factors = _identify(run, setup, data, orders["uniform"], starts)
        run = run.replace(factors=factors)

        def again(f: jax.Array) -> jax.Array:
            world = family.simulator(f)
            return augment.roll_out(world, starts, data.actions, data.lengths, steps).semantics

        fitted = lax.map(again, factors)
    labels, masks, horizons = [], [], []
    for method, budget in taught(study):
        if method == "ceiling":
            chosen = jnp.ones(len(data.rows), bool)
        else:
            first = budget
            if method == "identified":
                first -= second_annotations(study, budget)
            picked = orders["uniform" if ORDERS[method] == "steps" else ORDERS[method]][:first]
            chosen = jnp.zeros(len(data.rows), bool).at[picked].set(True)
        limit = {"paired_starts": 0, "short": study.horizon, "auto": study.horizon}
        last = limit.get("auto" if method == "anchored" else method, steps)
        mask = inside & chosen[:, None] & augment.horizon_mask(data.lengths, steps, last)
        if method == "paired":
            mask = anywhere < budget
        copied = method in ("paired", "copied", "ceiling")
        replayed = rolled.semantics
        if method == "identified":
            replayed = fitted[study.budgets.index(budget)]
        labels.append(data.truth if copied else replayed)
        masks.append(mask)
        horizons.append(jnp.where(mask.any(1), mask.sum(1) - 1, -1))
    run = run.replace(
        latents=latents,
        labels=jnp.stack(labels),
        mask=jnp.stack(masks),
        horizon=jnp.stack(horizons).astype(jnp.int32),
    )
    return run.replace(label_error=_label_error(run, data))


def _label_error(run: Run, data: Table) -> jax.Array:
    """RMS of used labels against the truth, in standard deviations, `[V]`."""
    gap = jax.vmap(augment.disagreement, (0, None, None))(run.labels, data.truth, data.std)
    used = jnp.where(run.mask, gap, 0.0).sum((1, 2)) / jnp.maximum(run.mask.sum((1, 2)), 1)
    return jnp.sqrt(used)


def _identify(
    run: Run, setup: Setup, data: Table, order: jax.Array, starts: jax.Array
) -> jax.Array:
    """Factors `[budgets, P]` fitted to second annotations of the first episodes of `order`.

    One image shows no speed, so places alone are compared. A second annotation has an error as the
    first has.
    """
    study, family = setup.study, setup.family
    assert family is not None
    counts = jnp.array([second_annotations(study, budget) for budget in study.budgets])
    most = second_annotations(study, max(study.budgets))
    chosen = order[:most]
    step = jnp.minimum(study.later, data.lengths[chosen] - 1)
    error = jax.random.normal(draw_key(run, 10), (most, data.truth.shape[-1]))
    later = data.truth[chosen, step] + study.annotation_error * data.std * error
    seen = identify.Annotated(starts[chosen], later, step, data.actions[chosen])
    std = jnp.where(jnp.asarray(family.shown), data.std, jnp.inf)

    def one(count: jax.Array) -> jax.Array:
        used = jnp.arange(most) < count
        return identify.fit(family.simulator, seen, std, family.factors, used=used).factors

    return lax.map(one, counts)


def _anywhere(run: Run, inside: jax.Array) -> jax.Array:
    """Numbers all steps `[E, T]` in random order, those outside of episodes last."""
    score = jnp.where(inside, jax.random.uniform(draw_key(run, 7), inside.shape), jnp.inf).reshape(
        -1
    )
    return jnp.argsort(jnp.argsort(score)).reshape(inside.shape)


def relabel(run: Run, setup: Setup, data: Table) -> Run:
    """Chooses K of the methods auto and anchored, whose predictors know a few steps by now."""
    study, steps = setup.study, data.rows.shape[1]
    labels, mask, horizon = run.labels, run.mask, run.horizon
    for v, (method, _) in enumerate(taught(study)):
        if method not in ("auto", "anchored"):
            continue
        head = jax.tree.map(lambda x, v=v: x[v], run.learner.heads)
        flat = networks.predict(head, setup.config, run.learner.range, run.latents.mean)
        guess = flat[data.rows]
        chosen = horizon[v] >= 0
        lengths = jnp.where(chosen, data.lengths, 1)
        gap = augment.disagreement(labels[v], guess, data.std)
        last = augment.auto_horizon(gap, lengths, study.horizon, study.tolerance)
        if method == "anchored":
            here = jnp.arange(steps) == last[:, None] + 1
            start = labels[v][:, 0]
            rolled = augment.roll_out(
                setup.simulator, start, data.actions, data.lengths, steps, guess, here
            )
            labels = labels.at[v].set(rolled.semantics)
        used = steps if method == "anchored" else last
        new = augment.horizon_mask(data.lengths, steps, used) & chosen[:, None]
        mask = mask.at[v].set(new)
        horizon = horizon.at[v].set(jnp.where(chosen, last, -1))
    run = run.replace(labels=labels, mask=mask, horizon=horizon)
    return run.replace(label_error=_label_error(run, data))
