# SPDX-License-Identifier: Apache-2.0
"""How far labels drift that MJX replays from an episode's start, by world, gap level and horizon.

The target is MuJoCo C with the level's physics; actions are logged random behaviour, as in a run.
Nothing is learned, and no picture is looked at.
"""

from absl import app, flags

from benchmarks import timing

FLAGS = flags.FLAGS
WORLDS = ("reacher", "hopper", "half_cheetah", "breakout")
flags.DEFINE_list("worlds", list(WORLDS), "Source worlds.")
flags.DEFINE_list("levels", ["0", "2", "3"], "Gap levels; 1 has the physics of 0.")
flags.DEFINE_integer("episodes", 100, "Episodes of each.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of starts and actions.")
STEPS = (1, 10, 20, 49, 99, 199)


def measure(name: str, level: int) -> dict:
    """One world at one level: errors at horizons, in the source's standard deviations."""
    import jax
    import numpy as np

    from jaxsafe.image_to_semantics import collect, evaluate, worlds
    from jaxsafe.image_to_semantics.collect import Recipe

    world = worlds.make(name)
    # One pixel an image: none is looked at.
    data = collect.collect(Recipe(name, level, FLAGS.seed), FLAGS.episodes, size=(1, 1))
    source = worlds.source_episodes(world, 200, jax.random.key(FLAGS.seed))
    std = np.asarray(source.semantics).reshape(-1, world.size).std(0)
    drift = evaluate.label_drift(world, data, np.where(std > 1e-6, std, 1.0))
    row: dict = {"world": name, "level": level, "mean length": float(data.lengths.mean())}
    return row | {f"t = {t}": float(drift[t]) if t < len(drift) else None for t in STEPS}


def main(argv):
    """Measures and writes `results/label_drift.json`."""
    del argv
    from jaxsafe.image_to_semantics import worlds

    rows = []
    for name in FLAGS.worlds:
        for level in map(int, FLAGS.levels):
            if name in worlds.BODIES or level < 2:
                rows.append(measure(name, level))
    timing.write(
        "label_drift",
        rows,
        "root mean square error of labels that MJX replays t steps from an episode's start, in "
        f"standard deviations of the source's semantics; {FLAGS.episodes} episodes each",
    )


if __name__ == "__main__":
    app.run(main)
