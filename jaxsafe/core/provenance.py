# SPDX-License-Identifier: Apache-2.0
"""What produced a result: versions, device, commit, command and day."""

import dataclasses
import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax

from jaxsafe.core import flags as flags_lib

_PACKAGES = (
    *("jaxsafe", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "mujoco", "numpy"),
    *("transformers", "tokenizers"),
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device_text() -> str:
    """Kind and number of the devices of this run."""
    device = jax.devices()[0]
    kind = platform.machine() if device.platform == "cpu" else device.device_kind
    return f"{jax.device_count()} x {device.platform} ({kind}), {os.cpu_count()} host cores"


def git_commit() -> str | None:
    """Commit of the source tree this package runs from, `+` appended where it has changes."""
    where = pathlib.Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(where), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", pathlib.Path(__file__).name):
            return None
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "-s") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def command_line(arguments: Sequence[str] | None = None) -> str:
    """This program's command with `arguments`, or with those it was given."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.name] if spec else [sys.argv[0]]
    return shlex.join(["python", *program, *(sys.argv[1:] if arguments is None else arguments)])


def reproducing_command(
    options: flags_lib.RunOptions, config: Any, preset: Any, defaults: flags_lib.RunOptions
) -> str:
    """The command that does a run again from its start, also where this one only went on.

    Args:
      options: the run's, with the number of devices settled.
      config: the run's.
      preset: the config that `options.preset` names.
      defaults: the binary's run flags where nothing is given.
    """
    initial = {name: getattr(defaults, name) for name in ("resume", "overwrite", "mode", "dry_run")}
    options = dataclasses.replace(options, **initial)
    own = flags_lib.flag_args(options, "", defaults)
    return command_line([*own, *flags_lib.flag_args(config, "", preset)])


def provenance(command: str | None = None) -> dict[str, Any]:
    """What produced a result: versions, device, commit, command and day."""
    return {
        "versions": versions(),
        "device": device_text(),
        "git": git_commit(),
        "command": command or command_line(),
        "date": datetime.date.today().isoformat(),
    }
