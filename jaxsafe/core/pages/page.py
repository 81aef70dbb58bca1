# SPDX-License-Identifier: Apache-2.0
"""A page over run folders: overview, differences, and each run's results, curves and pictures.

The page fetches nothing and runs nothing: its content policy allows `data:` pictures and its own
style only, so text of a run that looked like a script would stay text and do nothing.
"""

import dataclasses
import datetime
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxsafe.core import checks
from jaxsafe.core.config import field
from jaxsafe.core.pages import markup, results, sections
from jaxsafe.core.pages.markup import Html, tag
from jaxsafe.core.pages.runs import Run, find
from jaxsafe.core.pages.style import CSS

GENERATOR = "jaxsafe report 1"
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


@dataclasses.dataclass(frozen=True)
class PageOptions:
    """The flags of the report."""

    runs: str = field("runs", "Folder that holds run folders, at any depth.")
    out: str = field("report.html", "The page to write.")
    overwrite: bool = field(False, "Replace --out also where it is no report.")
    title: str = field("jaxsafe runs", "Heading of the page.")
    max_curves: int = field(24, "Metrics drawn of each run; 0: none.", 0)
    max_mb: float = field(20.0, "Larger pictures and films are named and not embedded.", 0.0)


def check_target(options: PageOptions) -> None:
    """Raises `UserError` where the page would go over something else, or cannot be written."""
    path = pathlib.Path(options.out)
    if path.is_dir():
        raise checks.UserError(f"--out={path} is a folder: give a file, as {path / 'report.html'}.")
    if not path.absolute().parent.is_dir():
        raise checks.UserError(
            f"--out={path} is in no folder that exists: make that, or choose another."
        )
    if not path.exists() or options.overwrite:
        return
    try:
        with path.open("rb") as file:
            ours = GENERATOR.encode() in file.read(1000)
    except OSError as error:
        raise checks.UserError(
            f"--out={path} cannot be read ({error.strerror}): choose another."
        ) from error
    if not ours:
        raise checks.UserError(
            f"--out={path} exists and is no report: choose another, or add --overwrite."
        )


def write(options: PageOptions) -> tuple[list[Run], dict[str, str]]:
    """Writes the page, whole or not at all; returns the runs on it, and what could not be read.

    Raises:
      UserError: there is nothing to show, or the page cannot be written.
    """
    check_target(options)
    found, faults = find(pathlib.Path(options.runs))
    if not found and not faults:
        raise checks.UserError(
            f"--runs={options.runs} holds no run folder (none has a config.json of a run): "
            "give the --out of a run, or a folder above."
        )
    page = render(found, faults, options)
    path = pathlib.Path(options.out)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8", errors="replace")
        os.replace(temporary, path)
    except OSError as error:
        raise checks.UserError(
            f"--out={path} cannot be written ({error.strerror}): choose another."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return found, faults


def render(found: Sequence[Run], faults: dict[str, str], options: PageOptions) -> Html:
    """Returns the whole page."""
    systems = list(dict.fromkeys(run.system for run in sorted(found, key=lambda r: r.system)))
    anchors = {run.name: f"run-{i}" for i, run in enumerate(found, 1)}
    parts = [_overview(found, anchors)]
    links = [tag("a", "Overview", href="#overview")]
    if faults:
        parts.append(_faults(faults))
        links.append(tag("a", "Not read", href="#not-read"))
    for i, system in enumerate(systems, 1):
        runs = [run for run in found if run.system == system]
        links.append(tag("a", f"{system} ({len(runs)})", href=f"#system-{i}"))
        parts.append(_system(system, f"system-{i}", runs, anchors, options))
    said = f"{len(found)} runs below {options.runs}, put together on {datetime.date.today()}."
    note = tag(
        "p",
        "Values over seeds are interquartile means (the mean where there are fewer than four) with "
        "95% bootstrap intervals in brackets, computed from each run's own list of one value per "
        "seed. With few seeds such intervals are too narrow. Where a run states an interval of a "
        "number without such a list, it is shown as stated.",
        class_="muted",
    )
    header = tag("header", tag("h1", options.title), tag("p", said), note)
    body = tag("body", header, tag("nav", *links, aria_label="Sections"), tag("main", *parts))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="generator", content=GENERATOR),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", options.title),
        tag("style", Html(CSS)),
    )
    return Html(f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n")


def _overview(found: Sequence[Run], anchors: dict[str, str]) -> Html:
    head = ["run", "system", "preset", "seeds", "status", "trained for", "date", "device", "commit"]
    rows = []
    for run in found:
        link = tag("a", run.name, href=f"#{anchors[run.name]}")
        record = [results.short(run.record.get(name)) for name in ("date", "device", "git")]
        preset = run.record["options"].get("preset")
        times = sections.training_time(run)
        seeds, state = sections.seeds_text(run), sections.status(run)
        rows.append([link, run.system, results.short(preset), seeds, state, times, *record])
    table = markup.table("Every run", head, rows) if rows else tag("p", "No run could be read.")
    return tag("section", tag("h2", "Overview"), table, id="overview")


def _faults(faults: dict[str, str]) -> Html:
    table = markup.table("Folders left out", ["folder", "reason"], list(map(list, faults.items())))
    return tag("section", tag("h2", "Not read"), table, id="not-read")


def _system(
    system: str, anchor: str, runs: Sequence[Run], anchors: dict[str, str], options: PageOptions
) -> Html:
    """One system: what differs between its runs, their results together, then each run."""
    parts: list[Any] = [sections.differences(runs)]
    if len(runs) > 1:
        parts.append(sections.together(runs))
    parts += [
        sections.one_run(run, anchors[run.name], options.max_curves, options.max_mb) for run in runs
    ]
    return tag("section", tag("h2", system), *parts, id=anchor)


def headline(found: Sequence[Run], faults: dict[str, str]) -> list[str]:
    """What the binary says in the terminal."""
    done = sum(run.summary is not None for run in found)
    lines = [f"{len(found)} runs, {done} of them complete"]
    lines += [f"{run.name}: {fault}" for run in found for fault in run.faults]
    lines += [f"left out {name}: {reason}" for name, reason in faults.items()]
    return lines
