# SPDX-License-Identifier: Apache-2.0
"""What each method had found when the quickest one ended: methods at the same wall-clock.

Every method runs the same number of search steps, which cost different times. How long they took
stands in the run folder's `timing.json`, compilation apart, and theta's way in its rows, so the
architecture of any row can be told afterwards. Random search picks among architectures by the
supernet's last weights, so of it only the end is known.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsafe.advantage_nas.space import Space
from jaxsafe.core import metrics
from jaxsafe.core.run import Folder


def steps_within(timing: Mapping[str, Any], methods: Sequence[str]) -> dict[str, int]:
    """Steps that each method had done when the quickest one had done all of its own.

    Args:
      timing: of `core.run.last_timing`.
      methods: those compared; methods whose time is not known are left out.
    """
    known = {m: timing[m] for m in methods if timing.get(m, {}).get("rate")}
    if not known:
        return {}
    # The same seeds for all, so seconds up to a common factor.
    budget = min(told["steps"] / told["rate"] for told in known.values())
    within = {m: int(budget * told["rate"] * (1 + 1e-9)) for m, told in known.items()}
    return {m: min(steps, known[m]["steps"]) for m, steps in within.items()}


def architectures(
    folder: Folder, method: str, step: int, space: Space, seeds: Sequence[int]
) -> tuple[int, np.ndarray] | None:
    """The most likely architectures at a method's last row that is not past `step`.

    Returns:
      that row's step and int32 `[S, E]`; None where every row is past `step`.
    """
    rows = [r for r in metrics.read(folder.metrics) if r["stage"] == method and r["step"] <= step]
    if not rows:
        return None
    last = max(r["step"] for r in rows)
    of_seed = {r["seed"]: r for r in rows if r["step"] == last}
    probability = [
        [[float(of_seed[s][f"p/{a}-{b}/{name}"]) for name in space.names] for a, b in space.edges]
        for s in seeds
    ]
    return last, np.argmax(np.array(probability), axis=-1).astype(np.int32)
