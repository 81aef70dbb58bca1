# SPDX-License-Identifier: Apache-2.0
"""What each method had found when the quickest one ended: methods at the same wall-clock.

Every method runs the same number of search steps, which cost different times. These are measured
after the searches, a few steps of every method in turn and the least of some rounds, so that what
else the machine does falls on all alike; theta's way stands in the run's rows, so the architecture
of any row can be told afterwards. Random search picks among architectures by the supernet's last
weights, so of it only the end is known.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.advantage_nas.config import Config
from jaxsafe.advantage_nas.space import Space
from jaxsafe.core import metrics, parallel, program, run
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Stage
from jaxsafe.core.run import Folder

_STEPS, _ROUNDS = 10, 7


class Pace(NamedTuple):
    """Seconds that one search step takes, of one seed on one device, compilation apart.

    Attributes:
      rest: while theta rests.
      move: once it moves.
    """

    rest: float
    move: float

    def seconds(self, config: Config) -> float:
        """Of a whole search."""
        rest, total = config.freeze_steps, config.total_steps
        return rest * self.rest + (total - rest) * self.move

    def steps_in(self, seconds: float, config: Config) -> int:
        """Whole steps of a search that are done after so many seconds."""
        resting = min(seconds / self.rest, config.freeze_steps)
        moving = max(seconds - config.freeze_steps * self.rest, 0.0) / self.move
        # Rounding must not cost the quickest one its last step.
        return min(int((resting + moving) * (1 + 1e-9)), config.total_steps)


def paces(folder: Folder, stages: Sequence[Stage], config: Config) -> dict[str, Pace]:
    """Of each method, by its stage's name; kept in the run folder, and measured but once.

    Args:
      folder: of the run.
      stages: one per method.
      config: of the search.
    """
    if folder.step_times.exists():
        kept = json.loads(folder.step_times.read_text())
        if all(stage.name in kept for stage in stages):
            return {stage.name: Pace(**kept[stage.name]) for stage in stages}
    found = measure(stages, config.freeze_steps)
    run.write_json(folder.step_times, {name: pace._asdict() for name, pace in found.items()})
    return found


def measure(
    stages: Sequence[Stage], freeze_steps: int, steps: int = _STEPS, rounds: int = _ROUNDS
) -> dict[str, Pace]:
    """The least seconds of a step, over `rounds` in which all stages do `steps` in turn."""
    options = RunOptions(num_seeds=1)
    built = [program.build(stage, options, parallel.seed_mesh(1)) for stage in stages]
    states: dict[tuple[str, int], Any] = {}
    least: dict[tuple[str, int], float] = {}
    for _ in range(1 + rounds):  # one to compile
        for first in {0, freeze_steps}:
            for p in built:
                at = p.stage.name, first
                if at not in states:
                    fresh = p.init(p.keys())
                    states[at] = fresh.replace(step=fresh.step + first)
                    p.chunk(steps)
                    least[at] = np.inf
                clock = time.perf_counter()
                states[at], told = p.chunk(steps)(states[at], jnp.int32(first))
                jax.block_until_ready(told)
                least[at] = min(least[at], (time.perf_counter() - clock) / steps)
    return {s.name: Pace(least[s.name, 0], least[s.name, freeze_steps]) for s in stages}


def steps_within(found: Mapping[str, Pace], config: Config) -> dict[str, int]:
    """Steps that each method had done when the quickest one had done all of its own."""
    budget = min(pace.seconds(config) for pace in found.values())
    return {name: pace.steps_in(budget, config) for name, pace in found.items()}


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
