# SPDX-License-Identifier: Apache-2.0
"""The report from the command line to what a browser shows of it."""

import json
import os
import re
import shutil
import subprocess

import pytest
from PIL import Image

from tests.core import toy
from tests.core.test_pages import complete, picture

from . import binaries
from . import test_advantage_nas as nas

MODULE = "experiments.report"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
_PLAIN = ("--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr")
# Set by .ci/run where it has a browser: there no test of it may be skipped.
PROMISED = bool(os.environ.get("JAXSAFE_BROWSER_PROMISED"))
needs_browser = pytest.mark.skipif(
    BROWSER is None and not PROMISED, reason="needs Debian's package chromium"
)


def film(path):
    """Two frames, both cyan but for a pixel, without which they would be one."""
    frames = [Image.new("RGB", (60, 40), (0, 255, 255)) for _ in range(2)]
    frames[1].putpixel((0, 0), (0, 0, 0))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A page over a real run, two others by hand, and one that is damaged."""
    out = tmp_path_factory.mktemp("report")
    assert toy.here("--stages=line,other", f"--out={out / 'runs' / 'real'}") == 0
    picture(out / "runs" / "real" / "plots" / "map.png")
    film(out / "runs" / "real" / "plots" / "film.gif")
    complete(out / "runs" / "by_hand" / "one", toy.Config(lr=0.25))
    complete(out / "runs" / "by_hand" / "two", name="a stage")
    (out / "runs" / "damaged").mkdir()
    (out / "runs" / "damaged" / "config.json").write_text("{")
    done = binaries.run(MODULE, f"--runs={out / 'runs'}", f"--out={out / 'page.html'}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "3 runs, 3 of them complete" and lines[-1] == f"page: {out / 'page.html'}"
    assert lines[1].startswith("left out damaged: ")
    return out


def browse(page, tmp_path, *arguments):
    """Opens a page in headless Chromium; returns what it printed, and the console's lines."""
    assert BROWSER, "JAXSAFE_BROWSER_PROMISED is set, and no chromium is on the path"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to be root with one
    done = subprocess.run(
        [BROWSER, "--headless", *sandbox, *_PLAIN, profile, *arguments, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@needs_browser
def test_a_browser_shows_tables_and_figures_and_complains_of_nothing(folder, tmp_path):
    dom, console = browse(folder / "page.html", tmp_path, "--dump-dom")
    assert console == []
    # Of each run: scores or none, two metrics or one, a picture; of one a film.
    assert dom.count("</figure>") == dom.count("<img") == (0 + 2 + 2) + 2 * (1 + 1 + 1)
    # Overview, what was not read, differences, results together; of each run results and stages,
    # and of those with lists the seeds.
    assert dom.count("<table>") == 4 + 3 * 2 + 2
    headings = re.findall(r"<h([1-4])>(.*?)</h\1>", dom)
    assert ("2", "toy") in headings and ("3", "by_hand/two") in headings
    assert {("4", "Results"), ("4", "Training"), ("4", "Pictures")} <= set(headings)
    assert "<mark>line, other</mark>" in dom and "3 [1.3" in dom


@needs_browser
def test_a_browser_draws_the_pictures(folder, tmp_path):
    """The runs' pictures are all magenta, the film cyan; the page's own curves are blue."""
    shot = tmp_path / "shot.png"
    for scheme in ([], ["--blink-settings=preferredColorScheme=0"]):
        size = "--window-size=1200,6000"
        _, console = browse(folder / "page.html", tmp_path, f"--screenshot={shot}", size, *scheme)
        assert console == []
        image = Image.open(shot).convert("RGB")
        counts = {color: n for n, color in image.getcolors(2**24)}
        assert counts[255, 0, 255] >= 3 * 60 * 40  # three runs have one of 60 x 40
        assert counts[0, 255, 255] >= 60 * 40 - 1
        assert counts[0, 0x72, 0xB2] > 1000
        back = max(counts, key=counts.get)
        assert back == ((0x16, 0x19, 0x1D) if scheme else (255, 255, 255))


@needs_browser
def test_a_browser_shows_what_a_systems_binary_left(tmp_path_factory, tmp_path):
    name, page = "advantage_nas", tmp_path / "page.html"
    run = binaries.unbroken(tmp_path_factory, name, nas.MODULE, nas.TOY)
    shutil.copytree(run, tmp_path / "runs" / name)
    done = binaries.run(MODULE, f"--runs={tmp_path / 'runs'}", f"--out={page}")
    assert done.returncode == 0, done.stderr
    dom, console = browse(page, tmp_path, "--dump-dom")
    assert console == [] and dom.count("</figure>") == dom.count("<img") > 3
    alone = [path for path in (run / "plots").iterdir() if path.name not in dom]
    methods = {row["method"] for row in json.loads((run / "summary.json").read_text())["results"]}
    assert not alone and methods == {"advantage", "rloo"} and all(x in dom for x in methods)


@needs_browser
def test_the_console_would_be_heard(tmp_path):
    """What the test above relies on: a page that breaks its own policy is complained of."""
    page = tmp_path / "bad.html"
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    page.write_text(f"<!DOCTYPE html><html><head>{policy}</head><body><script>1</script></body>")
    _, console = browse(page, tmp_path, "--dump-dom")
    assert len(console) == 1 and "Content Security Policy" in console[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs=/nowhere"], "error: --runs=/nowhere is no folder: give one that holds run"),
        (["--run=runs"], "Unknown flag --run. Did you mean --runs?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments, message):
    page = f"--out={tmp_path / 'page.html'}"
    done = binaries.run(MODULE, f"--runs={tmp_path}", page, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())
