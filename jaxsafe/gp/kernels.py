# SPDX-License-Identifier: Apache-2.0
"""tinygp's stationary kernels by name, with one lengthscale per input."""

from typing import Any

import jax
import jax.numpy as jnp
from tinygp import kernels, transforms

from jaxsafe.core.checks import check_choice

_BASES: dict[str, Any] = {
    "rbf": kernels.ExpSquared,
    "matern52": kernels.Matern52,
    "matern32": kernels.Matern32,
}
KERNELS = tuple(_BASES)


def make(name: str, lengthscale: jax.Array, variance: jax.Array | float) -> kernels.Kernel:
    """Returns `variance * k(|x - x'|)` of Euclidean distances in lengthscales, with k(0) = 1.

    Args:
      name: one of `KERNELS`; `rbf` is `exp(-d^2 / 2)`.
      lengthscale: `[D]` or `[]`, in units of the inputs, positive.
      variance: `[]`, in squared units of the output, positive.

    Raises:
      UserError: the name is unknown.
    """
    check_choice("kernel", name, KERNELS)
    # The base measures scalar distances by L1 unless told otherwise, and Matern's are L1 in D > 1.
    base = _BASES[name](distance=kernels.distance.L2Distance())
    return variance * transforms.Linear(1.0 / jnp.asarray(lengthscale), base)


def cross(kernel: kernels.Kernel, x: jax.Array, points: jax.Array) -> jax.Array:
    """Returns `k(x, points)` `[Z]` of one input `[D]` with many `[Z, D]`."""
    return kernel(x[None], points)[0]
