# SPDX-License-Identifier: Apache-2.0
"""How often a compiled program talks to other devices, by the text of its HLO."""

import re
from collections import Counter

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_CALL = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count[^}]*?"n":"(\d+)"')


def executed(text: str) -> dict[str, int]:
    """Number of collectives of each kind that one call of the program runs, and of bodies unsure.

    A loop's body counts as often as XLA knows that it turns; loops of unknown length count once,
    and are told under `loops_of_unknown_length`.
    """
    bodies, entry = _computations(text)
    unknown: Counter[str] = Counter()
    memory: dict[str, Counter[str]] = {}

    def count(name: str) -> Counter[str]:
        if name in memory:
            return memory[name]
        total: Counter[str] = Counter()
        for line in bodies.get(name, ()):
            operation = line.partition(" = ")[2]
            for kind in KINDS:
                if re.search(rf"\b{kind}(-start)?\(", operation):
                    total[kind] += 1
            trips = 1
            if re.search(r"\bwhile\(", operation):
                known = _TRIPS.search(line)
                trips = int(known[1]) if known else 1
                unknown[name] += known is None
            for called in _CALL.findall(operation):
                for kind, number in count(called).items():
                    total[kind] += trips * number
        memory[name] = total
        return total

    found = count(entry)
    return {kind.replace("-", "_"): found[kind] for kind in KINDS} | {
        "loops_of_unknown_length": sum(unknown.values())
    }


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines of each computation by name, and the entry's name."""
    bodies: dict[str, list[str]] = {}
    name = entry = ""
    for line in text.splitlines():
        header = _HEADER.match(line.strip()) if line.rstrip().endswith("{") else None
        if header:
            name = header[2]
            bodies[name] = []
            entry = name if header[1] else entry
        elif name:
            bodies[name].append(line)
    return bodies, entry
