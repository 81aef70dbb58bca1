# SPDX-License-Identifier: Apache-2.0
"""Rows of a benchmark as the folders' READMEs show them: a line per setting, sides as columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.kernels import Kernel, is_ours


def side_by_side(
    rows: Sequence[Mapping[str, Any]],
    kernel: Kernel,
    keys: Sequence[str],
    *,
    value: str = "rate",
    ratios: Sequence[tuple[str, str]] = (),
) -> list[dict[str, Any]]:
    """A line for each setting, with what each side measured there.

    Args:
      rows: of one benchmark.
      kernel: the benchmark.
      keys: columns that tell a setting; rows that differ elsewhere are not told apart.
      value: the column shown.
      ratios: pairs (ours, peer) whose rates are divided, a column for each.

    Returns:
      Lines with the same columns: `keys`, our sides, the others, ratios; "" where one lacks.
    """
    ours = dict.fromkeys(row[kernel.by] for row in rows if is_ours(row, kernel))
    theirs = dict.fromkeys(row[kernel.by] for row in rows if not is_ours(row, kernel))
    lines: dict[tuple, dict[str, Any]] = {}
    rates: dict[tuple, dict[str, float]] = {}
    for row in rows:
        at = tuple(row[k] for k in keys)
        line = lines.setdefault(at, {k: row[k] for k in keys} | dict.fromkeys((*ours, *theirs), ""))
        line[row[kernel.by]] = row[value]
        rates.setdefault(at, {})[row[kernel.by]] = row["rate"]
    for at, line in lines.items():
        for pair in ratios:
            there = [rates[at][name] for name in pair if name in rates[at]]
            line[" / ".join(pair)] = f"{there[0] / there[1]:.3g}" if len(there) == 2 else ""
    return list(lines.values())
