# SPDX-License-Identifier: Apache-2.0
"""One absl flag per config field, the flags every binary has, and one-line command line errors."""

import dataclasses
import difflib
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from absl import app, flags

from jaxsafe.core import config as config_lib
from jaxsafe.core import interrupt
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field

C = TypeVar("C")
_HELP = {"--help", "-help", "--h", "-h", "-?", "--helpshort", "-helpshort"}
_WIDTH, _COLUMN = 98, 34
_OTHER = """other
  --flagfile=FILE                 Read flags from a file, one per line; a later flag wins.
  --only_check_args               Check every flag and exit.
  --helpfull                      List the flags of all libraries too."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The flags of every binary. A "step" is one iteration of the system's training loop."""

    preset: str = field("demo", "Named config to start from; other flags change it.")
    seed: int = field(0, "Seed of the first run; the others count up from it.", 0, 4_000_000_000)
    num_seeds: int = field(1, "How many seeds to train together.", 1)
    out: str | None = field(None, "Run folder; none: runs/SYSTEM-PRESET.")
    resume: bool = field(False, "Continue the run in --out from its last checkpoint.")
    overwrite: bool = field(False, "Delete what is in --out first.")
    mode: str = field("train", "What to do with the run.", choices=("train", "eval", "render"))
    dry_run: bool = field(False, "Print config, sizes and compile time, and exit.")
    checkpoint_every: int = field(0, "Steps between checkpoints; 0: only at the end.", 0)
    log_every: int = field(100, "Steps between rows in metrics.jsonl.", 1)
    progress: bool = field(True, "Show a progress bar.")
    check_nans: str = field(
        "stop",
        "On a NaN: ignore it, stop at the next row, or find the operation (slow).",
        choices=("off", "stop", "debug"),
    )
    distributed: bool = field(False, "Join the other hosts by jax.distributed.")
    coordinator: str | None = field(None, "HOST:PORT of process 0; none: ask the cluster.")
    num_processes: int | None = field(None, "Processes of a --distributed run.", 1)
    process_id: int | None = field(None, "This process's number, from 0.", 0)
    devices: int = field(0, "Devices to spread seeds over; 0: automatic.", 0)
    in_turn: bool = field(False, "Seeds of one device in turn: faster for wide networks on CPU.")
    tensorboard: bool = field(False, "Write TensorBoard events too.")


class FieldFlag(flags.Flag):
    """The flag of one config field. Its value stays `None` unless the user gives it."""

    def __init__(self, leaf: config_lib.Leaf):
        self.leaf = leaf._replace(meta=dict(leaf.meta))
        kind = leaf.kind
        super().__init__(
            parser=flags.ArgumentParser(),
            serializer=_Serializer(),
            name=leaf.path,
            default=None,
            help_string=_sentence(self.leaf),
            boolean=kind.base is bool and not (kind.optional or kind.many),
        )

    def _parse(self, argument: Any) -> Any:
        name, kind, meta = f"--{self.name}", self.leaf.kind, self.leaf.meta
        try:
            value = argument
            if isinstance(argument, str):
                value = config_lib.from_text(name, argument, kind, meta)
            config_lib.check_value(name, value, kind, meta)
        except UserError as error:
            raise flags.IllegalFlagValueError(str(error)) from None
        return value


class _Serializer(flags.ArgumentSerializer):
    def serialize(self, value: Any) -> str:
        return config_lib.to_text(value)


def define_config_flags(
    cls_or_defaults: Any,
    prefix: str,
    flag_values: flags.FlagValues = flags.FLAGS,
    choices: Mapping[str, Iterable[str]] | None = None,
) -> None:
    """Defines `--prefix.field` for every field, nested dataclasses with deeper dots.

    Args:
      cls_or_defaults: a config, or a config class whose fields all have defaults; its values are
        the defaults that `--help` shows.
      prefix: what stands before the first dot, or "" for none.
      flag_values: where the flags go.
      choices: dotted field -> the values it accepts, for choices known only to the binary.

    Raises:
      flags.DuplicateFlagError: a flag of that name exists.
      TypeError: a field has an annotation that no flag can hold.
    """
    defaults = cls_or_defaults() if isinstance(cls_or_defaults, type) else cls_or_defaults
    for leaf in config_lib.leaves(defaults, prefix):
        meta = dict(leaf.meta)
        if choices and leaf.path in choices:
            meta["choices"] = tuple(choices[leaf.path])
        flags.DEFINE_flag(FieldFlag(leaf._replace(meta=meta)), flag_values, module_name=__name__)


def overlay(config: C, prefix: str, flag_values: flags.FlagValues = flags.FLAGS) -> C:
    """Returns `config` with the fields whose flag the user gave; all others stay as they are.

    Applied to the resumed config, or else to the preset, this makes the order of precedence
    default < preset < resumed config < flag.
    """
    changes: dict[str, Any] = {}
    for name in config_lib.kinds(type(config)):
        path, value = config_lib.dotted(prefix, name), getattr(config, name)
        if dataclasses.is_dataclass(value):
            changes[name] = overlay(value, path, flag_values)
        elif flag_values[path].present:
            changes[name] = flag_values[path].value
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def flag_args(config: Any, prefix: str, base: Any = None) -> list[str]:
    """Returns the arguments that turn `base` into `config`, or all of them where there is no base.

    `overlay` of these arguments over anything of the same class gives `config` again.
    """
    changed = None if base is None else config_lib.diff(config, base)
    return [
        f"--{config_lib.dotted(prefix, leaf.path)}={config_lib.to_text(leaf.value)}"
        for leaf in config_lib.leaves(config)
        if changed is None or leaf.path in changed
    ]


def define_run_flags(
    flag_values: flags.FlagValues,
    presets: Iterable[str],
    default_preset: str = "demo",
    defaults: RunOptions | None = None,
) -> None:
    """Defines a flag for each field of `RunOptions`; `--preset` accepts the names in `presets`."""
    options = dataclasses.replace(defaults or RunOptions(), preset=default_preset)
    define_config_flags(options, "", flag_values, choices={"preset": tuple(presets)})


def run_options(flag_values: flags.FlagValues = flags.FLAGS) -> RunOptions:
    """Returns the parsed run flags; raises `UserError` where two of them exclude each other."""
    defaults = {name: _leaf(flag_values, name).value for name in config_lib.kinds(RunOptions)}
    options = overlay(RunOptions(**defaults), "", flag_values)
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite exclude each other: give one of them.")
    return options


def _leaf(flag_values: flags.FlagValues, name: str) -> config_lib.Leaf:
    flag = flag_values[name]
    if not isinstance(flag, FieldFlag):
        raise TypeError(f"--{name} was not defined by define_run_flags.")
    return flag.leaf


def _sentence(leaf: config_lib.Leaf) -> str:
    accepted = config_lib.describe(leaf.kind, leaf.meta, "comma-separated:")
    default = f"default {config_lib.to_text(leaf.value) or 'empty'}"
    # A flag shown as --[no]name says by its form what it accepts.
    facts = default if leaf.kind == config_lib.Kind(bool) else f"{accepted}; {default}"
    return f"{leaf.meta.get('help', '')} [{facts}]".strip()


def help_text(flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """Returns the page that `--help` prints: usage, then each field in its dotted group."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    command = f"-m {spec.name.removesuffix('.__main__')}" if spec else sys.argv[0]
    lines = [f"usage: python {command} [--flag=value ...]", ""]
    if main.__doc__:
        lines += [main.__doc__.strip(), ""]
    groups: dict[str, list[flags.Flag]] = {}
    own = flag_values.get_key_flags_for_module(sys.argv[0])
    fields = [flag_values[n] for n in flag_values if isinstance(flag_values[n], FieldFlag)]
    for flag in [*fields, *(f for f in own if not isinstance(f, FieldFlag))]:
        groups.setdefault(flag.name.rpartition(".")[0] or "run", []).append(flag)
    for group, members in groups.items():
        lines += [group, *(_entry(flag) for flag in members), ""]
    return "\n".join([*lines, _OTHER])


def _entry(flag: flags.Flag) -> str:
    name = f"  --{'[no]' if flag.boolean else ''}{flag.name}"
    # A name that reaches the help column gets a line of its own.
    head = [] if len(name) < _COLUMN - 1 else [name]
    first = " " * _COLUMN if head else name.ljust(_COLUMN)
    indent = " " * _COLUMN
    body = textwrap.fill(flag.help, _WIDTH, initial_indent=first, subsequent_indent=indent)
    return "\n".join([*head, body])


def _print(text: str) -> None:
    """Prints to a reader that may have seen enough, such as head."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is left would be written, and fail, once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit(message: str) -> NoReturn:
    interrupt.hush()
    print(" ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def _unknown(name: str, names: Sequence[str]) -> str:
    wanted = name.replace("-", "_")
    leaf = wanted.rpartition(".")[2]
    near = [n for n in names if n.rpartition(".")[2] == leaf][:3]
    near = near or difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    hint = " or ".join(f"--{n}" for n in near)
    return f"Unknown flag --{name}." + (f" Did you mean {hint}?" if hint else " See --help.")


def parse_command_line(
    argv: Sequence[str],
    flag_values: flags.FlagValues = flags.FLAGS,
    check: Callable[[flags.FlagValues], Any] | None = None,
) -> list[str]:
    """Parses flags, then calls `check`. Bad input is one line on stderr and exit code 2.

    Args:
      argv: the program's name and its arguments; `--help` or `-h` prints `help_text`, exit code 0.
      flag_values: the flags, defined before.
      check: builds and validates what the flags mean; may raise `UserError`.

    Returns:
      The program's name in a list, as no argument but flags is accepted.
    """
    before = list(argv)[: list(argv).index("--")] if "--" in argv else list(argv)
    if _HELP & set(before[1:]):
        _print(help_text(flag_values))
        sys.exit(0)
    # Otherwise absl skips a --flagfile that follows a value written after a space.
    flag_values.set_gnu_getopt(True)
    try:
        rest = flag_values(list(argv))
    except flags.UnrecognizedFlagError as error:
        _exit(_unknown(error.flagname, list(flag_values)))
    except (flags.Error, ValueError) as error:
        _exit(str(error).removeprefix("ERROR:: "))
    if rest[1:]:
        _exit(f"Unexpected argument {rest[1]!r}: write --name=value, and --name or --noname.")
    try:
        if check is not None:
            check(flag_values)
    except UserError as error:
        _exit(f"error: {error}")
    return rest


def parse_and_run(
    main: Callable[[list[str]], Any],
    flag_values: flags.FlagValues = flags.FLAGS,
    argv: Sequence[str] | None = None,
    check: Callable[[flags.FlagValues], Any] | None = None,
) -> NoReturn:
    """Runs a binary by `absl.app.run` and exits; `--only_check_args` stops before `main`.

    Exit codes: 0, or the int that `main` returns; 2 with one line on stderr for bad flags and for
    a `UserError` from `check` or `main`; 130 for an interrupt. Other errors keep their traceback.
    """

    def parse(args: list[str]) -> list[str]:
        rest = parse_command_line(args, flag_values, check)
        flags.FLAGS.mark_as_parsed()  # app.run insists on it, also where the flags are others
        return rest

    def guarded(args: list[str]) -> int:
        try:
            result = main(args)
        except UserError as error:
            _exit(f"error: {error}")
        return result if isinstance(result, int) else 0

    try:
        with interrupt.deliver_again():
            app.run(guarded, argv=list(argv) if argv is not None else None, flags_parser=parse)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    raise AssertionError("app.run returned")
