# SPDX-License-Identifier: Apache-2.0
"""Run folders: what a run is, where it stands, and how to do it again.

A run folder holds

  config.json     what was asked: system, options, config, versions, device, git commit, and the
                  command that does the same run again
  metrics.jsonl   training rows, one per stage, step and seed
  eval.jsonl      scores of finished policies
  timing.json     what each stage trained so far took: `steps`, `compile_s`, `run_s`, `rate`, `unit`
  step_times.json seconds of a step of each method, where a search compares them at equal time
  summary.json    `{"schema": 1, "system", "status", "stages", "results", "command", "versions",
                  "device", "git", "date"}`; `stages` are those of `timing.json`; `results` is a
                  list of flat rows, one per method
  checkpoints/    <stage>/<step>, whole states
  models/         finished language models as Hugging Face folders, of systems that train some
  plots/          pictures
  log.txt         what was printed, with times
"""

import dataclasses
import datetime
import json
import os
import pathlib
import shutil
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from jaxsafe.core import checks
from jaxsafe.core import config as config_lib
from jaxsafe.core import flags as flags_lib
from jaxsafe.core.provenance import provenance

C = TypeVar("C")
SCHEMA = 1
# The record is last: while it stands, an overwrite that was cut short can be done again.
_OWN = (
    *("metrics.jsonl", "eval.jsonl", "timing.json", "summary.json", "log.txt"),
    *("step_times.json", "eval.before", "config.json"),
)
_OWN_FOLDERS = ("checkpoints", "models", "plots", "tensorboard")
# Options of one invocation, which a resumed run does not inherit.
_INVOCATION = (
    *("resume", "overwrite", "mode", "dry_run"),
    *("distributed", "coordinator", "num_processes", "process_id"),
)
# Options that may differ when a run goes on: none of them changes a number.
_FREE = frozenset(
    (*_INVOCATION, "out", "progress", "check_nans", "checkpoint_every", "log_every", "tensorboard")
)


@dataclasses.dataclass(frozen=True)
class Folder:
    """Paths of one run folder."""

    path: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        """The record of what was asked."""
        return self.path / "config.json"

    @property
    def metrics(self) -> pathlib.Path:
        """Training rows."""
        return self.path / "metrics.jsonl"

    @property
    def evals(self) -> pathlib.Path:
        """Scores."""
        return self.path / "eval.jsonl"

    @property
    def timing(self) -> pathlib.Path:
        """What the stages took."""
        return self.path / "timing.json"

    @property
    def step_times(self) -> pathlib.Path:
        """What a step of each method takes."""
        return self.path / "step_times.json"

    @property
    def summary(self) -> pathlib.Path:
        """Outcome."""
        return self.path / "summary.json"

    @property
    def plots(self) -> pathlib.Path:
        """Pictures."""
        return self.path / "plots"

    @property
    def models(self) -> pathlib.Path:
        """Finished language models."""
        return self.path / "models"

    def checkpoints(self, stage: str) -> pathlib.Path:
        """Checkpoints of one stage."""
        return self.path / "checkpoints" / stage

    def say(self, text: str) -> None:
        """Prints a line and keeps it in log.txt with the time."""
        print(text, flush=True)
        if self.path.exists():
            now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
            with (self.path / "log.txt").open("a", encoding="utf-8") as file:
                file.writelines(f"{now} {line}\n" for line in text.splitlines())


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file atomically; what a kill leaves beside it, the next write takes away."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_record(path: pathlib.Path) -> dict[str, Any]:
    """Reads `config.json` of a run folder.

    Raises:
      UserError: the folder is no run folder, or its record is damaged or of another schema.
    """
    file = path / "config.json"
    if not file.is_file():
        raise checks.UserError(
            f"--out={path} is not a run folder (no config.json): check the path, or begin a run "
            "there, without --resume and --mode."
        )
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("it holds no record")
        for name in ("schema", "system", "options", "config"):
            if name not in record:
                raise ValueError(f"it lacks {name!r}")
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}, this version reads {SCHEMA}")
        return record
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error


def _damaged(file: pathlib.Path, error: Exception) -> checks.UserError:
    reason = str(error).rstrip(".")
    return checks.UserError(
        f"{file} is damaged ({reason}): restore it or start anew with --overwrite."
    )


def _read_run(
    path: pathlib.Path, system: str, config_class: type[C]
) -> tuple[flags_lib.RunOptions, C]:
    """Options and config of the run in a folder, less what concerned only that invocation."""
    record = read_record(path)
    if record["system"] != system:
        raise checks.UserError(
            f"--out={path} is a run of {record['system']}, not of {system}: choose another."
        )
    try:
        options = config_lib.from_dict(flags_lib.RunOptions, record["options"], "options")
        config = config_lib.from_dict(config_class, record["config"])
    except checks.UserError as error:
        raise _damaged(path / "config.json", error) from error
    initial = {name: getattr(flags_lib.RunOptions, name) for name in _INVOCATION}
    return dataclasses.replace(options, **initial), config


def resolve(
    flag_values: Any, system: str, presets: Mapping[str, C], free: Collection[str] = ()
) -> tuple[flags_lib.RunOptions, C]:
    """Returns options and config by the order default < preset < resumed config < flag.

    Args:
      flag_values: parsed flags.
      system: the binary's system, to tell its run folders from others.
      presets: named configs, all of one class.
      free: dotted config fields that may change when a run goes on or is scored again.

    Raises:
      UserError: bad values, or a run folder of another system, config, seed or device count.
    """
    options = flags_lib.run_options(flag_values)
    preset = config_lib.get_preset(presets, options.preset)
    if not (options.resume or options.mode != "train"):
        return options, flags_lib.overlay(preset, "", flag_values)
    if options.out is None:
        raise checks.UserError("--resume and --mode=eval|render need --out=FOLDER.")
    old, base = _read_run(pathlib.Path(options.out), system, type(preset))
    config = flags_lib.overlay(base, "", flag_values)
    options = flags_lib.overlay(old, "", flag_values)
    changed = {k: v for k, v in config_lib.diff(base, config).items() if k not in free}
    changed |= {k: v for k, v in config_lib.diff(old, options).items() if k not in _FREE}
    for name, (was, now) in changed.items():
        raise checks.UserError(
            f"--{name}={config_lib.to_text(now)} differs from the run in {options.out}, which has "
            f"{config_lib.to_text(was)}: drop the flag, or choose another --out."
        )
    return options, config


def open_folder(out: str, options: flags_lib.RunOptions) -> Folder:
    """Makes or opens the run folder; nothing of an earlier run is touched without `overwrite`.

    Raises:
      UserError: it is not empty and neither resumed nor overwritten, no run folder where one is
        needed, or not writable.
    """
    path = pathlib.Path(out)
    going_on = options.resume or options.mode != "train"
    try:
        if path.exists() and not path.is_dir():
            raise checks.UserError(f"--out={out} is a file: choose a folder.")
        if path.is_dir() and any(path.iterdir()) and not going_on:
            _clear(path, options.overwrite)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise checks.UserError(
            f"--out={out} cannot be written ({error.strerror}): choose another folder."
        ) from error
    return Folder(path)


def _clear(path: pathlib.Path, overwrite: bool) -> None:
    if not overwrite:
        raise checks.UserError(
            f"--out={path} is not empty: add --resume to go on with that run, --overwrite to "
            "start it anew, or choose another folder."
        )
    if not (path / "config.json").is_file():
        raise checks.UserError(
            f"--out={path} is no run folder (no config.json), so --overwrite leaves it alone: "
            "choose another folder."
        )
    for name in _OWN_FOLDERS:
        # A link to another disk is ours, what it points to may not be.
        if (path / name).is_symlink():
            (path / name).unlink()
        elif (path / name).exists():
            shutil.rmtree(path / name)
    for name in _OWN:
        (path / name).unlink(missing_ok=True)


def write_record(
    folder: Folder, system: str, options: flags_lib.RunOptions, config: Any, command: str
) -> None:
    """Writes `config.json`; `command` is from `reproducing_command`."""
    record = {
        "schema": SCHEMA,
        "system": system,
        "hash": config_lib.config_hash(config),
        "options": config_lib.to_dict(options),
        "config": config_lib.to_dict(config),
    }
    write_json(folder.config, record | provenance(command))


def last_timing(folder: Folder) -> dict[str, Any]:
    """What the stages took when they were last trained; no entry for one that is not trained."""
    return json.loads(folder.timing.read_text()) if folder.timing.exists() else {}


def write_timing(folder: Folder, stages: Mapping[str, Any]) -> None:
    """Writes `timing.json`."""
    write_json(folder.timing, dict(stages))


def write_summary(
    folder: Folder,
    system: str,
    stages: Mapping[str, Any],
    results: list[dict[str, Any]],
    command: str,
) -> None:
    """Writes `summary.json` of a finished run; the module's docstring has its schema."""
    body = {"schema": SCHEMA, "system": system, "status": "complete"}
    body |= {"stages": dict(stages), "results": results}
    write_json(folder.summary, body | provenance(command))
