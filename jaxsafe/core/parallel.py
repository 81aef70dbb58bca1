# SPDX-License-Identifier: Apache-2.0
"""Seeds by vmap, devices by shard_map, hosts by jax.distributed."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsafe.core import checks

SEED_AXIS = "seed"
DATA_AXIS = "data"


def split_host_cpu(num_devices: int) -> None:
    """Makes the CPU backend offer `num_devices` devices; call before JAX first touches a device.

    XLA runs one small program on about one core, so a run with several seeds is faster with one
    device per core. Without effect on accelerators, and where the backend is already up.
    """
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if num_devices > 1 and not forced:
        with contextlib.suppress(RuntimeError):  # the backend is up
            jax.config.update("jax_num_cpu_devices", num_devices)


def available_cores() -> int:
    """Cores this process may run on."""
    # macOS has no affinity.
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return len(affinity(0))


def initialize_distributed(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of this run through `jax.distributed.initialize`.

    Without arguments JAX reads them from the cluster's environment (Slurm, Open MPI, clouds).

    Raises:
      UserError: the cluster was not detected, or only some of the arguments were given.
    """
    given = [x is not None for x in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise checks.UserError(
            "--distributed needs --coordinator, --num_processes and --process_id together, "
            f"got {coordinator!r}, {num_processes!r}, {process_id!r}."
        )
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except ValueError as error:
        raise checks.UserError(
            f"--distributed: no cluster detected ({error}). "
            "Give --coordinator=HOST:PORT --num_processes=N --process_id=I."
        ) from error


def choose_num_devices(num_seeds: int, requested: int = 0) -> int:
    """Number of devices to spread seeds over, all processes together.

    Args:
      num_seeds: seeds of the run.
      requested: 0 takes the largest divisor of `num_seeds` that is available.

    Raises:
      UserError: more devices requested than there are, or not a divisor of `num_seeds`.
    """
    have = jax.device_count()
    divisors = _divisors(num_seeds, have)
    if jax.process_count() > 1:
        # Every process must hold a part of every array, so all devices take part.
        if num_seeds % have:
            raise checks.UserError(
                f"--num_seeds={num_seeds} does not divide over the {have} devices of "
                f"{jax.process_count()} processes: set it to {-(-num_seeds // have) * have}."
            )
        if requested not in (0, have):
            raise checks.UserError(
                f"--devices={requested} is not the {have} devices of {jax.process_count()} "
                f"processes: set it to {have}, or 0."
            )
        return have
    if requested == 0:
        return divisors[-1]
    if requested not in divisors:
        raise checks.UserError(
            f"--devices={requested} does not fit --num_seeds={num_seeds} on {have} devices: "
            f"choose one of {divisors}, or 0."
        )
    return requested


def _divisors(num_seeds: int, most: int) -> list[int]:
    """Numbers of devices, up to `most`, that the seeds divide over, in ascending order."""
    return [n for n in range(1, min(most, num_seeds) + 1) if num_seeds % n == 0]


def seed_mesh(num_devices: int) -> Mesh:
    """Mesh of the first `num_devices` devices along the seed axis."""
    return Mesh(np.asarray(jax.devices()[:num_devices]), (SEED_AXIS,))


def own_mesh(num_seeds: int) -> Mesh:
    """Mesh of as many of this process's own devices as divide the seeds, for what it does alone."""
    own = jax.local_devices()
    return Mesh(np.asarray(own[: _divisors(num_seeds, len(own))[-1]]), (SEED_AXIS,))


def seed_keys(seed: int, num_seeds: int) -> jax.Array:
    """Typed keys `[num_seeds]`; key i is that of a lone run with seed `seed + i`."""
    return jax.vmap(jax.random.key)(jnp.arange(seed, seed + num_seeds, dtype=jnp.uint32))


def seed_sharding(mesh: Mesh) -> NamedSharding:
    """Placement of leaves `[num_seeds, ...]` with equal parts of the seeds on each device."""
    return NamedSharding(mesh, PartitionSpec(SEED_AXIS))


def map_seeds(
    function: Callable, mesh: Mesh, num_shared: int = 0, in_turn: bool = False
) -> Callable:
    """Maps a one-seed function over seeds: shard_map over devices, vmap or a loop within each.

    Args:
      function: `(per-seed tree, *shared) -> tree`, pure.
      mesh: from `seed_mesh`; its size must divide the number of seeds.
      num_shared: how many trailing arguments are the same for every seed.
      in_turn: a device takes its seeds one after the other. On a CPU that is faster where matrix
        products are wide enough to fill a core, as XLA batches them poorly there.
    """
    seeds, shared = PartitionSpec(SEED_AXIS), PartitionSpec()

    def mapped(tree: Any, *rest: Any) -> Any:
        if jax.tree.leaves(tree)[0].shape[0] > 1:
            if in_turn:
                return jax.lax.map(lambda one: function(one, *rest), tree)
            return jax.vmap(function, in_axes=(0,) + (None,) * num_shared)(tree, *rest)
        # A batch of one makes matrix products slower than no batch.
        result = function(jax.tree.map(lambda x: x[0], tree), *rest)
        return jax.tree.map(lambda x: x[None], result)

    return jax.shard_map(
        mapped,
        mesh=mesh,
        in_specs=(seeds,) + (shared,) * num_shared,
        out_specs=seeds,
        check_vma=False,
    )


def to_host(tree: Any) -> Any:
    """Copies arrays to the host as numpy, gathered from every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def largest(value: int) -> int:
    """The largest of the processes' values; every process must ask, and waits for the others."""
    if jax.process_count() == 1:
        return value
    return int(np.max(to_host(np.asarray([value]))))


def is_main_process() -> bool:
    """Whether this process writes the run folder's text files."""
    return jax.process_index() == 0


def on_main(work: Callable[[], Any], told: str = "process 0 failed: see there.") -> None:
    """Does `work` in process 0; the others wait for its end, and fail where it fails.

    Raises:
      UserError: `told`, in the other processes, so that none waits for one that is gone.
    """
    failure: BaseException | None = None
    if is_main_process():
        try:
            work()
        except BaseException as error:
            failure = error
    failed = largest(int(failure is not None))
    if failure is not None:
        raise failure
    if failed:
        raise checks.UserError(told)
