# SPDX-License-Identifier: Apache-2.0
"""Programs that are killed, stopped or prolonged write what an unbroken run writes."""

import json
import random
import shutil
import signal
import subprocess
import time

import pytest

from jaxsafe.core import checkpoint
from jaxsafe.core.checks import UserError
from tests.core import toy

# As a program of its own: 60 rows, and a checkpoint at each, so that kills fall into writes too.
LONG = ["--stages=line,second", "--steps=30", "--log_every=1", "--checkpoint_every=1"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The long run, never stopped."""

    def make(out):
        done = toy.apart(*LONG, f"--out={out}")
        assert done.returncode == 0, done.stderr

    return toy.once(tmp_path_factory, "toy", make)


def interrupt(arguments, out, num_rows, signum, delay=0.0):
    """Starts the toy and sends a signal once metrics.jsonl has `num_rows`; returns the process."""
    process = subprocess.Popen(
        toy.command(*arguments),
        cwd=toy.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    path = out / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= num_rows:
            time.sleep(delay)
            process.send_signal(signum)
            break
        time.sleep(0.002)
    process.out, process.err = process.communicate(timeout=60)
    return process


def assert_equals(out, unbroken):
    for name in ("metrics.jsonl", "eval.jsonl"):
        assert (out / name).read_bytes() == (unbroken / name).read_bytes()
    summary, expected = (json.loads((x / "summary.json").read_text()) for x in (out, unbroken))
    assert summary["results"] == expected["results"]


def test_killed_three_times_at_random_a_run_writes_the_same_rows(unbroken, tmp_path):
    out, chance = tmp_path / "run", random.Random(7)
    arguments = [*LONG, f"--out={out}"]
    for low in (4, 44, 84):
        # Up to a tenth of a second later: about the time from one row to the next.
        at, delay = low + chance.randrange(30), chance.random() / 10
        process = interrupt(arguments, out, at, signal.SIGKILL, delay)
        assert process.returncode == -signal.SIGKILL
        arguments = ["--resume", f"--out={out}"]
        assert not (out / "summary.json").exists()
    assert toy.apart(*arguments).returncode == 0
    assert_equals(out, unbroken)


def test_killed_in_the_middle_of_a_checkpoint_a_run_writes_the_same_rows(unbroken, tmp_path):
    """The newest checkpoint gets the name of an unfinished one, and loses a part."""
    out = tmp_path / "run"
    process = interrupt([*LONG, f"--out={out}"], out, 20, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    saved = out / "checkpoints" / "line"
    last = checkpoint.steps(saved)[-1]
    half = saved / f"{last}.orbax-checkpoint-tmp"
    shutil.rmtree(half, ignore_errors=True)
    (saved / str(last)).rename(half)
    shutil.rmtree(half / "default")
    assert checkpoint.steps(saved) == [last - 1]
    assert toy.apart("--resume", f"--out={out}").returncode == 0
    assert_equals(out, unbroken)
    assert sorted(path.name for path in saved.iterdir()) == ["29", "30"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_says_so_and_sets_the_exit_code(unbroken, tmp_path, signum, code):
    out = tmp_path / "run"
    arguments = [*LONG, "--checkpoint_every=0", f"--out={out}"]
    process = interrupt(arguments, out, 20, signum)
    assert process.returncode == code and process.err == ""
    last = process.out.splitlines()[-1]
    step = checkpoint.steps(out / "checkpoints" / "line")[-1]
    name = signal.Signals(signum).name
    assert last == f"{name}: stopped line at step {step}; --resume goes on from there."
    assert (out / "log.txt").read_text().endswith(last + "\n") and 10 <= step < 30
    assert (out / "metrics.jsonl").read_bytes().count(b"\n") == 2 * step
    assert toy.here("--resume", f"--out={out}") == 0
    assert_equals(out, unbroken)


def test_resuming_a_finished_run_only_scores_again(unbroken, tmp_path, capsys):
    out = shutil.copytree(unbroken, tmp_path / "run")
    (out / "eval.jsonl").unlink()
    before = (out / "metrics.jsonl").read_bytes()
    stages = json.loads((out / "summary.json").read_text())["stages"]
    assert toy.here("--resume", f"--out={out}") == 0
    assert "compiled" not in capsys.readouterr().out
    # What training took stays known.
    assert json.loads((out / "summary.json").read_text())["stages"] == stages
    assert stages["line"]["run_s"] > 0
    assert (out / "metrics.jsonl").read_bytes() == before
    assert_equals(out, unbroken)


def test_a_nan_is_exit_code_1_and_one_line(tmp_path):
    done = toy.apart("--nan_at=12", f"--out={tmp_path}/run")
    assert done.returncode == 1
    assert done.stderr.startswith("error: line: loss/last of seed 0 is nan at step 15. The last")
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "run/summary.json").exists()


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path):
    out = tmp_path / "run"
    assert toy.here(f"--out={out}", "--steps=10") == 0
    assert toy.here(f"--out={out}", "--resume", "--steps=20") == 0
    assert toy.here(f"--out={tmp_path}/whole", "--steps=20") == 0
    assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    before = (out / "config.json").read_bytes()
    with pytest.raises(UserError, match="past the 10 asked for"):
        toy.here(f"--out={out}", "--resume", "--steps=10")
    assert (out / "config.json").read_bytes() == before


# In a namespace of its own, where anyone may mount: a disk that fills, then a read-only one.
ON_A_DISK = """
set -e
mount -t tmpfs -o size=2m,mode=700 none "$1"
shift
disk=$1; shift
"$@" --steps=10
head -c 4m /dev/zero > "$disk/ballast" 2>/dev/null || true
set +e
"$@" --resume --steps=30; echo "full: $?" >&2
rm "$disk/ballast"
mount -o remount,ro none "$disk"
"$@" --resume --steps=30; echo "read-only: $?" >&2
mount -o remount,rw none "$disk"
set -e
"$@" --resume --steps=30
cp -r "$disk/run" "$disk.kept"
"""


def test_a_disk_that_is_full_and_one_that_is_read_only_lose_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    apart = ["unshare", "--user", "--map-root-user", "--mount"]
    trial = [*apart, "mount", "-t", "tmpfs", "none", str(disk)]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("this system lets no one mount a disk of their own")
    run = toy.command("--log_every=5", "--checkpoint_every=5", f"--out={disk}/run")
    script = [*apart, "sh", "-c", ON_A_DISK, "sh", str(disk), str(disk), *run]
    done = subprocess.run(script, cwd=toy.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line for line in done.stderr.splitlines() if "error: " in line or line[-3:] == ": 2"]
    assert len(told) == 4 and [told[1], told[3]] == ["full: 2", "read-only: 2"], done.stderr
    assert "(No space left on device): free space" in told[0] and "Traceback" not in done.stderr
    assert "(Read-only file system): free space or make the folder writable" in told[2]
    whole, kept = tmp_path / "whole", tmp_path / "disk.kept"
    rest = ["--log_every=5", "--checkpoint_every=5", "--steps=30", f"--out={whole}"]
    assert toy.here(*rest) == 0
    assert (kept / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (kept / "eval.jsonl").read_bytes() == (whole / "eval.jsonl").read_bytes()
