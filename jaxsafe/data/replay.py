# SPDX-License-Identifier: Apache-2.0
"""Ring buffer of transitions on the device.

The number of items written so far is the caller's, not the buffer's: under `vmap` over seeds it
then stays one scalar, and a write stays an in-place slice instead of a scatter.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.core import checks

Buffer = Any  # a pytree whose leaves are [capacity, ...]


def empty(example: Any, capacity: int) -> Buffer:
    """Returns a zero-filled buffer for items shaped like `example`, leaves `[capacity, ...]`."""
    return jax.tree.map(lambda x: jnp.zeros((capacity, *jnp.shape(x)), jnp.result_type(x)), example)


def check_capacity(name: str, capacity: int, num_items: int) -> None:
    """Raises `UserError` unless writes of `num_items` items fill `capacity` without a remainder."""
    if capacity < num_items or capacity % num_items:
        raise checks.UserError(
            f"{name}={capacity} is not a multiple of the {num_items} transitions written at once: "
            f"set it to {max(1, capacity // num_items) * num_items}."
        )


def write(buffer: Buffer, items: Any, count: jax.Array | int) -> Buffer:
    """Writes items `[N, ...]` after the `count` written so far, over the oldest ones once full.

    The capacity must be a multiple of N, and every write of the buffer's life of that same N.
    """
    capacity = jax.tree.leaves(buffer)[0].shape[0]
    start = jnp.asarray(count) % capacity

    def put(store: jax.Array, new: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(store, new.astype(store.dtype), start, axis=0)

    return jax.tree.map(put, buffer, items)


def indices(
    key: jax.Array,
    count: jax.Array | int,
    capacity: int,
    shape: tuple[int, ...],
    skip_last: bool = False,
) -> jax.Array:
    """Draws places of written items uniformly with replacement, int32 of that shape.

    Args:
      key: consumed.
      count: items written so far, at least 1.
      capacity: of the buffer.
      shape: of the result.
      skip_last: never draw the last filled slot (a slip of the M2TD3 authors' code, for parity).
    """
    # A count is an int32, so a larger capacity is never full.
    filled = jnp.minimum(jnp.asarray(count), min(capacity, jnp.iinfo(jnp.int32).max))
    return jax.random.randint(key, shape, 0, jnp.maximum(filled - int(skip_last), 1))


def take(buffer: Buffer, index: jax.Array) -> Any:
    """Reads the items at `index` `[*shape]`, leaves `[*shape, ...]`."""
    return jax.tree.map(lambda store: store[index], buffer)


def sample(key: jax.Array, buffer: Buffer, count: jax.Array | int, shape: tuple[int, ...]) -> Any:
    """Draws items uniformly with replacement, leaves `[*shape, ...]`; `key` is consumed."""
    capacity = jax.tree.leaves(buffer)[0].shape[0]
    return take(buffer, indices(key, count, capacity, shape))
