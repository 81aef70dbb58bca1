# SPDX-License-Identifier: Apache-2.0
"""One run: a frozen encoder, and predictors that differ in what was annotated and replayed.

V predictors stand side by side on one encoder; each is a plan: a method and a number of
annotations. N rows are images of the offline data, E its episodes, T their greatest length.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from jaxsafe.core.checks import UserError
from jaxsafe.data.image_episodes import ImageEpisodes
from jaxsafe.image_to_semantics import algorithm, augment, networks, select
from jaxsafe.image_to_semantics.augment import Simulator
from jaxsafe.image_to_semantics.config import Config
from jaxsafe.image_to_semantics.plans import ORDERS, Study, plans
from jaxsafe.image_to_semantics.types import Latents, Metrics, Pairs, Range, State

METRICS = ("vae/loss", "vae/reconstruction", "vae/kl", "heads/loss", "heads/worst_loss")


class Table(NamedTuple):
    """Offline data as arrays of one size.

    Attributes:
      images: `[N, 64, 64, 3]` uint8.
      stacks: `[N, F]` int32, rows of each row's stack, newest first; at a start it is repeated.
      rows: `[E, T]` int32, 0 past an end.
      lengths: `[E]` int32.
      actions: `[E, T, A]` float32.
      truth: `[E, T, S]` float32, what the annotator knows.
      std: `[S]`, standard deviations of the source's semantics.
    """

    images: jax.Array
    stacks: jax.Array
    rows: jax.Array
    lengths: jax.Array
    actions: jax.Array
    truth: jax.Array
    std: jax.Array


class Setup(NamedTuple):
    """What stays the same in a run; none of it changes with the seed."""

    config: Config
    study: Study
    simulator: Simulator
    range: Range


class Run(struct.PyTreeNode):
    """A learner and what it is taught.

    Attributes:
      learner: autoencoder and V predictors.
      latents: `[N, Z]` of the frozen encoder; zeros before it is.
      labels: `[V, E, T, S]`.
      mask: `[V, E, T]` bool, which of them are used.
      horizon: `[V, E]` int32, K, and -1 where an episode is not annotated.
      last: the metrics of the last chunk, by the order of `METRICS`; 0 where there were none.
    """

    learner: State
    latents: Latents
    labels: jax.Array
    mask: jax.Array
    horizon: jax.Array
    last: jax.Array


def table(data: ImageEpisodes, frames: int, std: np.ndarray) -> Table:
    """Lays episodes out as arrays.

    Args:
      data: with its truth.
      frames: F.
      std: `[S]`.

    Raises:
      UserError: the data hold no truth to annotate from, or of another size.
    """
    if data.truth.shape[1] != len(std):
        raise UserError(
            f"the data's truth has {data.truth.shape[1]} numbers an image and the world "
            f"{len(std)} semantics: take the world that the data come from."
        )
    rows, number = data.rows, len(data.images)
    begin = np.repeat(data.starts, data.lengths)
    stacks = np.stack([np.maximum(np.arange(number) - k, begin) for k in range(frames)], axis=1)
    inside = np.maximum(rows, 0)
    return Table(
        images=jnp.asarray(data.images),
        stacks=jnp.asarray(stacks, jnp.int32),
        rows=jnp.asarray(inside, jnp.int32),
        lengths=jnp.asarray(data.lengths, jnp.int32),
        actions=jnp.asarray(data.actions[inside]),
        truth=jnp.asarray(data.truth[inside]),
        std=jnp.asarray(std, jnp.float32),
    )


def init(key: jax.Array, setup: Setup, data: Table) -> Run:
    """Returns a run before its first step; `key` is consumed."""
    number, (episodes, steps, size) = len(plans(setup.study)), data.truth.shape
    blank = jnp.zeros((len(data.images), setup.config.encoded))
    return Run(
        learner=algorithm.init(key, setup.config, setup.range, number),
        latents=Latents(blank, blank + 0.0),
        labels=jnp.zeros((number, episodes, steps, size)),
        mask=jnp.zeros((number, episodes, steps), bool),
        horizon=jnp.full((number, episodes), -1, jnp.int32),
        last=jnp.zeros(len(METRICS)),
    )


def _key(run: Run, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(run.learner.key, run.learner.step), purpose)


def _orders(run: Run, setup: Setup, data: Table, latents: Latents) -> dict[str, jax.Array]:
    """The orders in which episodes are annotated, as far as the study's methods need them."""
    study, most = setup.study, max(setup.study.budgets)
    wanted = {ORDERS[method] for method in study.methods}
    inside = augment.horizon_mask(data.lengths, data.rows.shape[1], data.rows.shape[1])
    seen = inside[:, :: study.stride]
    z = latents.mean[data.rows[:, :: study.stride]]
    orders = {"uniform": select.uniform(_key(run, 3), len(data.rows), most)}
    if "diverse" in wanted:
        orders["diverse"] = select.diverse(_key(run, 4), z, seen, most, study.share, study.pool)
    if "k_center" in wanted:
        orders["k_center"] = select.k_center(_key(run, 5), z, seen, most)
    if "uncertain" in wanted:
        doubt = latents.logvar.mean(-1)[data.rows]
        orders["uncertain"] = select.uncertain((doubt * inside).sum(1) / data.lengths, most)
    return orders


def prepare(run: Run, setup: Setup, data: Table) -> Run:
    """Encodes all images, annotates, and replays: what lies between the two phases."""
    latents = algorithm.encode_rows(run.learner.vae, setup.config, data.images, data.stacks)
    orders, study = _orders(run, setup, data, latents), setup.study
    error = jax.random.normal(_key(run, 6), data.truth[:, 0].shape)
    starts = data.truth[:, 0] + study.annotation_error * data.std * error
    steps = data.rows.shape[1]
    rolled = augment.roll_out(setup.simulator, starts, data.actions, data.lengths, steps)
    inside, anywhere = rolled.mask, _anywhere(run, rolled.mask)
    labels, masks, horizons = [], [], []
    for method, budget in plans(study):
        if method == "ceiling":
            chosen = jnp.ones(len(data.rows), bool)
        else:
            picked = orders["uniform" if ORDERS[method] == "steps" else ORDERS[method]][:budget]
            chosen = jnp.zeros(len(data.rows), bool).at[picked].set(True)
        limit = {"paired_starts": 0, "short": study.horizon, "auto": study.horizon}
        last = limit.get("auto" if method == "anchored" else method, steps)
        mask = inside & chosen[:, None] & augment.horizon_mask(data.lengths, steps, last)
        if method == "paired":
            mask = anywhere < budget
        copied = method in ("paired", "copied", "ceiling")
        labels.append(data.truth if copied else rolled.semantics)
        masks.append(mask)
        horizons.append(jnp.where(mask.any(1), mask.sum(1) - 1, -1))
    return run.replace(
        latents=latents,
        labels=jnp.stack(labels),
        mask=jnp.stack(masks),
        horizon=jnp.stack(horizons).astype(jnp.int32),
    )


def _anywhere(run: Run, inside: jax.Array) -> jax.Array:
    """Numbers all steps `[E, T]` in random order, those outside of episodes last."""
    score = jnp.where(inside, jax.random.uniform(_key(run, 7), inside.shape), jnp.inf).reshape(-1)
    return jnp.argsort(jnp.argsort(score)).reshape(inside.shape)


def relabel(run: Run, setup: Setup, data: Table) -> Run:
    """Chooses K of the methods auto and anchored, whose predictors know a few steps by now."""
    study, steps = setup.study, data.rows.shape[1]
    labels, mask, horizon = run.labels, run.mask, run.horizon
    for v, (method, _) in enumerate(plans(study)):
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
    return run.replace(labels=labels, mask=mask, horizon=horizon)


def _image_batch(run: Run, setup: Setup, data: Table) -> jax.Array:
    rows = jax.random.randint(_key(run, 2), (setup.config.vae_batch,), 0, len(data.images))
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
    places = jax.random.uniform(_key(run, 2), shape) * count[:, None]
    places = jnp.minimum(places.astype(jnp.int32), count[:, None] - 1)
    steps = jnp.take_along_axis(order, places, axis=1)
    rows = data.rows.reshape(-1)[steps]
    semantics = jax.vmap(lambda x, s: x.reshape(-1, x.shape[-1])[s])(run.labels, steps)
    return Pairs(Latents(run.latents.mean[rows], run.latents.logvar[rows]), semantics)


def chunk(
    run: Run, first: jax.Array, length: int, setup: Setup, data: Table
) -> tuple[Run, Metrics]:
    """Steps `first` to `first + length - 1`: of the autoencoder, and once it is done of predictors.

    Loops, and no branches, tell the phases apart, so a step pays for its own phase alone.

    Returns:
      the run, and the means of the chunk's metrics; of a phase that it has no step of, the last.
    """
    config = setup.config
    begin, middle = config.vae_steps, config.vae_steps + config.head_steps // 2
    sums = jnp.zeros(len(METRICS))

    def vae_step(_, carry):
        run, sums = carry
        learner, m = algorithm.vae_update(run.learner, _image_batch(run, setup, data), config)
        return run.replace(learner=learner), sums.at[:3].add(jnp.stack([m[k] for k in METRICS[:3]]))

    def heads_phase(run, sums, low, high):
        pools = _pools(run)

        def heads_step(_, carry):
            run, sums = carry
            pairs = _pairs(run, setup, data, pools)
            learner, m = algorithm.heads_update(run.learner, pairs, config)
            sums = sums.at[3:].add(jnp.stack([m[k] for k in METRICS[3:]]))
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
    counts = jnp.stack([vae_steps] * 3 + [heads_steps] * 2)
    last = jnp.where(counts > 0, sums / jnp.maximum(counts, 1), run.last)
    return run.replace(last=last), dict(zip(METRICS, last, strict=True))


def result(run: Run) -> dict[str, Any]:
    """What scoring takes of runs; leaves stay `[num_seeds, ...]`."""
    learner = run.learner
    return {
        "vae": learner.vae,
        "heads": learner.heads,
        "range": learner.range,
        "horizon": run.horizon,
        "labelled": run.mask.sum((-1, -2)),
    }
