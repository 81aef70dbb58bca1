# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks one after the other, and makes one page and one picture of their results.

Each writes `results/NAME.json`, as it does by itself. The page holds the tables of all of them,
those not measured now included, and beside each row of ours the ratio of its rate to that of a peer
measured in the same run.

    python -m benchmarks.run --peers                 # everything, beside other libraries
    python -m benchmarks.run --only=cdt,pls_search   # two of them, ours alone
    python -m benchmarks.run --tables                # the page anew from results that are there
"""

import pathlib
import subprocess
import sys

from absl import app, flags

from benchmarks import timing
from benchmarks.kernels import KERNELS, PICTURE, page, picture, read

FLAGS = flags.FLAGS
flags.DEFINE_list("only", [], "Benchmarks to run; all by default.")
flags.DEFINE_bool("peers", False, "Measure other libraries in the same run.")
flags.DEFINE_bool("tables", False, "Measure nothing: only write page and picture.")
flags.DEFINE_string("out", "", "Folder of page and picture; by default that of the results.")


def main(argv):
    """Measures what is asked for; writes `benchmarks.md` and `benchmarks.png`."""
    del argv
    unknown = [name for name in FLAGS.only if name not in KERNELS]
    if unknown:
        print(f"error: --only={unknown[0]} is no benchmark: choose among {', '.join(KERNELS)}.")
        sys.exit(2)
    names = FLAGS.only or list(KERNELS)
    failed = []
    for name in () if FLAGS.tables else names:
        given = () if FLAGS.peers else KERNELS[name].alone
        print(f"== {name}", flush=True)
        if subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *given], check=False
        ).returncode:
            failed.append(name)
    found = read(KERNELS)  # those not measured now too, or the page would lose them
    if not found:
        print(f"error: no results in {timing.RESULTS}: leave out --tables to measure some.")
        sys.exit(2)
    out = pathlib.Path(FLAGS.out or timing.RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in KERNELS if name not in found]
    (out / "benchmarks.md").write_text(page(found, missing))
    print(f"written: {out / 'benchmarks.md'}, {picture(out / PICTURE, found)}")
    if failed:
        print(f"error: these ended early, their tables are of an earlier run or absent: {failed}")
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
