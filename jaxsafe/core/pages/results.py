# SPDX-License-Identifier: Apache-2.0
"""What `summary.json` says of methods, as short rows: labels, intervals over seeds, numbers.

A row is flat. `NAME_per_seed` holds one value per seed; `NAME_mean`, `NAME_ci_low` and their like
repeat it and are left out, as the interval is computed anew and in one way for every system. A
number with `NAME_low` and `NAME_high` beside it is shown with them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsafe.core import stats
from jaxsafe.core.pages.runs import number_of

Row = Mapping[str, Any]
_LIST = "_per_seed"
_DERIVED = (
    *("", "_mean", "_std", "_sd", "_iqm", "_ci_low", "_ci_high", "_low", "_high"),
    *("_min", "_max", "_median", "_n"),
)


def short(value: Any) -> str:
    """A value as text: numbers to three digits or whole, lists in one line."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, float):
        # Text with commas would not read back, and nothing needs more digits than these.
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, list | dict):
        flat = isinstance(value, list) and not any(isinstance(v, list | dict) for v in value)
        return ", ".join(map(short, value)) if flat else json.dumps(value)
    return str(value)


def measures(rows: Sequence[Row]) -> list[str]:
    """Names with a list of one number per seed in some row."""
    found = dict.fromkeys(
        name.removesuffix(_LIST)
        for row in rows
        for name, value in row.items()
        if name.endswith(_LIST) and _is_numbers(value)
    )
    return list(found)


def _is_numbers(value: Any) -> bool:
    """One number per seed; null stands for one that is not known."""
    if not isinstance(value, list):
        return False
    return any(map(_is_number, value)) and all(x is None or _is_number(x) for x in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or value in ("inf", "-inf", "nan")


def seed_values(row: Row, measure: str) -> np.ndarray:
    """A measure's values `[num_seeds]`, NaN where one is not known; empty where it is absent."""
    value: Any = row.get(measure + _LIST)
    return np.asarray([number_of(x) for x in value] if _is_numbers(value) else [])


def interval(values: np.ndarray) -> str:
    """The IQM over seeds with its 95% bootstrap interval; one seed's number alone."""
    seen = values[np.isfinite(values)]
    if not values.size:
        return ""
    if not seen.size:
        return short(float(values[0])) if values.size == 1 else "none finite"
    low, high = stats.stratified_bootstrap_ci(seen)
    told = short(float(stats.iqm(seen)))
    if seen.size > 1:
        told += f" [{short(low)}, {short(high)}]"
    return told if seen.size == values.size else f"{told} ({seen.size} of {values.size} finite)"


def plain(rows: Sequence[Row]) -> list[str]:
    """Names of single values that no list repeats, in the order of appearance."""
    repeated = {m + end for m in measures(rows) for end in _DERIVED}
    names = dict.fromkeys(n for row in rows for n in row if not n.endswith(_LIST))
    ends = {n + end for n in names for end in ("_low", "_high") if _has_interval(rows, n)}
    return [n for n in names if n not in repeated | ends]


def _has_interval(rows: Sequence[Row], name: str) -> bool:
    keys = (name, f"{name}_low", f"{name}_high")
    return any(all(_is_number(row.get(key)) for key in keys) for row in rows)


def labels(rows: Sequence[Row]) -> list[str]:
    """Names of what tells the rows apart: as few texts as will do, and a number where none do."""
    texts = [n for n in plain(rows) if any(isinstance(row.get(n), str) for row in rows)]
    told = [n for n in texts if _kinds(rows, [n]) > 1]
    for count in range(1, len(told) + 1):
        if _kinds(rows, told[:count]) == len(rows):
            return told[:count]
    numbers = [n for n in plain(rows) if told and n not in texts]
    last = [n for n in numbers if _kinds(rows, [*told, n]) == len(rows)][:1]
    return [*told, *last] or texts[:1]


def _kinds(rows: Sequence[Row], names: Sequence[str]) -> int:
    """How many different rows there are, by some of their fields."""
    return len({tuple(short(row.get(n)) for n in names) for row in rows})


def label(row: Row, names: Sequence[str], number: int) -> str:
    """A row's name."""
    told = [short(row.get(n)) for n in names]
    return " \N{MIDDLE DOT} ".join(filter(None, told)) or f"row {number}"


def constants(rows: Sequence[Row]) -> dict[str, str]:
    """What all rows share and no column needs to repeat; none where there is one row."""
    told = {n: {short(row.get(n)) for row in rows} for n in plain(rows)}
    return {n: values.pop() for n, values in told.items() if len(rows) > 1 and len(values) == 1}


def summary_rows(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The rows as people read them: label, measures with intervals, then what else differs."""
    named, same = labels(rows), constants(rows)
    rest = [n for n in plain(rows) if n not in named and n not in same]
    told = []
    for number, row in enumerate(rows, 1):
        line = {" \N{MIDDLE DOT} ".join(named) or "row": label(row, named, number)}
        line |= {m: interval(seed_values(row, m)) for m in measures(rows)}
        line |= {n: _with_ends(row, n) for n in rest}
        told.append(line)
    return told


def _with_ends(row: Row, name: str) -> str:
    told = short(row.get(name))
    if _has_interval([row], name):
        told += f" [{short(row[f'{name}_low'])}, {short(row[f'{name}_high'])}]"
    return told


def seed_table(rows: Sequence[Row], seeds: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table of all lists: mean, deviation, extremes, then each seed."""
    names, named = dict.fromkeys(n for row in rows for n in row if n.endswith(_LIST)), labels(rows)
    lists = [
        (label(row, named, i), n.removesuffix(_LIST), row[n])
        for n in names
        for i, row in enumerate(rows, 1)
        if isinstance(row.get(n), list)
    ]
    most = max((len(value) for _, _, value in lists), default=0)
    heads = seeds if len(seeds) == most else range(1, most + 1)
    head = ["row", "measure", "mean", "sd", "min", "max", *(f"seed {s}" for s in heads)]
    body = []
    for name, measure, value in lists:
        x = seed_values({measure + _LIST: value}, measure)
        x = x[~np.isnan(x)]
        whole = x.size > 1 and bool(np.isfinite(x).all())
        moments = [x.mean(), x.std(ddof=1) if whole else np.nan, x.min(), x.max()] if x.size else []
        told = [short(float(m)) if not np.isnan(m) else "" for m in moments] or [""] * 4
        cells = [short(v) for v in value] + [""] * (most - len(value))
        body.append([name, measure, *told, *cells])
    return head, body
