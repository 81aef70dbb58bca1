# SPDX-License-Identifier: Apache-2.0
"""Multi-layer perceptron with the two initialisations that reinforcement-learning code uses."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers


def fan_in_uniform(scale: float = 1.0) -> initializers.Initializer:
    """Returns the U(-s/sqrt(fan_in), s/sqrt(fan_in)) kernel initialiser, PyTorch's default."""
    return initializers.variance_scaling(scale**2 / 3.0, "fan_in", "uniform")


def bias_uniform(fan_in: int, scale: float = 1.0) -> initializers.Initializer:
    """Returns PyTorch's default bias initialiser, U(-s/sqrt(fan_in), s/sqrt(fan_in))."""
    bound = scale / max(fan_in, 1) ** 0.5

    def init(key, shape, dtype=jnp.float32, out_sharding=None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class MLP(nn.Module):
    """ReLU perceptron `[..., I] -> [..., out_size]`, linear at the end.

    Attributes:
      hidden: widths of the hidden layers.
      out_size: width of the output.
      layer_norm: normalise each hidden layer before its ReLU.
      final_scale: factor on the last layer's initial weights and biases.
      final_bias: whether the last layer has a bias.
    """

    hidden: Sequence[int]
    out_size: int
    layer_norm: bool = False
    final_scale: float = 1.0
    final_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the network to `x` `[..., I]`."""
        for width in self.hidden:
            x = nn.Dense(width, kernel_init=fan_in_uniform(), bias_init=bias_uniform(x.shape[-1]))(
                x
            )
            if self.layer_norm:
                x = nn.LayerNorm()(x)
            x = nn.relu(x)
        return nn.Dense(
            self.out_size,
            kernel_init=fan_in_uniform(self.final_scale),
            bias_init=bias_uniform(x.shape[-1], self.final_scale),
            use_bias=self.final_bias,
        )(x)
