# SPDX-License-Identifier: Apache-2.0
"""The paper's toy: find a teacher's one-hot architecture among 10^10 (authors' code, toy/toy.py).

An input of 13 x 13 numbers U(-1, 1) goes through P positions side by side. Position e has a fixed
7 x 7 convolution of stride 2 to K channels, each 4 x 4, of which its edge picks one; then tanh and
a fixed 4 x 4 convolution to one number. The output is the mean over positions, the target that of a
random one-hot teacher, the loss their mean squared error. Only theta learns.

Weights are N(0, 1 / fan-in), biases 0: Chainer's defaults, so ours by their law, not by their bits.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from jaxsafe.advantage_nas import estimators, relaxed, sampling
from jaxsafe.advantage_nas.config import EstimatorConfig, validate_estimator
from jaxsafe.advantage_nas.types import EstimatorState, Losses, Metrics
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds

SIDE, KERNEL, STRIDE, MAP = 13, 7, 2, 4


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    """The toy and how theta learns in it."""

    estimator: EstimatorConfig = EstimatorConfig()
    steps: int = field(2000, "Iterations.", low=1)
    positions: int = field(10, "P, edges.", low=1)
    channels: int = field(10, "K, candidates of an edge.", low=2)
    batch_size: int = field(100, "Inputs of a step.", low=1)
    eval_size: int = field(1000, "Inputs that score the most likely architecture.", low=1)
    lr: float = field(1e-3, "Adam's learning rate.", low=0.0)
    beta1: float = field(0.9, "Adam's decay of the first moment.", low=0.0, high=0.9999)


class Net(struct.PyTreeNode):
    """The fixed network and its teacher."""

    first: jax.Array  # [P, K, 49]
    second: jax.Array  # [P, 16]
    teacher: jax.Array  # [P] int32


class ToyState(struct.PyTreeNode):
    """One search in one random network."""

    net: Net
    theta: jax.Array  # [P, K]
    opt_state: Any
    estimator: EstimatorState
    key: jax.Array


def validate(config: ToyConfig, prefix: str = "toy.") -> None:
    """Raises `UserError` naming field, value and fix."""
    validate_bounds(config, prefix.rstrip("."))
    validate_estimator(config.estimator, f"{prefix}estimator.")


def patches(x: jax.Array) -> jax.Array:
    """The 7 x 7 windows `[B, 16, 49]` of inputs `[B, 13, 13]` at stride 2."""
    starts = STRIDE * jnp.arange(MAP)
    place = starts[:, None] + jnp.arange(KERNEL)
    return x[:, place[:, None, :, None], place[None, :, None, :]].reshape(-1, MAP**2, KERNEL**2)


def forward(net: Net, kernels: jax.Array, windows: jax.Array) -> jax.Array:
    """Outputs `[B]` where position e has the kernel `[P, 49]`, on windows `[B, 16, 49]`."""
    hidden = jnp.tanh(jnp.einsum("bwi,pi->bpw", windows, kernels))
    return jnp.einsum("bpw,pw->b", hidden, net.second) / len(kernels)


def picked(net: Net, choice: jax.Array) -> jax.Array:
    """The kernels `[P, 49]` of an architecture `[P]`."""
    return jnp.take_along_axis(net.first, choice[:, None, None], axis=1)[:, 0]


def losses(net: Net, x: jax.Array) -> Losses:
    """The mean squared error to the teacher on inputs `[B, 13, 13]`, in both forms.

    A gate multiplies the convolution's output ahead of tanh, so it may as well multiply its kernel.
    """
    windows = patches(x)
    target = forward(net, picked(net, net.teacher), windows)

    def error(kernels: jax.Array) -> tuple[jax.Array, Any]:
        return jnp.mean(jnp.square(forward(net, kernels, windows) - target)), ()

    return Losses(
        sampled=lambda gates, choice: error(gates[:, None] * picked(net, choice)),
        dense=lambda mixture: error(jnp.einsum("pk,pki->pi", mixture, net.first)),
    )


def _optimizer(config: ToyConfig) -> optax.GradientTransformation:
    return optax.adam(config.lr, config.beta1)


def _inputs(key: jax.Array, count: int) -> jax.Array:
    return jax.random.uniform(key, (count, SIDE, SIDE), minval=-1.0)


def init(key: jax.Array, config: ToyConfig) -> ToyState:
    """Returns a fresh search in a fresh network. `key` is consumed."""
    key_first, key_second, key_teacher, key = jax.random.split(key, 4)
    shape = (config.positions, config.channels, KERNEL**2)
    net = Net(
        first=jax.random.normal(key_first, shape) / KERNEL,
        second=jax.random.normal(key_second, (config.positions, MAP**2)) / MAP,
        teacher=jax.random.randint(key_teacher, (config.positions,), 0, config.channels),
    )
    theta = sampling.init_theta(config.positions, config.channels)
    return ToyState(
        net=net,
        theta=theta,
        opt_state=_optimizer(config).init(theta),
        estimator=estimators.init(config.positions, config.channels),
        key=key,
    )


def step(state: ToyState, number: jax.Array, config: ToyConfig) -> tuple[ToyState, jax.Array]:
    """One iteration on fresh inputs; returns the loss `[]` of what was drawn too."""
    key_draw, key_x = jax.random.split(jax.random.fold_in(state.key, 2 * number))
    loss = losses(state.net, _inputs(key_x, config.batch_size))
    how = config.estimator
    how = dataclasses.replace(how, tau_steps=how.tau_steps or config.steps)
    grad, estimator, info = estimators.estimate(key_draw, state.theta, loss, state.estimator, how)
    updates, opt_state = _optimizer(config).update(grad, state.opt_state)
    theta = jnp.asarray(optax.apply_updates(state.theta, updates))
    if how.method == "proxyless":
        theta = relaxed.rescaled(state.theta, theta, info)
    return state.replace(theta=theta, opt_state=opt_state, estimator=estimator), info.loss


def scores(state: ToyState, number: jax.Array, config: ToyConfig) -> Metrics:
    """`toy/loss`, that of the most likely architecture on fresh inputs, and `toy/correct`, its
    share of edges that are the teacher's.
    """
    key = jax.random.fold_in(state.key, 2 * number + 1)
    choice = jnp.argmax(state.theta, axis=1)
    loss, _ = losses(state.net, _inputs(key, config.eval_size)).sampled(
        jnp.ones(config.positions), choice
    )
    return {"toy/loss": loss, "toy/correct": jnp.mean(choice == state.net.teacher)}


def chunk(
    state: ToyState, first: jax.Array, length: int, config: ToyConfig
) -> tuple[ToyState, Metrics]:
    """Iterations `first` `[]` to `first + length - 1`.

    Returns:
      the search, the `scores` of where it is, and the means `toy/drawn_loss` of what was drawn and
      `toy/entropy` of theta's edges, in nats; all scalars.
    """
    state, drawn = lax.scan(lambda s, i: step(s, i, config), state, first + jnp.arange(length))
    metrics = scores(state, first + length - 1, config)
    metrics["toy/drawn_loss"] = drawn.mean()
    metrics["toy/entropy"] = sampling.entropy(state.theta).mean()
    return state, metrics
