# SPDX-License-Identifier: Apache-2.0
"""A binary that is imported once and started again and again, some times into trouble.

python -m tests.experiments.nursery MODULE

Reads lines of JSON, `{"arguments": [...], "log": path, "trouble": {...}}`, and answers each with
the process id of a start and, once that has ended, with its exit code. Where a start is to have
trouble, that is arranged in its process alone.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from jaxsafe.core import launch, program


def poison(stage: str, step: int, seed: int) -> None:
    """Makes the parameters of one seed NaN, ahead of the steps whose row is that of `step`."""
    plain = program.build

    def build(own: program.Stage, *rest: Any) -> program.Program:
        made = plain(own, *rest)
        compiled = made.chunk

        def chunk(length: int) -> Any:
            healthy = compiled(length)

            def call(state: Any, first: jax.Array) -> Any:
                if own.name == stage and int(first) + length == step:
                    chosen = {id(x) for x in jax.tree.leaves(own.parameters(state))}
                    state = jax.tree.map(lambda x: spoilt(x) if id(x) in chosen else x, state)
                return healthy(state, first)

            return call

        made.chunk = chunk  # type: ignore[method-assign]
        return made

    def spoilt(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jax.device_put(leaf.at[seed].set(jnp.nan), leaf.sharding)

    program.build = build


def limit(file_bytes: int) -> None:
    """Lets no file grow beyond a size: what a full disk does, to any user."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))


def humble(_: bool) -> None:
    """Gives up what lets root write where nobody may; without effect on others (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, of 64 capabilities
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for i in (0, 1):
        sets[i] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


TROUBLE = {"poison": lambda how: poison(*how), "limit": limit, "humble": humble}


def start(module: Any, arguments: list[str], log: str, trouble: dict[str, Any]) -> None:
    """Runs the binary in this process, to its exit."""
    for stream, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
    if trouble:
        # The cache of programs has trouble too, and says so.
        warnings.filterwarnings("ignore", "Error (writing|reading) persistent compilation cache")
    for name, how in trouble.items():
        TROUBLE[name](how)
    sys.argv = [module.__name__.replace(".", "/") + ".py", *arguments]
    launch.main(module.BINARY)


def main(name: str) -> None:
    """Serves until its input ends."""
    module = importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            start(module, asked["arguments"], asked["log"], asked["trouble"])
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
