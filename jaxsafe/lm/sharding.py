# SPDX-License-Identifier: Apache-2.0
"""Where parameters and batches go on a mesh of devices: data x fsdp x tensor.

    mesh = sharding.make_mesh(fsdp=8)
    config, params = hf.load(folder, sharding.shardings(shapes, mesh))
    with jax.set_mesh(mesh):
        step(params, sharding.place(batch, mesh))

A batch is spread over data and fsdp together. Parameters, gradients and the optimiser's moments are
spread over fsdp (and gathered layer by layer while computing), heads, perceptron and vocabulary
over tensor. Everything else is JAX's: `jit` puts the collectives in.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsafe.core import checks
from jaxsafe.lm import decoder
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.layers import BATCH_AXES

AXES = ("data", "fsdp", "tensor")
_COLUMNS, _ROWS = P(None, "fsdp", "tensor"), P(None, "tensor", "fsdp")
# By the end of a parameter's path: of [L, I, O] kernels, those that read the residual stream and
# those that write to it.
_RULES: dict[tuple[str, ...], P] = {
    ("embed",): P("tensor", "fsdp"),
    ("head", "kernel"): P("fsdp", "tensor"),
    **{(name, "kernel"): _COLUMNS for name in ("q", "k", "v", "gate", "up")},
    **{(name, "kernel"): _ROWS for name in ("o", "down")},
    **{(name, "bias"): P(None, "tensor") for name in ("q", "k", "v")},
    **{(name, "a"): P(None, "fsdp", None) for name in ("q", "k", "v", "gate", "up")},
    **{(name, "b"): P(None, None, "tensor") for name in ("q", "k", "v", "gate", "up")},
    **{(name, "a"): P(None, "tensor", None) for name in ("o", "down")},
    **{(name, "b"): P(None, None, "fsdp") for name in ("o", "down")},
}


def make_mesh(
    data: int = 1, fsdp: int = 0, tensor: int = 1, devices: list[Any] | None = None
) -> Mesh:
    """A mesh of `data x fsdp x tensor` devices; fsdp 0 takes all that are left.

    Raises:
      UserError: the product is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    for name, size in (("data", data), ("tensor", tensor)):
        checks.check_range(name, size, 1)
    fsdp = fsdp or len(devices) // (data * tensor)
    if data * fsdp * tensor != len(devices):
        raise checks.UserError(
            f"data={data} x fsdp={fsdp} x tensor={tensor} is not the {len(devices)} devices: "
            "give sizes whose product is."
        )
    return Mesh(np.asarray(devices).reshape(data, fsdp, tensor), AXES)


def spec(path: tuple[str, ...], shape: tuple[int, ...], mesh: Mesh) -> P:
    """How a parameter is split, by the end of its path; an axis that does not divide is left out.

    Works for the parameter tree and for whatever holds trees like it, such as AdamW's moments.
    """
    rule = _RULES.get(path[-2:], _RULES.get(path[-1:], P()))
    if len(rule) != len(shape):
        return P()
    sizes = dict(mesh.shape)
    fits = (a if a and n % sizes[a] == 0 else None for a, n in zip(rule, shape, strict=True))
    return P(*fits)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """A tree of `NamedSharding` for a tree of arrays or shapes."""

    def one(path: Any, leaf: Any) -> NamedSharding:
        names = tuple(
            str(getattr(x, "key", getattr(x, "name", getattr(x, "idx", x)))) for x in path
        )
        return NamedSharding(mesh, spec(names, tuple(leaf.shape), mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def param_shardings(config: DecoderConfig, mesh: Mesh) -> Any:
    """Those of a decoder's parameters."""
    shapes = jax.eval_shape(lambda: decoder.init(jax.random.key(0), config))
    return shardings(shapes, mesh)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of arrays `[B, ...]`: rows over data and fsdp."""
    return NamedSharding(mesh, P(BATCH_AXES))


def place(batch: Any, mesh: Mesh) -> Any:
    """Puts a tree of host arrays `[B, ...]`, the same in every process, on the mesh by rows."""
    rows = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.device_put(x, rows), batch)


def bytes_per_device(shapes: Any, where: Any) -> int:
    """Bytes that a tree of arrays or shapes takes on one device under a tree of shardings."""
    leaves = zip(jax.tree.leaves(shapes), jax.tree.leaves(where), strict=True)
    return sum(
        int(np.prod(s.shard_shape(x.shape), dtype=np.int64)) * np.dtype(x.dtype).itemsize
        for x, s in leaves
    )
