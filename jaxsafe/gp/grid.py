# SPDX-License-Identifier: Apache-2.0
"""The posterior of a Gaussian process on a finite grid, one observation at a time.

With K = L L^T over the N points observed (noise on its diagonal), the rows `V = L^-1 K(Z_N, Z)`
give every posterior covariance, `k(z, z') - V_z . V_z'`. One more observation adds one row and
changes no other (the Cholesky factor grows by a row): O(N |Z|), no solve, and shapes that do not
change, so it scans and maps. tinygp's dense conditioning gives the same numbers; the tests hold
them together.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax


class Posterior(struct.PyTreeNode):
    """One output on Z grid points after `count` of at most C observations.

    More outputs are more leading axes, by `vmap` over `AXES`: they are observed together, so one
    count serves all of them.
    """

    rows: jax.Array  # [C, Z] V, zero where nothing was observed yet
    mean: jax.Array  # [Z]
    var: jax.Array  # [Z], of the function, without noise
    count: jax.Array  # [] int32


AXES: Any = Posterior(rows=0, mean=0, var=0, count=None)  # type: ignore[arg-type]


def init(mean: jax.Array, var: jax.Array, capacity: int) -> Posterior:
    """Returns the prior: mean and variance `[Z]`, room for `capacity` observations."""
    mean = jnp.asarray(mean)
    return Posterior(
        rows=jnp.zeros((capacity, mean.shape[0]), mean.dtype),
        mean=mean,
        var=jnp.asarray(var, mean.dtype),
        count=jnp.int32(0),
    )


def std(posterior: Posterior) -> jax.Array:
    """Returns the posterior standard deviation `[Z]`."""
    return jnp.sqrt(posterior.var)


def covariance(posterior: Posterior, prior: jax.Array, index: jax.Array) -> jax.Array:
    """Returns the posterior covariance `[Z]` of one grid point with all.

    Args:
      posterior: after any observations.
      prior: `[Z]` the kernel of that point with all, from `kernels.cross`.
      index: `[]` the point's place in the grid.
    """
    return prior - posterior.rows[:, index] @ posterior.rows


def add(
    posterior: Posterior,
    prior: jax.Array,
    index: jax.Array,
    value: jax.Array,
    noise_var: jax.Array | float,
) -> Posterior:
    """Returns the posterior after one more observation; the order of observations is irrelevant.

    Beyond the capacity the mean and variance are still right, but the row replaces the last one,
    so what comes after is wrong: count on the host.

    Args:
      posterior: with `count < C`.
      prior: `[Z]` the kernel of the observed point with all, from `kernels.cross`.
      index: `[]` the observed point's place in the grid.
      value: `[]` what was observed.
      noise_var: `[]` variance of this observation's noise, positive; each may have its own.
    """
    own = posterior.var[index]
    scale = jnp.sqrt(own + noise_var)
    # Cauchy-Schwarz: true but for rounding. Where one point is observed very often, rounding in 32
    # bits is all that is left of a covariance, and unbounded it would feed on itself.
    most = jnp.sqrt(own * posterior.var)
    row = jnp.clip(covariance(posterior, prior, index), -most, most) / scale
    return Posterior(
        # Not `at[].set`: as a scatter it would not be done in place.
        rows=lax.dynamic_update_index_in_dim(posterior.rows, row, posterior.count, 0),
        mean=posterior.mean + row * (value - posterior.mean[index]) / scale,
        var=jnp.maximum(posterior.var - row**2, 0.0),
        count=posterior.count + 1,
    )
