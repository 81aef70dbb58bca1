# SPDX-License-Identifier: Apache-2.0
"""Small tables for the terminal and for Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[_cell(row.get(name, "")) for name in names] for row in rows]


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Aligned columns, one line per row; the keys of the rows are the headings."""
    names, cells = _columns(rows)
    lines = [names, *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    numeric = [all(not isinstance(row.get(name, ""), str) for row in rows) for name in names]

    def align(line: list[str]) -> str:
        parts = [
            part.rjust(width) if right else part.ljust(width)
            for part, width, right in zip(line, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([align(names), *(align(line) for line in cells)])


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same as a Markdown table."""
    names, cells = _columns(rows)
    lines = [names, ["---"] * len(names), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
