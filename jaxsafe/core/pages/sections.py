# SPDX-License-Identifier: Apache-2.0
"""Parts of a page over runs: what differs, results together, and one run from top to bottom."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsafe.core.pages import figures, markup, results
from jaxsafe.core.pages.markup import Html, join, tag
from jaxsafe.core.pages.runs import Curves, Run, number_of

_PICTURES = {
    **{".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif"},
    **{".svg": "image/svg+xml", ".webp": "image/webp", ".mp4": "video/mp4", ".webm": "video/webm"},
}
_ABSENT = object()
_PANELS = 3  # measures drawn of each run; the tables have all


def status(run: Run) -> str:
    """Whether the run is complete, or how far its rows go."""
    if run.summary is not None:
        return results.short(run.summary.get("status", "complete"))
    if not run.last:
        return "unfinished, no rows"
    return "unfinished: " + ", ".join(f"{s} at step {n:,}" for s, n in list(run.last.items())[-1:])


def seeds_text(run: Run) -> str:
    """The seeds asked for, such as `200 to 209`."""
    seeds = run.seeds()
    if len(seeds) < 2:
        return "".join(map(str, seeds))
    return f"{seeds[0]} to {seeds[-1]} ({len(seeds)})"


def training_time(run: Run) -> str:
    """What all stages of a finished run took to train, compilation apart."""
    times = [number_of(stage.get("run_s")) for stage in _stages(run).values()]
    total = float(np.nansum(times)) if times else 0.0
    if not total:
        return ""
    return f"{total:.0f} s" if total < 600 else f"{total / 60:,.0f} min"


def _stages(run: Run) -> dict[str, dict[str, Any]]:
    stages = run.summary.get("stages") if run.summary else None
    stages = stages if isinstance(stages, dict) else {}
    return {name: told for name, told in stages.items() if isinstance(told, dict)}


def differences(runs: Sequence[Run]) -> Html:
    """Config fields that the command of a run changes from its preset, or that differ between runs.

    A changed value is marked.
    """
    configs = [run.config() for run in runs]
    names = dict.fromkeys(name for config in configs for name in config)
    shown = [
        name
        for name in names
        if any(name in run.given() for run in runs)
        or any(config.get(name, _ABSENT) != configs[0].get(name, _ABSENT) for config in configs)
    ]
    if not shown:
        return tag("p", "Every run has the values of its preset.")
    lines: list[list[Any]] = [["run", "preset", *shown]]
    for run, config in zip(runs, configs, strict=True):
        cells: list[Any] = [run.name, results.short(run.record["options"].get("preset"))]
        for name in shown:
            told = results.short(config[name]) if name in config else "absent"
            cells.append(tag("mark", told) if name in run.given() and told else told)
        lines.append(cells)
    if len(shown) > len(runs):
        lines = [list(column) for column in zip(*lines, strict=True)]
    said = "Config of the runs: what differs, or was changed from the preset (marked)"
    return join([tag("h3", "Config differences"), markup.table(said, lines[0], lines[1:])])


def together(runs: Sequence[Run]) -> Html | None:
    """The measures that two runs or more have, all their rows in one table."""
    counts: dict[str, int] = {}
    for run in runs:
        for name in results.measures(run.results):
            counts[name] = counts.get(name, 0) + 1
    shared = [name for name, count in counts.items() if count > 1]
    if not shared:
        return None
    rows = []
    for run in runs:
        named = results.labels(run.results)
        for number, row in enumerate(run.results, 1):
            cells = [results.interval(results.seed_values(row, m)) for m in shared]
            if any(cells):
                rows.append([run.name, results.label(row, named, number), *cells])
    said = "IQM over seeds [95% interval], measures that two runs or more have"
    table = markup.table(said, ["run", "row", *shared], rows, label=2)
    return join([tag("h3", "Results of all runs"), table])


def one_run(run: Run, anchor: str, max_curves: int, max_mb: float) -> Html:
    """Everything of one run."""
    facts = {
        "status": status(run),
        "seeds": seeds_text(run),
        **{name: results.short(run.record.get(name)) for name in ("date", "device", "git")},
    }
    listed = [join([tag("dt", name), tag("dd", told)]) for name, told in facts.items() if told]
    command = run.record.get("command")
    parts = [
        tag("h3", run.name),
        tag("dl", *listed),
        tag("pre", tag("code", command)) if command else None,
        *(tag("p", fault, class_="bad") for fault in run.faults),
        _results(run),
        _curves(run, max_curves),
        _pictures(run, max_mb),
        _record(run),
    ]
    return tag("article", *parts, id=anchor)


def _results(run: Run) -> Html | None:
    rows = run.results
    if not rows:
        return None
    lines = results.summary_rows(rows)
    head = list(dict.fromkeys(name for line in lines for name in line))
    body = [[line[name] for name in head] for line in lines]
    same = ", ".join(f"{n} {told}" for n, told in results.constants(rows).items() if told)
    parts: list[Any] = [
        tag("h4", "Results"),
        markup.table(f"Results of {run.name}: IQM over seeds [95% interval]", head, body),
        tag("p", f"In all rows: {same}.", class_="muted") if same else None,
        _panels(run),
    ]
    head, body = results.seed_table(rows, run.seeds())
    if body:
        table = markup.table(f"Each seed of {run.name}", head, body, label=2)
        parts.append(markup.details("Each seed", table))
    return join(parts)


def _panels(run: Run) -> Html | None:
    """A panel for each of the first measures, where there are seeds to compare."""
    rows, named = run.results, results.labels(run.results)
    names = [results.label(row, named, i) for i, row in enumerate(rows, 1)]
    drawn = []
    for measure in results.measures(rows)[:_PANELS]:
        values = [results.seed_values(row, measure) for row in rows]
        if max(v[np.isfinite(v)].size for v in values) < 2:
            continue
        content = figures.interval_panel(measure, names, values, range(len(rows)))
        told = "; ".join(
            f"{n} {results.interval(v)}" for n, v in zip(names, values, strict=True) if v.size
        )
        drawn.append(figures.image(content, f"{measure} of {run.name}: {told}"))
    if not drawn:
        return None
    said = "Ring: a seed. Diamond: IQM over seeds. Bar: its 95% interval."
    return join([tag("div", *drawn, class_="grid"), tag("p", said, class_="muted")])


def _is_counter(series: dict[str, tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether a metric only counts steps in another unit."""
    for x, y in series.values():
        ratio = y / np.where(x > 0, x, np.nan)
        if not np.isfinite(ratio).all() or np.ptp(ratio) > 1e-6 * abs(ratio.flat[0]):
            return False
    return True


def _shown(curves: Curves) -> list[str]:
    """Metrics worth a panel: those with two steps or more that are no counters."""
    return [
        name
        for name, series in curves.items()
        if not _is_counter(series)
        and any(np.isfinite(y).any(axis=0).sum() > 1 for _, y in series.values())
    ]


def _curves(run: Run, most: int) -> Html | None:
    names, stages = _shown(run.curves), list(run.last)
    if not names or not most:
        return None
    panels = []
    for name in names[:most]:
        series = run.curves[name]
        content = figures.curve_panel(name, series, stages)
        ends = "; ".join(
            f"{stage} ends at {results.interval(y[:, -1])}" for stage, (_, y) in series.items()
        )
        panels.append(figures.image(content, f"{name} of {run.name} over steps: {ends}"))
    said = "Thick: IQM over seeds. Band: its 95% interval. Thin: single seeds."
    if len(names) > most:
        said += f" Not drawn: {', '.join(names[most:])} (--max_curves={len(names)} draws all)."
    parts = [
        figures.key(stages),
        tag("div", *panels, class_="grid"),
        tag("p", said, class_="muted"),
    ]
    return join([tag("h4", "Training"), *parts])


def _pictures(run: Run, max_mb: float) -> Html | None:
    shown, named = [], []
    for path in run.pictures:
        kind = _PICTURES.get(path.suffix.lower())
        try:
            size = path.stat().st_size / 2**20
            if kind is None or size > max_mb:
                named.append(f"{path.name} ({size:.1f} MB)")
            else:
                shown.append(_picture(run, path, kind))
        except OSError:
            named.append(f"{path.name} (unreadable)")
    if not shown and not named:
        return None
    parts = [tag("h4", "Pictures"), tag("div", *shown, class_="pictures") if shown else None]
    if named:
        parts.append(tag("p", f"In plots/, not embedded: {', '.join(named)}.", class_="muted"))
    return join(parts)


def _picture(run: Run, path: pathlib.Path, kind: str) -> Html:
    source = markup.data_uri(path.read_bytes(), kind)
    title = path.stem.replace("_", " ")
    if kind.startswith("video/"):
        body = tag("video", src=source, controls=True, aria_label=f"{title}, film of {run.name}")
    else:
        body = tag("img", src=source, alt=f"{title}, picture of {run.name}", loading="lazy")
    return tag("figure", body, tag("figcaption", f"plots/{path.name}"))


def _record(run: Run) -> Html:
    """What folds away: stages and their times, versions, the whole config."""
    parts = []
    stages = _stages(run)
    if stages:
        head = list(dict.fromkeys(name for told in stages.values() for name in told))
        rows = [[n, *(results.short(t.get(h)) for h in head)] for n, t in stages.items()]
        table = markup.table(f"Stages of {run.name}", ["stage", *head], rows)
        parts.append(markup.details("Stages and times", table))
    versions = run.record.get("versions")
    if isinstance(versions, dict):
        told = ", ".join(f"{name} {results.short(v)}" for name, v in versions.items())
        parts.append(markup.details("Versions", tag("p", told)))
    config = json.dumps(run.record["config"], indent=2)
    parts.append(markup.details("Whole config", tag("pre", tag("code", config))))
    return join(parts)
