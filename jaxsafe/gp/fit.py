# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters by marginal likelihood: tinygp's likelihood, optax's L-BFGS.

Fit on offline information (logged data, rollouts in a learned model). Refitting on what a safe
search observes voids its promise, since the bounds then depend on the noise they should cover.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike
from tinygp import GaussianProcess

from jaxsafe.core.checks import UserError
from jaxsafe.gp import kernels

_JITTER = 1e-6  # least noise, as a share of the values' variance
_GAIN, _PATIENCE = 1e-6, 3  # a run ends after so many steps without that relative gain


class Hyperparameters(NamedTuple):
    """A constant mean, a kernel's scale and lengthscales, and the noise."""

    mean: jax.Array  # [], units of the values
    variance: jax.Array  # [], their square
    lengthscale: jax.Array  # [D], units of the inputs
    noise_var: jax.Array  # [], as `variance`
    log_likelihood: jax.Array  # []


def log_likelihood(
    name: str, x: jax.Array, y: jax.Array, lengthscale, variance, noise_var, mean: ArrayLike = 0.0
) -> jax.Array:
    """Returns the log density of values `y` `[N]` at inputs `x` `[N, D]` by tinygp."""
    kernel = kernels.make(name, lengthscale, variance)
    process = GaussianProcess(kernel, x, diag=noise_var, mean=jnp.asarray(mean))
    return process.log_probability(y)


def fit(
    key: jax.Array,
    x: jax.Array,
    y: jax.Array,
    name: str = "rbf",
    noise_var: float | None = None,
    num_starts: int = 8,
    num_steps: int = 60,
) -> Hyperparameters:
    """Returns the most likely hyperparameters over several starts; `key` is consumed.

    Args:
      key: of the starts.
      x: `[N, D]` inputs, each varying; scaled to unit deviation inside.
      y: `[N]` values, at least three and not all equal; the mean stays at their average.
      name: one of `kernels.KERNELS`.
      noise_var: where known, kept; `None` fits it too.
      num_starts: random starts.
      num_steps: of L-BFGS from each, at most.

    Raises:
      UserError: shapes do not fit together, or the data do not vary or are not finite.
    """
    x_host, y_host = np.asarray(x, np.float64), np.asarray(y, np.float64)
    _check(x_host, y_host)
    x_scale, centre, y_scale = x_host.std(0), y_host.mean(), y_host.std()
    inputs = jnp.asarray((x_host - x_host.mean(0)) / x_scale, float)
    values = jnp.asarray((y_host - centre) / y_scale, float)
    known = None if noise_var is None else noise_var / y_scale**2

    def unpack(theta):
        noise = jnp.exp(theta[1]) if known is None else known
        return jnp.exp(theta[2:]), jnp.exp(theta[0]), noise + _JITTER

    def loss(theta):
        # A weak prior of three decades keeps a flat likelihood from running away.
        return 0.5 * jnp.sum((theta / 7.0) ** 2) - log_likelihood(
            name, inputs, values, *unpack(theta)
        )

    spread = jnp.array([0.5, 1.0] + [1.0] * x_host.shape[1])
    centres = jnp.array([0.0, -3.0] + [0.0] * x_host.shape[1])
    starts = centres + spread * jax.random.normal(key, (num_starts, len(spread)))
    # In turn: side by side all would take the steps of the slowest, in its line searches as well.
    thetas, losses = jax.jit(
        lambda starts: lax.map(lambda start: _minimise(loss, start, num_steps), starts)
    )(starts)
    best = thetas[jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))]
    lengthscale, variance, noise = unpack(best)
    found = (lengthscale * x_scale, variance * y_scale**2, noise * y_scale**2)
    centre = jnp.asarray(centre, float)
    likelihood = log_likelihood(name, jnp.asarray(x, float), jnp.asarray(y, float), *found, centre)
    return Hyperparameters(centre, found[1], found[0], found[2], likelihood)


def _minimise(loss, start: jax.Array, num_steps: int) -> tuple[jax.Array, jax.Array]:
    """Returns the best point of one L-BFGS run, and its loss; it ends where it no longer gains."""
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def going(carry):
        return (carry[-2] < num_steps) & (carry[-1] < _PATIENCE)

    def step(carry):
        theta, state, best, least, count, idle = carry
        value, grad = value_and_grad(theta, state=state)
        gains = value < least - _GAIN * jnp.abs(least)
        better = value < least
        best, least = jnp.where(better, theta, best), jnp.where(better, value, least)
        updates, state = optimizer.update(grad, state, theta, value=value, grad=grad, value_fn=loss)
        theta = optax.apply_updates(theta, updates)
        return theta, state, best, least, count + 1, jnp.where(gains, 0, idle + 1)

    most = jnp.asarray(jnp.finfo(start.dtype).max, start.dtype)
    carry = (start, optimizer.init(start), start, most, jnp.int32(0), jnp.int32(0))
    _, _, best, least, _, _ = lax.while_loop(going, step, carry)
    return best, least


def _check(x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim != 2 or y.shape != x.shape[:1] or len(y) < 3:
        raise UserError(
            f"x has shape {x.shape} and y {y.shape}: give x [N, D] and y [N] with N >= 3."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError("x or y holds values that are not finite: drop those rows.")
    if y.std() == 0 or (x.std(0) == 0).any():
        raise UserError("y or a column of x is constant: give data that vary, or drop that column.")
