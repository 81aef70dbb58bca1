# SPDX-License-Identifier: Apache-2.0
"""No annotations: dynamics cycle and adversary (Zhang et al., ICLR 2021), the zero-label rival.

A predictor phi of normalised semantics is to look like the source's states to a discriminator D,
and to move like them under a model T of the source's dynamics, learned from source transitions:

    cycle = |phi(o') - T(phi(o), a)|,   adversary = (D(phi(o)) - 1)^2.

Source and target share their actions here, so the maps of actions of the original are the identity.
Written from the paper's equations; weights, networks and rates are those that Sato et al. ran
(page, section 3), as Zhang et al.'s own weights are said not to work here. Letters in shapes: B
batch, S semantics, A actions, Z latents.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from jaxsafe.core.config import field
from jaxsafe.image_to_semantics import networks
from jaxsafe.image_to_semantics.config import Config
from jaxsafe.image_to_semantics.types import Params, Range
from jaxsafe.nn.mlp import MLP

METRICS = ("unpaired/cycle", "unpaired/adversary", "unpaired/discriminator")
_FIFTHS = 5


@dataclasses.dataclass(frozen=True)
class Unpaired:
    """The baseline without annotations. Static."""

    lr: float = field(1e-3, "Adam's rate at first; a third of it after each fifth.", low=0.0)
    cycle_weight: float = field(1.0, "Weight of the dynamics cycle.", low=0.0)
    adversary_weight: float = field(2.0, "Weight of the adversary.", low=0.0)
    discriminator: tuple[int, ...] = field(
        (512, 512), "Widths of the discriminator's hidden layers.", low=1
    )
    dynamics: tuple[int, ...] = field(
        (256, 256), "Widths of the dynamics model's hidden layers; published: 1024,1024.", low=1
    )
    dynamics_epochs: int = field(50, "Passes over the source's transitions.", low=1)


class Moves(NamedTuple):
    """Transitions of the source: normalised semantics `[M, S]`, actions `[M, A]`, and what came."""

    before: jax.Array
    action: jax.Array
    after: jax.Array


class Source(NamedTuple):
    """What the baseline knows of the source: states it visits, and a model of its dynamics."""

    states: jax.Array  # [M, S] normalised
    dynamics: Params


class Seen(NamedTuple):
    """A minibatch of the target: latents of an image and of the next `[B, Z]`, actions `[B, A]`."""

    latents: jax.Array
    action: jax.Array
    next_latents: jax.Array


class State(struct.PyTreeNode):
    """One predictor without annotations, and its discriminator.

    Attributes:
      heads: parameters of the predictor, leaves `[1, ...]`.
      heads_opt: of its optimizer.
      discriminator: parameters.
      discriminator_opt: of its optimizer.
    """

    heads: Params
    heads_opt: Any
    discriminator: Params
    discriminator_opt: Any


def predicted(params: Params, widths: tuple[int, ...], state: jax.Array, action: jax.Array):
    """T(s, a) `[B, S]` for normalised semantics `[B, S]`: s and a learned change."""
    size = state.shape[-1]
    inputs = jnp.concatenate([state, action], axis=-1)
    return state + jnp.asarray(MLP(widths, size).apply(params, inputs))


def fit_dynamics(
    key: jax.Array, moves: Moves, how: Unpaired, batch: int = 250, lr: float = 1e-3
) -> Params:
    """Learns T by squared errors with Adam; `key` is consumed."""
    init_key, key = jax.random.split(key)
    size, number = moves.before.shape[1], len(moves.before)
    blank = jnp.zeros((1, size + moves.action.shape[1]))
    params = MLP(how.dynamics, size).init(init_key, blank)
    batch = min(batch, number)
    steps = how.dynamics_epochs * (number // batch)
    optimizer = optax.adam(optax.cosine_decay_schedule(lr, steps))

    def loss(params: Params, some: Moves) -> jax.Array:
        found = predicted(params, how.dynamics, some.before, some.action)
        return ((found - some.after) ** 2).mean()

    def one(step, carry):
        params, opt = carry
        rows = jax.random.randint(jax.random.fold_in(key, step), (batch,), 0, number)
        grads = jax.grad(loss)(params, jax.tree.map(lambda x: x[rows], moves))
        updates, opt = optimizer.update(grads, opt)
        return optax.apply_updates(params, updates), opt

    return lax.fori_loop(0, steps, one, (params, optimizer.init(params)))[0]


def make_source(key: jax.Array, semantics, actions, alive, range_: Range, how: Unpaired) -> Source:
    """Learns the source's dynamics from episodes `worlds.source_episodes`; `key` is consumed."""
    states = networks.normalised(range_, semantics)
    size = states.shape[-1]
    moves = Moves(
        states[:, :-1].reshape(-1, size),
        actions.reshape(-1, actions.shape[-1]),
        states[:, 1:].reshape(-1, size),
    )
    kept = jax.tree.map(lambda x: x[jnp.flatnonzero(alive.reshape(-1))], moves)
    dynamics = jax.jit(lambda k, m: fit_dynamics(k, m, how))(key, kept)
    return Source(kept.before, dynamics)


def init(key: jax.Array, config: Config, how: Unpaired, size: int) -> State:
    """Returns a predictor of `size` semantics before its first step; `key` is consumed."""
    first, second = jax.random.split(key)
    heads = networks.init_heads(first, config, size, 1)
    discriminator = MLP(how.discriminator, 1).init(second, jnp.zeros((1, size)))
    adam = optax.scale_by_adam()
    return State(heads, adam.init(heads), discriminator, adam.init(discriminator))


def _predict(heads: Params, config: Config, size: int, z: jax.Array) -> jax.Array:
    one = jax.tree.map(lambda x: x[0], heads)
    return networks.normalised_prediction(one, config, size, z)


def judged(discriminator: Params, how: Unpaired, states: jax.Array) -> jax.Array:
    """D `[B]` of normalised semantics `[B, S]`; 1 is said of source states, 0 of predictions."""
    return jnp.asarray(MLP(how.discriminator, 1).apply(discriminator, states))[..., 0]


def predictor_loss(
    heads: Params, discriminator: Params, source: Source, seen: Seen, config: Config, how: Unpaired
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """cycle_weight mean |phi(o') - T(phi(o), a)| + adversary_weight mean (D(phi(o)) - 1)^2.

    Means are over the rows of `seen` `[B, ...]`; returns the loss, and both terms, each `[]`.
    """
    size = source.states.shape[-1]
    now = _predict(heads, config, size, seen.latents)
    then = _predict(heads, config, size, seen.next_latents)
    expected = predicted(source.dynamics, how.dynamics, now, seen.action)
    cycle = jnp.abs(then - expected).mean()
    adversary = ((judged(discriminator, how, now) - 1) ** 2).mean()
    return how.cycle_weight * cycle + how.adversary_weight * adversary, (cycle, adversary)


def discriminator_loss(
    discriminator: Params, states: jax.Array, predictions: jax.Array, how: Unpaired
) -> jax.Array:
    """mean (D(s) - 1)^2 + mean D(phi(o))^2 over source states and predictions `[B, S]`."""
    real = (judged(discriminator, how, states) - 1) ** 2
    return (real + judged(discriminator, how, predictions) ** 2).mean()


def rate(step: jax.Array, steps: int, how: Unpaired) -> jax.Array:
    """Adam's rate at `step` `[...]` of `steps`: divided by 3 at each fifth."""
    return how.lr * 3.0 ** -jnp.floor(_FIFTHS * step / steps)


def update(
    state: State,
    source: Source,
    states: jax.Array,
    seen: Seen,
    lr: jax.Array,
    config: Config,
    how: Unpaired,
) -> tuple[State, jax.Array]:
    """One step of predictor and discriminator.

    Args:
      state: of both.
      source: what is known of the source.
      states: `[B, S]`, some of its states, normalised.
      seen: some of the target's steps.
      lr: `[]`, from `rate`.
      config: static.
      how: static.

    Returns:
      the next state, and `[3]` values in the order of `METRICS`.
    """
    adam = optax.scale_by_adam()

    def stepped(params, grads, opt):
        updates, opt = adam.update(grads, opt)
        return jax.tree.map(lambda p, u: p - lr * u, params, updates), opt

    grads, (cycle, adversary) = jax.grad(predictor_loss, has_aux=True)(
        state.heads, state.discriminator, source, seen, config, how
    )
    fake = _predict(state.heads, config, states.shape[-1], seen.latents)
    loss, slope = jax.value_and_grad(discriminator_loss)(state.discriminator, states, fake, how)
    heads, heads_opt = stepped(state.heads, grads, state.heads_opt)
    discriminator, discriminator_opt = stepped(state.discriminator, slope, state.discriminator_opt)
    made = State(heads, heads_opt, discriminator, discriminator_opt)
    return made, jnp.stack([cycle, adversary, loss])
