# SPDX-License-Identifier: Apache-2.0
"""Trained policies on semantics as plain arrays, and the HDF5 file that holds one.

Whatever trained a policy, it acts here as a ReLU perceptron on scaled semantics whose tanh is laid
over the action limits, in NumPy for MuJoCo C and in JAX behind images. A file has the keys `scale`,
`low`, `high`, and `kernel_i` and `bias_i` for layers i = 0, 1, ...
"""

import os
import pathlib
from typing import Any

import jax
import numpy as np
from flax import struct

from jaxsafe.core.checks import UserError
from jaxsafe.data import hdf5
from jaxsafe.image_to_semantics.worlds import World


class Controller(struct.PyTreeNode):
    """A policy of S semantics and A actions; leaves may have leading axes, of seeds say.

    Attributes:
      scale: `[S]`, multiplies semantics.
      low: `[A]`, limits of actions.
      high: `[A]`.
      kernels: of the layers, `[inputs, outputs]` each.
      biases: `[outputs]` each.
    """

    scale: jax.Array
    low: jax.Array
    high: jax.Array
    kernels: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]


def of_perceptron(params: Any, scale: jax.Array, low: jax.Array, high: jax.Array) -> Controller:
    """Takes the layers out of `nn.mlp.MLP` parameters (without LayerNorm, with a last bias)."""
    layers = params["params"]
    named = [layers[f"Dense_{i}"] for i in range(len(layers))]
    return Controller(
        scale, low, high, tuple(d["kernel"] for d in named), tuple(d["bias"] for d in named)
    )


def act(xp, controller: Controller, semantics):
    """Actions `[..., A]` for semantics `[..., S]`; `xp` is `numpy` or `jax.numpy`."""
    x = semantics * controller.scale
    *hidden, last = zip(controller.kernels, controller.biases, strict=True)
    for kernel, bias in hidden:
        x = xp.maximum(x @ kernel + bias, 0.0)
    kernel, bias = last
    half = (controller.high - controller.low) / 2
    return (controller.high + controller.low) / 2 + half * xp.tanh(x @ kernel + bias)


def check(world: World, controller: Controller | None) -> None:
    """Raises `UserError` where neither a controller nor a policy of the world's own is there."""
    if controller is None and world.policy is None:
        raise UserError(
            f"{world.name} comes without a policy: set source.policy to trained or file, or score "
            "matching distances alone."
        )


def control(world: World, controller: Controller | None, xp, semantics):
    """Actions of the controller, or of the world's own policy where there is none.

    Raises:
      UserError: as `check`.
    """
    check(world, controller)
    if controller is not None:
        return act(xp, controller, semantics)
    assert world.policy is not None
    return world.policy(xp, semantics)


def save(path: str | os.PathLike[str], controller: Controller) -> pathlib.Path:
    """Writes a controller, whole or not at all.

    Raises:
      UserError: the folder is absent.
    """
    path = pathlib.Path(path)
    columns = {"scale": controller.scale, "low": controller.low, "high": controller.high}
    for i, (kernel, bias) in enumerate(zip(controller.kernels, controller.biases, strict=True)):
        columns |= {f"kernel_{i}": kernel, f"bias_{i}": bias}
    with hdf5.written_whole(path, None) as file:
        for key, array in columns.items():
            file.create_dataset(key, data=np.asarray(array), track_times=False)
    return path


def load(path: str | os.PathLike[str], world: World) -> Controller:
    """Reads a controller of a world.

    Raises:
      UserError: the file is absent or damaged, lacks a key, holds a number that is not finite, or
        does not fit the world's semantics and actions.
    """
    content, _ = hdf5.read(pathlib.Path(path), ("scale", "low", "high", "kernel_0", "bias_0"))
    layers = sum(key.startswith("kernel_") for key in content)
    inputs = world.size
    shapes: dict[str, tuple[int, ...]] = {"scale": (inputs,)}
    actions = world.task.action_size
    shapes |= {"low": (actions,), "high": (actions,)}
    for i in range(max(layers, 1)):
        kernel = content.get(f"kernel_{i}", np.zeros((inputs, actions)))
        outputs = actions if i == layers - 1 or kernel.ndim != 2 else kernel.shape[1]
        shapes |= {f"kernel_{i}": (inputs, outputs), f"bias_{i}": (outputs,)}
        inputs = outputs
    for key, shape in shapes.items():
        if key not in content:
            raise UserError(f"{path}: key {key!r} is missing: give {', '.join(shapes)}.")
        if content[key].shape != shape or not np.isfinite(content[key]).all():
            raise UserError(
                f"{path}: key {key!r} has shape {content[key].shape}, or is not finite: a policy "
                f"of {world.name} has {shape} there."
            )
    single: dict[str, Any] = {key: content[key].astype(np.float32) for key in shapes}
    pick = lambda name: tuple(single[f"{name}_{i}"] for i in range(layers))  # noqa: E731
    return Controller(single["scale"], single["low"], single["high"], pick("kernel"), pick("bias"))
