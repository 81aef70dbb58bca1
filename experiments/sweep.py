# SPDX-License-Identifier: Apache-2.0
"""Runs a binary on every point of a grid of its flags, each in a run folder of its own.

All flags of the binary are accepted (with --binary=NAME, --help lists them) and hold for every
point; --out is the folder of the sweep, --dry_run prints the commands. What a point prints is in
POINT.log. With --resume finished points are passed over and begun ones go on; --out and --resume
are then enough. Several hosts: the same command on each, with --num_hosts and --host_index.
"""

import importlib
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from jaxsafe.core import checks, launch, sweep, sweep_folder, sweep_jobs
from jaxsafe.core import flags as flags_lib
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.launch import Binary
from jaxsafe.core.sweep import Sweep, SweepOptions

_GRID = "FIELD=VALUE,VALUE: values to try; given again for another field. Values of a field that "
_GRID += "holds several are separated by semicolons."


def _names() -> list[str]:
    """The binaries of this folder, without importing them."""
    files = pathlib.Path(__file__).parent.glob("*.py")
    return sorted(p.stem for p in files if "\nBINARY = " in p.read_text(encoding="utf-8"))


def _load(name: str) -> tuple[str, Binary]:
    """The module's name and its `BINARY`; a name without a dot is one of this folder."""
    if not name:
        raise checks.UserError(f"--binary is missing: name one of {', '.join(_names())}.")
    if "." not in name:
        checks.check_choice("--binary", name, _names())
    module = name if "." in name else f"experiments.{name}"
    try:
        return module, importlib.import_module(module).BINARY
    except (ImportError, AttributeError) as error:
        raise checks.UserError(f"--binary={name} is no module with a BINARY: {error}.") from error


def _define(values: flags.FlagValues) -> None:
    flags_lib.define_config_flags(SweepOptions, "", values)
    flags.DEFINE_multi_string("grid", [], _GRID, flag_values=values)
    values["grid"].help = _GRID  # without what absl adds


def _first_look(argv: Sequence[str]) -> tuple[SweepOptions, RunOptions]:
    """What can be read before it is known whose flags the others are."""
    values = flags.FlagValues()
    _define(values)
    flags_lib.define_config_flags(RunOptions, "", values)
    values.set_gnu_getopt(True)
    try:
        values(list(argv), known_only=True)
    except (flags.Error, ValueError) as error:
        raise checks.UserError(" ".join(str(error).removeprefix("ERROR:: ").split())) from None
    options = flags_lib.overlay(RunOptions(), "", values)
    return flags_lib.overlay(SweepOptions(), "", values), options


def _recorded(argv: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """The binary's name, and the flags and grid of the sweep that the command goes on with."""
    ours, options = _first_look(argv)
    if not (options.resume and options.out and (pathlib.Path(options.out) / "sweep.json").exists()):
        return ours.binary, [], []
    record = sweep_folder.read_record(pathlib.Path(options.out))
    return ours.binary or record["binary"], record["flags"], record["given"]


def _resolve(values: flags.FlagValues, module: str, binary: Binary, given: Sequence[str]) -> Sweep:
    ours = flags_lib.overlay(SweepOptions(), "", values)
    if ours.host_index >= ours.num_hosts:
        raise checks.UserError(
            f"--host_index={ours.host_index} is out of range: give one below "
            f"--num_hosts={ours.num_hosts}."
        )
    if not values["out"].value:
        raise checks.UserError("--out is missing: name the folder of the sweep.")
    out = pathlib.Path(values["out"].value)
    return sweep.make(binary, module, values, values["grid"].value or given, out)


def _run(values: flags.FlagValues, found: Sweep) -> int:
    """Prints the commands, or runs the points of this host and tells their results."""
    ours = flags_lib.overlay(SweepOptions(), "", values)
    mine = found.share(ours.host_index, ours.num_hosts)
    dry_run = bool(values["dry_run"].value)
    sweep_folder.open_folder(found, mine, bool(values["resume"].value), dry_run)
    if dry_run:
        for point in mine:
            done = "# finished: " if point.state() == "finished" else ""
            print(f"{done}{found.command_text(point)}")
        return 0
    print(f"{len(mine)} of {len(found.points)} points on this host, {ours.jobs} at a time")
    code = sweep_jobs.run_points(found, mine, ours.jobs)
    print(f"\n{sweep_jobs.table(mine)}")
    print(f"\npython -m experiments.report --runs={found.path} makes a page of all")
    return code


def main(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> None:
    """Reads the command line, the binary's flags among it, and runs the sweep; exits."""
    help_only = any(a.lstrip("-") in ("help", "h", "helpshort", "helpfull") for a in argv[1:])
    _define(values)
    resolved: list[Sweep] = []
    check, recorded = None, []
    try:
        name, recorded, given = _recorded(argv)
        if name or not help_only:
            module, binary = _load(name)
            launch.define_flags(binary, values)

            def check(parsed: flags.FlagValues) -> None:
                resolved[:] = [_resolve(parsed, module, binary, given)]

    except checks.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    argv = [argv[0], *recorded, *argv[1:]]
    flags_lib.parse_and_run(lambda _: _run(values, resolved[0]), values, argv, check)


if __name__ == "__main__":
    main(sys.argv)
