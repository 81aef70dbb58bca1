# SPDX-License-Identifier: Apache-2.0
"""Whole-run checkpoints by orbax: atomic to write, strict to read."""

import contextlib
import logging
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxsafe.core import checks, parallel

_CHECKSUMS = "_checksums"  # a leaf of ours beside those of the state


def flatten(tree: Any) -> dict[str, jax.Array]:
    """Names every leaf by its dotted path; typed keys become their raw `uint32` words."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): _raw(leaf) for path, leaf in leaves
    }


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _sharding(leaf: Any) -> Any:
    return getattr(leaf, "sharding", None)


def _raw(leaf: Any) -> Any:
    if not _is_key(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf)
    return jax.random.key_data(leaf)


def unflatten(like: Any, flat: dict[str, jax.Array]) -> Any:
    """Rebuilds a tree of the structure and placement of `like` from named leaves."""

    def put(leaf: Any, value: Any) -> jax.Array:
        if _is_key(leaf):
            # `key_impl` takes an array, not a shape.
            impl = jax.random.key_impl(jnp.empty((), leaf.dtype))
            value = jax.random.wrap_key_data(value, impl=impl)
        wanted, have = _sharding(leaf), _sharding(value)
        if wanted is None or (have and have.is_equivalent_to(wanted, value.ndim)):
            return value
        return jax.device_put(value, wanted)

    leaves, treedef = jax.tree_util.tree_flatten(like)
    values = [put(leaf, flat[name]) for leaf, name in zip(leaves, flatten(like), strict=True)]
    return jax.tree_util.tree_unflatten(treedef, values)


@contextlib.contextmanager
def _hush_late_reports() -> Iterator[None]:
    """Keeps tensorstore's threads off the terminal: after an error their event loop is gone."""
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            previous(unraisable)

    sys.unraisablehook = hook
    yield
    # Not after an error, as the reports come later.
    sys.unraisablehook = previous


@contextlib.contextmanager
def _manager(
    folder: pathlib.Path, max_to_keep: int | None = None, writes: bool = False
) -> Iterator[ocp.CheckpointManager]:
    # orbax tells every step of a save, and tells an error before it raises it; of an error in a
    # task beside the one that raised, asyncio tells at some later time.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep,
        enable_async_checkpointing=False,
        create=True,
        cleanup_tmp_directories=writes,
    )
    manager = ocp.CheckpointManager(
        folder.absolute(),
        options=options,
        # Without a handler orbax knows nothing of what another process saved.
        item_handlers=ocp.StandardCheckpointHandler(),
    )
    try:
        with _hush_late_reports():
            yield manager
    finally:
        manager.close()


def _placement(like: Any) -> dict[str, jax.sharding.Sharding]:
    """Where each leaf goes, and the checksums: left to itself, orbax wants the devices of old."""
    default: Any = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placement: dict[str, jax.sharding.Sharding] = {
        name: _sharding(leaf) or default
        for name, leaf in zip(flatten(like), jax.tree.leaves(like), strict=True)
    }
    meshes = [x.mesh for x in placement.values() if isinstance(x, jax.sharding.NamedSharding)]
    everywhere = jax.sharding.PartitionSpec()
    whole = jax.sharding.NamedSharding(meshes[0], everywhere) if meshes else default
    return placement | {_CHECKSUMS: whole}


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error).strip() or repr(error)
    return text.splitlines()[0][:200]


def _checksums(flat: dict[str, jax.Array]) -> np.ndarray:
    """One number per leaf, `[L]` uint32 in the order of names, whatever the placement.

    The sum of a leaf's words times odd weights, so that a change of any one word changes it. On
    the host: the devices of one CPU can wait for each other forever in a sum across them.
    """
    return _total([_local_checksum(jnp.asarray(flat[name])) for name in sorted(flat)])


def _total(values: Sequence[Any]) -> np.ndarray:
    """Sums `[L]` values, modulo 2^32, over processes."""
    local = np.asarray(values, np.uint32)
    if jax.process_count() == 1:
        return local
    return parallel.to_host(local[None]).sum(axis=0, dtype=np.uint32)


def _local_checksum(leaf: jax.Array) -> np.uint32:
    """This process's part of the sum: each element counts where its first copy is."""
    weights = 2 * np.arange(leaf.size, dtype=np.uint32).reshape(leaf.shape) + 1
    sums = [np.uint32(0)]
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            words = np.asarray(shard.data).ravel().view(f"u{leaf.dtype.itemsize}")
            if leaf.dtype.itemsize == 8:
                words = words ^ (words >> 32)
            terms = words.astype(np.uint32) * np.ravel(weights[shard.index])
            sums.append(np.sum(terms, dtype=np.uint32))
    return np.uint32(np.sum(sums, dtype=np.uint32))


def _check_intact(flat: dict[str, jax.Array], expected: jax.Array) -> None:
    changed = np.flatnonzero(_checksums(flat) != np.asarray(expected))
    if changed.size:
        raise ValueError(f"{sorted(flat)[changed[0]]} has changed on disk")


def save(folder: pathlib.Path, step: int, state: Any, max_to_keep: int = 2) -> None:
    """Writes the whole state under `folder/step`; a killed write leaves no step behind.

    Args:
      folder: one stage's checkpoints.
      step: the step the state has reached; an existing checkpoint of it stays as it is.
      state: any pytree of arrays, typed keys included.
      max_to_keep: older checkpoints beyond this many are deleted.

    Raises:
      UserError: the disk is full or not writable; what was saved before is intact.
    """
    try:
        with _manager(folder, max_to_keep, writes=True) as manager:
            if step not in manager.all_steps():
                # orbax refuses arrays without elements, and there is nothing in them to keep.
                flat = {name: leaf for name, leaf in flatten(state).items() if leaf.size}
                stored = flat | {_CHECKSUMS: _checksums(flat)}
                manager.save(step, args=ocp.args.StandardSave(stored))
                manager.wait_until_finished()
    except (OSError, ValueError) as error:
        # A full disk comes out of tensorstore as a ValueError that holds the system's code.
        code = re.search(r"os_error_code='?(\d+)|OS error (\d+)", str(error))
        if not isinstance(error, OSError) and not code:
            raise
        reason = os.strerror(int(code[1] or code[2])) if code else _reason(error)
        raise checks.UserError(
            f"cannot write the checkpoint of step {step} to {folder}: {reason}. "
            "Free space or make the folder writable, then --resume."
        ) from error


def steps(folder: pathlib.Path) -> list[int]:
    """Steps with a whole checkpoint, in rising order; half-written ones are not among them."""
    if not folder.exists():
        return []
    with _manager(folder) as manager:
        return sorted(manager.all_steps())


def restore(folder: pathlib.Path, step: int, like: Any) -> Any:
    """Reads the state of `step`, placed on devices as `like` is.

    Args:
      folder: one stage's checkpoints.
      step: one of `steps(folder)`.
      like: a state of the wanted structure, arrays or `ShapeDtypeStruct`s.

    Raises:
      UserError: a leaf is missing, extra, of another shape or dtype, or not finite, and the
        message names its path; or the files are damaged.
    """
    leaves = flatten(like)
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.size}
    placement = _placement(like)
    where = folder / str(step)
    with _manager(folder) as manager:
        try:
            stored = dict(manager.item_metadata(step))
            sums = stored.pop(_CHECKSUMS)
            _check_same(where, wanted, stored)
            targets = {
                name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement[name])
                for name, leaf in wanted.items()
            }
            targets[_CHECKSUMS] = jax.ShapeDtypeStruct(
                sums.shape, sums.dtype, sharding=placement[_CHECKSUMS]
            )
            flat = dict(manager.restore(step, args=ocp.args.StandardRestore(targets)))
            _check_intact(flat, flat.pop(_CHECKSUMS))
        except checks.UserError:
            raise
        except Exception as error:  # orbax raises many kinds on damaged files
            raise checks.UserError(
                f"checkpoint {where} cannot be read ({_reason(error)}): delete that folder and "
                "--resume from the one before, or start anew with --overwrite."
            ) from error
    check_finite(where, flat)
    empty = {
        name: jnp.zeros(leaf.shape, leaf.dtype, device=placement[name])
        for name, leaf in leaves.items()
        if not leaf.size
    }
    return unflatten(like, flat | empty)


def _check_same(where: pathlib.Path, wanted: dict[str, Any], stored: dict[str, Any]) -> None:
    fix = "Resume with the code and configuration that wrote it, or start anew with --overwrite."
    for name in sorted(set(wanted) | set(stored)):
        if name not in stored:
            raise checks.UserError(f"checkpoint {where} lacks {name}. {fix}")
        if name not in wanted:
            raise checks.UserError(f"checkpoint {where} has {name}, which this run lacks. {fix}")
        have = (tuple(stored[name].shape), np.dtype(stored[name].dtype))
        want = (tuple(wanted[name].shape), np.dtype(wanted[name].dtype))
        if have != want:
            raise checks.UserError(
                f"checkpoint {where} holds {name} as {have[1]}{list(have[0])}, this run needs "
                f"{want[1]}{list(want[0])}. {fix}"
            )


def check_finite(where: pathlib.Path, flat: dict[str, Any]) -> None:
    """Raises `UserError` naming the first leaf that holds NaN or infinity."""
    names = sorted(name for name in flat if jnp.issubdtype(flat[name].dtype, jnp.floating))
    shards = [jnp.asarray(flat[name]).addressable_shards for name in names]
    bad = _total([any(not np.isfinite(shard.data).all() for shard in x) for x in shards])
    if bad.any():
        raise checks.UserError(
            f"checkpoint {where} holds a value that is not finite in {names[np.argmax(bad)]}: "
            "delete that folder and --resume from the one before, or start anew with --overwrite."
        )
