# SPDX-License-Identifier: Apache-2.0
"""The folder of a sweep and its record, `sweep.json`."""

import datetime
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxsafe.core import checks, provenance, run
from jaxsafe.core.sweep import SCHEMA, Point, Sweep


def read_record(path: pathlib.Path) -> dict[str, Any]:
    """Reads `sweep.json` of a sweep's folder.

    Raises:
      UserError: there is none, or it is damaged or of another schema.
    """
    file = path / "sweep.json"
    if not file.is_file():
        raise checks.UserError(f"--out={path} is no sweep (no sweep.json): choose another folder.")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise ValueError(f"it is no record of schema {SCHEMA}")
        kinds = {"binary": str, "flags": list, "grid": dict, "given": list, "points": list}
        for name, kind in kinds.items():
            if not isinstance(record.get(name), kind):
                raise ValueError(f"it lacks {name!r}")
    except (OSError, ValueError) as error:
        raise checks.UserError(
            f"{file} is damaged ({error}): restore it, or choose another folder."
        ) from error
    return record


def open_folder(sweep: Sweep, mine: Sequence[Point], resume: bool, dry_run: bool) -> None:
    """Makes the sweep's folder, or makes sure that what is there is the same sweep.

    Raises:
      UserError: the folder holds something else, another grid or other flags; or points of this
        host have begun and `resume` is off; or it cannot be written.
    """
    path = sweep.path
    if path.exists() and not path.is_dir():
        raise checks.UserError(f"--out={path} is a file: choose a folder.")
    # Of hosts that begin together, another one may be writing the same record.
    if path.is_dir() and any(entry.name != "sweep.tmp" for entry in path.iterdir()):
        was, now = read_record(path), sweep.record()
        for name in now:
            if was[name] != now[name]:
                raise checks.UserError(
                    f"--out={path} holds a sweep with other {name} ({_text(was[name])}, now "
                    f"{_text(now[name])}): give the same again, or choose another folder."
                )
        begun = [point.name for point in mine if point.state() != "new"]
        if begun and not (resume or dry_run):
            raise checks.UserError(
                f"--out={path} has {len(begun)} of {len(mine)} points already: add --resume to go "
                "on, or choose another folder."
            )
    elif not dry_run:
        try:
            path.mkdir(parents=True, exist_ok=True)
            run.write_json(path / "sweep.json", sweep.record() | _told(sweep))
        except OSError as error:
            if (path / "sweep.json").is_file():
                return
            raise checks.UserError(
                f"--out={path} cannot be written ({error.strerror}): choose another folder."
            ) from error


def _told(sweep: Sweep) -> dict[str, Any]:
    """What the record holds beside; devices are left to the points, which need their memory."""
    return {
        "given": list(sweep.given),
        "versions": provenance.versions(),
        "git": provenance.git_commit(),
        "command": provenance.command_line(),
        "date": datetime.date.today().isoformat(),
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}={','.join(map(str, v))}" for k, v in value.items())
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) or "none"
