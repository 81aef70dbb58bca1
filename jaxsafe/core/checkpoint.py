# SPDX-License-Identifier: Apache-2.0
"""Whole-run checkpoints by orbax: atomic to write, strict to read."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxsafe.core import checks


def flatten(tree: Any) -> dict[str, jax.Array]:
    """Names every leaf by its dotted path; typed keys become their raw `uint32` words."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): _raw(leaf) for path, leaf in leaves
    }


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: Any) -> Any:
    if not _is_key(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf)
    return jax.random.key_data(leaf)


def unflatten(like: Any, flat: dict[str, jax.Array]) -> Any:
    """Rebuilds a tree of the structure and placement of `like` from named leaves."""

    def put(name_leaf, stored):
        value = stored
        if _is_key(name_leaf):
            value = jax.random.wrap_key_data(value, impl=jax.random.key_impl(name_leaf))
        sharding = getattr(name_leaf, "sharding", None)
        return value if sharding is None else jax.device_put(value, sharding)

    leaves, treedef = jax.tree_util.tree_flatten(like)
    values = [put(leaf, flat[name]) for leaf, name in zip(leaves, flatten(like), strict=True)]
    return jax.tree_util.tree_unflatten(treedef, values)


@contextlib.contextmanager
def _manager(folder: pathlib.Path, max_to_keep: int | None) -> Iterator[ocp.CheckpointManager]:
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells every step of a save
    options = ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep, enable_async_checkpointing=False, create=True
    )
    manager = ocp.CheckpointManager(folder.absolute(), options=options)
    try:
        yield manager
    finally:
        manager.close()


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
        with _manager(folder, max_to_keep) as manager:
            if step not in manager.all_steps():
                manager.save(step, args=ocp.args.StandardSave(flatten(state)))
                manager.wait_until_finished()
    except OSError as error:
        raise checks.UserError(
            f"cannot write the checkpoint of step {step} to {folder}: {error.strerror or error}. "
            "Free space or make the folder writable, then --resume."
        ) from error


def steps(folder: pathlib.Path) -> list[int]:
    """Steps with a whole checkpoint, in rising order; half-written ones are not among them."""
    if not folder.exists():
        return []
    with _manager(folder, None) as manager:
        return sorted(manager.all_steps())


def restore(folder: pathlib.Path, step: int, like: Any) -> Any:
    """Reads the state of `step`, placed on devices as `like` is.

    Args:
      folder: one stage's checkpoints.
      step: one of `steps(folder)`.
      like: a state of the wanted structure, arrays or `ShapeDtypeStruct`s.

    Raises:
      UserError: a leaf is missing, extra, of another shape or dtype, or not finite; the message
        names its path.
    """
    wanted = flatten(like)
    where = folder / str(step)
    with _manager(folder, None) as manager:
        try:
            stored = dict(manager.item_metadata(step))
            _check_same(where, wanted, stored)
            targets = {
                name: jax.ShapeDtypeStruct(meta.shape, meta.dtype) for name, meta in stored.items()
            }
            flat = manager.restore(step, args=ocp.args.StandardRestore(targets))
        except checks.UserError:
            raise
        except Exception as error:  # orbax raises many kinds on damaged files
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise checks.UserError(
                f"checkpoint {where} cannot be read ({reason}): delete that folder and --resume "
                "from the one before, or start anew with --overwrite."
            ) from error
    check_finite(where, flat)
    return unflatten(like, flat)


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
    for name, value in sorted(flat.items()):
        if jnp.issubdtype(value.dtype, jnp.floating) and not bool(jnp.all(jnp.isfinite(value))):
            raise checks.UserError(
                f"checkpoint {where} holds a value that is not finite in {name}: delete that "
                "folder and --resume from the one before, or start anew with --overwrite."
            )
