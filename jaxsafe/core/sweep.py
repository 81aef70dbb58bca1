# SPDX-License-Identifier: Apache-2.0
"""A grid of flags of one binary: its points, where they lie, and what of them is done.

A sweep's folder holds `sweep.json`, one run folder per point, named by what differs, and beside it
`NAME.log`, what that run printed. `sweep.json` is `{"schema": 1, "binary", "flags", "grid",
"points", "given"}` with versions, commit, command and date.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import shlex
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from jaxsafe.core import checks, launch
from jaxsafe.core import config as config_lib
from jaxsafe.core import flags as flags_lib
from jaxsafe.core.config import field
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.launch import Binary

SCHEMA = 1
_LONGEST = 160  # of a point's name; file systems allow 255 bytes
# Options of a run that a sweep has no use for, and those it settles for each point by itself.
_REFUSED = (
    *("overwrite", "mode", "distributed", "coordinator", "num_processes", "process_id"),
    "tensorboard",
)
_SETTLED = ("out", "resume", "dry_run", "progress")


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """The flags of a sweep beside those of its binary."""

    binary: str = field("", "Whose flags these are: a name in experiments/, or MODULE.NAME.")
    jobs: int = field(1, "Points that run at the same time on this host.", 1)
    host_index: int = field(0, "This host's number, from 0.", 0)
    num_hosts: int = field(1, "Hosts that share the points, each by a command of its own.", 1)


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of the grid.

    Attributes:
      name: of its folder, made of what differs.
      arguments: the flags that differ.
      path: its run folder.
    """

    name: str
    arguments: tuple[str, ...]
    path: pathlib.Path

    @property
    def log(self) -> pathlib.Path:
        """What its process printed."""
        return self.path.with_name(f"{self.path.name}.log")

    def state(self) -> str:
        """`finished`, `begun` or `new`."""
        try:
            summary = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
            if summary["status"] == "complete":
                return "finished"
        except (OSError, ValueError, TypeError, KeyError):
            pass
        return "begun" if (self.path / "config.json").is_file() else "new"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A resolved sweep.

    Attributes:
      module: the binary, as `python -m` takes it.
      flags: arguments that all points share.
      grid: field -> its values as text.
      given: the texts the grid was read from.
      points: in the order of the grid, the last field fastest.
      path: its folder.
    """

    module: str
    flags: tuple[str, ...]
    grid: Mapping[str, tuple[str, ...]]
    given: tuple[str, ...]
    points: tuple[Point, ...]
    path: pathlib.Path

    def share(self, host_index: int, num_hosts: int) -> tuple[Point, ...]:
        """The points of one host: every `num_hosts`-th."""
        return self.points[host_index::num_hosts]

    def command(self, point: Point) -> list[str]:
        """What runs a point, or goes on with it."""
        end = [f"--out={point.path}", "--noprogress"]
        end += ["--resume"] if point.state() == "begun" else []
        return ["-m", self.module, *self.flags, *point.arguments, *end]

    def command_text(self, point: Point) -> str:
        """The same as one line for a terminal."""
        return shlex.join(["python", *self.command(point)])

    def record(self) -> dict[str, Any]:
        """What must be the same when the sweep goes on."""
        return {
            "schema": SCHEMA,
            "binary": self.module,
            "flags": list(self.flags),
            "grid": {name: list(values) for name, values in self.grid.items()},
            "points": [point.name for point in self.points],
        }


def _resolved(binary: Binary, values: flags.FlagValues) -> tuple[RunOptions, Any]:
    """Options and config of parsed flags: default < preset < flag."""
    options = flags_lib.run_options(values)
    config = config_lib.get_preset(binary.presets, options.preset)
    return options, flags_lib.overlay(config, "", values)


def parse_grid(binary: Binary, given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Reads `FIELD=VALUE,VALUE` texts; values of a field that holds several end in `;`.

    Raises:
      UserError: a text of another form, a field unknown, given twice or of no use in a grid, or a
        value that is wrong or repeated.
    """
    values = launch.define_flags(binary, flags.FlagValues())
    known, grid = {name: values[name] for name in values}, {}
    for text in given:
        name, equals, listed = text.partition("=")
        name = name.removeprefix("--")
        if not equals or not listed:
            raise checks.UserError(f"--grid={text} is no list: write --grid=FIELD=VALUE,VALUE.")
        flag = known.get(name)
        if not isinstance(flag, flags_lib.FieldFlag):
            hint = checks.did_you_mean(name, known)
            raise checks.UserError(f"--grid={text}: no flag is called {name!r}.{hint}")
        if name in (*_REFUSED, *_SETTLED):
            raise checks.UserError(f"--grid={text}: {name} cannot differ between points: drop it.")
        if name in grid:
            raise checks.UserError(f"--grid={text}: {name} has a --grid already: give one list.")
        leaf = flag.leaf
        parts = listed.split(";" if leaf.kind.many else ",")
        read = [config_lib.from_text(f"--grid={name}", p, leaf.kind, leaf.meta) for p in parts]
        for value in read:
            config_lib.check_value(f"--grid={name}", value, leaf.kind, leaf.meta)
        grid[name] = tuple(map(config_lib.to_text, read))
        checks.check_once(f"--grid={name}", grid[name])
    if not grid:
        raise checks.UserError("--grid is missing: give --grid=FIELD=VALUE,VALUE once or more.")
    return grid


def make(
    binary: Binary, module: str, values: flags.FlagValues, given: Sequence[str], out: pathlib.Path
) -> Sweep:
    """Resolves a sweep, and every point of it, before anything runs.

    Args:
      binary: whose runs they are.
      module: its name for `python -m`.
      values: its parsed flags, those that all points share.
      given: the texts of `--grid`.
      out: the sweep's folder.

    Raises:
      UserError: as `parse_grid`; a flag that does not fit a sweep or is in the grid as well; a
        point whose config is refused.
    """
    for name in _REFUSED:
        if values[name].present and values[name].value:
            raise checks.UserError(f"--{name} does not fit a sweep: drop it.")
    grid = parse_grid(binary, given)
    for name in grid:
        if values[name].present:
            raise checks.UserError(f"--{name} is in --grid as well: drop one of them.")
    options, config = _resolved(binary, values)
    plain = {name: getattr(binary.options, name) for name in _SETTLED}
    preset = config_lib.get_preset(binary.presets, options.preset)
    shared = flags_lib.flag_args(dataclasses.replace(options, **plain), "", binary.options)
    shared += flags_lib.flag_args(config, "", preset)
    points = []
    for chosen in itertools.product(*grid.values()):
        arguments = tuple(f"--{n}={v}" for n, v in zip(grid, chosen, strict=True))
        name = point_name(dict(zip(grid, chosen, strict=True)))
        mine = launch.define_flags(binary, flags.FlagValues())
        flags_lib.parse_command_line([module, *shared, *arguments], mine)
        try:
            binary.validate(_resolved(binary, mine)[1])
        except checks.UserError as error:
            raise checks.UserError(f"point {name}: {error}") from error
        points.append(Point(name, arguments, out / name))
    return Sweep(module, tuple(shared), grid, tuple(given), tuple(points), out)


def point_name(values: Mapping[str, str]) -> str:
    """A folder's name for a point, such as `gamma=0.98,tau=0.005`.

    Fields go by their last part where no other field of the grid ends so. What file systems do not
    take is written as %XX; a long name ends in a hash.
    """
    ends = [name.rpartition(".")[2] for name in values]
    names = [end if ends.count(end) == 1 else name for name, end in zip(values, ends, strict=True)]
    pairs = zip(names, values.values(), strict=True)
    whole = ",".join(f"{name}={value}" for name, value in pairs)
    told = urllib.parse.quote(whole, safe="=,+@ ")
    if len(told) <= _LONGEST:
        return told
    return f"{told[:_LONGEST]}~{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
