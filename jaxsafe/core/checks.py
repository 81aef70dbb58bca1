# SPDX-License-Identifier: Apache-2.0
"""Errors that name the value and the fix."""

import difflib
import os
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(ValueError):
    """Bad input. The message is one line that names the value and the fix; binaries exit with 2."""


def did_you_mean(value: str, options: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the nearest option, or `""` where none is near."""
    near = difflib.get_close_matches(str(value), list(options), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_choice(name: str, value: str, options: Iterable[str]) -> None:
    """Raises `UserError` unless `value` is one of `options`."""
    options = list(options)
    if value not in options:
        hint = did_you_mean(value, options)
        raise UserError(f"{name}={value!r} is unknown.{hint} Choose one of: {', '.join(options)}.")


def check_range(
    name: str, value: float, low: float | None = None, high: float | None = None
) -> None:
    """Raises `UserError` unless `low <= value <= high`; NaN is out of every range."""
    above = low is None or value >= low
    below = high is None or value <= high
    if not (above and below):
        low_text = "-inf" if low is None else f"{low:g}"
        high_text = "inf" if high is None else f"{high:g}"
        raise UserError(
            f"{name}={value!r} is out of range: give a value in [{low_text}, {high_text}]."
        )


def check_once(name: str, values: Sequence[Any]) -> None:
    """Raises `UserError` if `values` is empty or holds something twice."""
    if not values or len(set(values)) < len(values):
        given = ",".join(map(str, values))
        raise UserError(f"{name}={given!r} is empty or repeats one: name each once.")


def host_memory_bytes() -> int:
    """Returns the physical memory of this host, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(name: str, needed_bytes: float, fix: str, fraction: float = 0.5) -> None:
    """Raises `UserError` where an array would take more than `fraction` of the host's memory.

    Args:
      name: what is about to be allocated, with its value, for the message.
      needed_bytes: its size in bytes.
      fix: what to lower, as an imperative sentence.
      fraction: the share of physical memory one array may take.
    """
    have = host_memory_bytes()
    if needed_bytes > fraction * have:
        raise UserError(
            f"{name} needs {needed_bytes / 2**30:.3g} GiB; this machine has {have / 2**30:.1f} GiB "
            f"and at most {fraction:.0%} may go to it. {fix}"
        )
