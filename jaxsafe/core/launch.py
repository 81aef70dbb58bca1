# SPDX-License-Identifier: Apache-2.0
"""From a command line to a finished run: what every experiment binary has in common."""

import dataclasses
import json
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import flags

from jaxsafe.core import checks, disk, loop, metrics, parallel, program, provenance, run, tables
from jaxsafe.core import config as config_lib
from jaxsafe.core import flags as flags_lib
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.run import Folder

Results = Mapping[str, Any]  # stage name -> what that stage's `result` gave, on the host


@dataclasses.dataclass(frozen=True)
class Binary:
    """What one system's binary adds to the common flow.

    Attributes:
      system: its name, recorded in run folders.
      presets: named configs of one dataclass, all fields documented; holds `demo` and `paper`.
      validate: raises `UserError` for fields that do not fit together.
      stages: `config -> stages`, trained in order.
      finish: `(folder, options, config, results) -> rows`; scores, prints and plots; `eval.jsonl`
        of an earlier scoring is gone by then. Its rows go into `summary.json`.
      render: `(folder, options, config, results) -> None`, for `--mode=render`.
      free: dotted config fields that may change on `--resume` and `--mode=eval`.
      options: defaults of the run flags.
    """

    system: str
    presets: Mapping[str, Any]
    validate: Callable[[Any], None]
    stages: Callable[[Any], Sequence[program.Stage]]
    finish: Callable[[Folder, RunOptions, Any, Results], list[dict[str, Any]]]
    render: Callable[[Folder, RunOptions, Any, Results], None]
    free: Sequence[str] = ()
    options: RunOptions = dataclasses.field(default_factory=RunOptions)


def define_flags(binary: Binary, values: flags.FlagValues) -> flags.FlagValues:
    """Defines the flags of a binary in `values`, and returns them."""
    flags_lib.define_run_flags(values, binary.presets, defaults=binary.options)
    flags_lib.define_config_flags(binary.presets[binary.options.preset], "", values)
    return values


def main(binary: Binary) -> None:
    """Defines the flags, parses the command line, runs, and exits; call under `__main__`."""
    define_flags(binary, flags.FLAGS)
    flags_lib.parse_and_run(
        lambda argv: _run(binary, flags.FLAGS), check=lambda values: _resolve(binary, values)
    )


def _resolve(binary: Binary, flag_values: flags.FlagValues) -> tuple[RunOptions, Any]:
    options, config = run.resolve(flag_values, binary.system, binary.presets, binary.free)
    binary.validate(config)
    return options, config


def enable_compilation_cache() -> None:
    """Keeps compiled programs in a per-user folder, unless JAX has been given one already."""
    if not jax.config.values.get("jax_compilation_cache_dir"):
        root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(root / "jaxsafe" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _set_up(options: RunOptions) -> RunOptions:
    """Configures JAX for this run; returns the options with the number of devices settled."""
    enable_compilation_cache()
    logging.getLogger("jax").setLevel(logging.WARNING)  # it tells which backends are absent
    cores = options.devices or parallel.available_cores()
    if options.distributed:
        # --devices counts all processes; where a cluster tells how many, XLA_FLAGS must split.
        parallel.split_host_cpu(options.devices // (options.num_processes or options.devices or 1))
        parallel.initialize_distributed(
            options.coordinator, options.num_processes, options.process_id
        )
    else:
        parallel.split_host_cpu(min(cores, options.num_seeds))
    # Scoring does not depend on how many devices trained.
    requested = options.devices if options.mode == "train" else 0
    devices = parallel.choose_num_devices(options.num_seeds, requested)
    return dataclasses.replace(options, devices=devices)


def _run(binary: Binary, flag_values: flags.FlagValues) -> int:
    options, config = _resolve(binary, flag_values)
    out = options.out or f"runs/{binary.system}-{options.preset}"
    options = _set_up(dataclasses.replace(options, out=out))
    mesh = parallel.seed_mesh(options.devices)
    programs = [program.build(stage, options, mesh) for stage in binary.stages(config)]
    for p in programs:
        p.check_memory()
    if options.tensorboard:
        metrics.summary_writer()
    if options.dry_run:
        _dry_run(binary, options, config, programs)
        return 0
    folder = _open_folder(out, options)
    act = _train if options.mode == "train" else _revisit
    with disk.named_refusals(folder):
        return act(binary, folder, options, config, programs)


def _open_folder(out: str, options: RunOptions) -> Folder:
    """Opens the run folder in process 0; the others wait until that is done."""
    refused = f"--out={out} was refused by process 0: see there."
    parallel.on_main(lambda: run.open_folder(out, options), refused)
    return Folder(pathlib.Path(out))


def _train(
    binary: Binary,
    folder: Folder,
    options: RunOptions,
    config: Any,
    programs: Sequence[program.Program],
) -> int:
    """Trains stage after stage, then scores; returns the exit code."""
    for p in programs:
        loop.check_length(p, folder)
    preset = binary.presets[options.preset]
    command = provenance.reproducing_command(options, config, preset, binary.options)
    if parallel.is_main_process():
        run.write_record(folder, binary.system, options, config, command)
    timing, results = run.last_timing(folder), {}
    try:
        with loop.catch_signals() as stop:
            for p in programs:
                trained = loop.train(p, folder, stop)
                if trained.run_s or p.stage.name not in timing:
                    timing[p.stage.name] = trained.timing()
                    if parallel.is_main_process():
                        run.write_timing(folder, timing)
                results[p.stage.name] = parallel.to_host(p.stage.result(trained.state))
                # One stage's state goes before the next one's is made.
                del trained
    except loop.StoppedError as stopped:
        if parallel.is_main_process():
            folder.say(str(stopped))
        return 128 + stopped.signum
    except loop.NonFiniteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    def score() -> None:
        rows = _finish(binary, folder, options, config, results)
        run.write_summary(folder, binary.system, timing, rows, command)

    parallel.on_main(score)
    return 0


def _finish(
    binary: Binary, folder: Folder, options: RunOptions, config: Any, results: Results
) -> list[dict[str, Any]]:
    """Scores anew: no row of an earlier scoring stays."""
    with disk.scored_anew(folder):
        return binary.finish(folder, options, config, results)


def _revisit(
    binary: Binary,
    folder: Folder,
    options: RunOptions,
    config: Any,
    programs: Sequence[program.Program],
) -> int:
    """Scores or draws what an earlier run left, whole or not."""
    results = {}
    for p in programs:
        last = loop.restore_last(p, folder)
        if last is None:
            raise checks.UserError(
                f"{folder.path} has no checkpoint of {p.stage.name}: finish the run with "
                "--resume first."
            )
        step, state = last
        results[p.stage.name] = parallel.to_host(p.stage.result(state))
        if parallel.is_main_process():
            folder.say(f"{p.stage.name}: step {step} of {p.stage.num_steps}")

    def act() -> None:
        if options.mode == "eval":
            _finish(binary, folder, options, config, results)
        else:
            binary.render(folder, options, config, results)

    parallel.on_main(act)
    return 0


def _dry_run(
    binary: Binary, options: RunOptions, config: Any, programs: Sequence[program.Program]
) -> None:
    rows = [{"stage": p.stage.name, "steps": p.stage.num_steps} | p.describe() for p in programs]
    if not parallel.is_main_process():
        return
    print(json.dumps(config_lib.to_dict(config), indent=2))
    print(
        f"{binary.system}: seeds {options.seed} to {options.seed + options.num_seeds - 1} on "
        f"{provenance.device_text()}, {options.devices} used"
    )
    print(tables.text_table(rows))
    print("dry run: nothing was trained and nothing written")
