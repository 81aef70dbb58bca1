# SPDX-License-Identifier: Apache-2.0
"""What each ingredient of M2TD3+ is worth: the demo's settings with one thing changed at a time.

Every row trains the same seeds on InvertedPendulum-2 (in closed form) and scores the final iterate
in MuJoCo C.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

from benchmarks import timing

FLAGS = flags.FLAGS
flags.DEFINE_integer("seed", 300, "The first seed.")
flags.DEFINE_integer("num_seeds", 6, "How many.")
flags.DEFINE_integer("steps", 8000, "Iterations.", lower_bound=65)
flags.DEFINE_integer("episodes", 3, "Episodes a grid point.", lower_bound=1)
flags.DEFINE_bool("resume", False, "Keep the rows that an earlier call of these settings left.")
flags.DEFINE_list("only", [], "Names of the rows to measure; all by default.")

# What a row is called, and the flags that make it.
ROWS = {
    "M2TD3+": (),
    "raw omega in the critics": ("--algo.normalise_omega=false",),
    "raw restart distance": ("--algo.normalise_distance=false",),
    "raw observations": ("--algo.scale_obs=false",),
    "time limits terminate": ("--algo.bootstrap_truncation=false",),
    "omega noise never falls": ("--algo.anneal_omega_noise=false",),
    "no LayerNorm": ("--algo.critic_layer_norm=false",),
    "critics of unit scale": ("--algo.critic_scale=1", "--algo.critic_offset=0"),
    "level actor rate": ("--algo.actor_schedule=constant",),
    "last actor, not averaged": ("--algo.actor_mean_rate=1",),
    "worst candidate alone": ("--algo.average_weight=0",),
    "average alone": ("--algo.average_weight=1",),
    "CVaR 25% in place of the average": ("--algo.cvar_level=0.25",),
    "worst candidate and CVaR 25%, half each": (
        "--algo.cvar_level=0.25",
        "--algo.average_weight=0.5",
    ),
    "candidates checked by rollouts": ("--algo.check_interval=500",),
    "worst candidate alone, checked": ("--algo.average_weight=0", "--algo.check_interval=500"),
    "omega drawn anew within episodes": ("--algo.omega_redraw=0.2",),
    "no uniform omegas": ("--algo.uniform_omegas=0",),
    "the task's own starts": ("--algo.exploring_starts=0",),
    "episodes of 1000 steps": ("--algo.episode_steps=0",),
    "published smoothing of actions": ("--algo.policy_noise=0.2", "--algo.noise_clip=0.5"),
    "published smoothing of omega": ("--algo.target_omega_noise=0.2",),
}
NOTE = (
    "M2TD3+ on InvertedPendulum-2 with one thing changed: worst return on the 10 x 10 grid in "
    "MuJoCo C, final iterate"
)


def measure(name: str) -> dict:
    """Trains and scores one row in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "experiments.m2td3", "--engine=analytic", "--noprogress"),
            *("--methods=m2td3_plus", f"--seed={FLAGS.seed}", f"--num_seeds={FLAGS.num_seeds}"),
            *(f"--algo.total_steps={FLAGS.steps}", f"--eval.episodes={FLAGS.episodes}"),
            *(f"--out={folder}", "--overwrite", *ROWS[name]),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (result,) = json.loads(pathlib.Path(folder, "summary.json").read_text())["results"]
    return {
        "what": name,
        "flags": " ".join(ROWS[name]),
        "worst_iqm": result["worst_iqm"],
        "worst_mean": result["worst_mean"],
        "worst_min": result["worst_min"],
        "average_mean": result["average_mean"],
        "worst_per_seed": " ".join(f"{x:.0f}" for x in result["worst_per_seed"]),
    }


def main(argv):
    """Measures and writes `results/m2td3_ablation.json`, anew after each row."""
    del argv
    unknown = [name for name in FLAGS.only if name not in ROWS]
    if unknown:
        print(f"error: --only={unknown[0]} is no row: choose among {', '.join(ROWS)}.")
        sys.exit(2)
    seeds = f"seeds {FLAGS.seed} to {FLAGS.seed + FLAGS.num_seeds - 1}"
    note = f"{NOTE}; {seeds}, {FLAGS.steps} iterations, {FLAGS.episodes} episodes a point"
    rows = earlier(note) if FLAGS.resume else []
    done = {row["what"] for row in rows}
    for name in (name for name in FLAGS.only or ROWS if name not in done):
        print(f"measuring: {name} ...", file=sys.stderr)
        rows.append(measure(name))
        timing.write("m2td3_ablation", rows, note)


def earlier(note: str) -> list[dict]:
    """The rows that an earlier call has left, if it was one like this."""
    path = timing.RESULTS / "m2td3_ablation.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    if found["note"] != note:
        print(f"error: {path} is of other settings ({found['note']}): leave out --resume.")
        sys.exit(2)
    return found["rows"]


if __name__ == "__main__":
    app.run(main)
