# SPDX-License-Identifier: Apache-2.0
"""Pages over runs: what is read, what is said of it, and that no text of a run does harm."""

import base64
import html.parser
import io
import itertools
import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxsafe.core import metrics, run
from jaxsafe.core.checks import UserError
from jaxsafe.core.pages import figures, page, runs, sections
from tests.core import toy
from tests.core.test_run import make_run

HOSTILE = (
    "$x^{$\u4e2d\ud800\x07"
    + """</script><script>alert(1)</script>"'><img src=x onerror=alert(2)>&amp;"""
)
SCORES = [3.0, 1.0, 2.0, 10.0, 4.0]


def picture(path, color=(255, 0, 255)):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (60, 40), color).save(path)


def rows(stage, steps=6, seeds=5):
    y = np.random.default_rng(len(stage)).normal(size=(steps, seeds)).cumsum(0)
    return [
        {"stage": stage, "step": 10 * (t + 1), "seed": s, "samples": 160 * (t + 1), "loss": y[t, s]}
        for t in range(steps)
        for s in range(seeds)
    ]


def finish(path, found):
    """Gives a folder of `make_run` the summary of a complete run."""
    stages = {"line": {"steps": 60, "run_s": 90.0, "rate": 12.5, "unit": "samples/s"}}
    run.write_summary(run.Folder(path), "toy", stages, found, "python -m toy")
    return path


def complete(path, config=None, name="line", value=SCORES, **options):
    """A run folder as a binary leaves it."""
    make_run(path, config, num_seeds=5, **options)
    metrics.append(path / "metrics.jsonl", rows(name))
    picture(path / "plots" / "worst_case.png")
    row = {"method": name, "score_per_seed": value, "score_mean": 4.0, "points": 7}
    return finish(path, [row, row | {"method": "other"}])


def write(tmp_path, **options):
    """The page over everything below `tmp_path / "runs"`."""
    options = page.PageOptions(str(tmp_path / "runs"), str(tmp_path / "page.html"), **options)
    page.write(options)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


class Reader(html.parser.HTMLParser):
    """Elements with their attributes, and the text outside of styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside != "style":
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_runs_are_found_at_any_depth_and_only_runs(tmp_path):
    complete(tmp_path / "b" / "deep")
    complete(tmp_path / "a")
    inner = tmp_path / "a" / "checkpoints" / "line"
    make_run(inner)  # what lies in a run is its own
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found, faults = runs.find(tmp_path)
    assert [r.name for r in found] == ["a", "b/deep"] and faults == {}
    assert runs.find(tmp_path / "a")[0][0].name == "a"


def test_what_cannot_be_read_is_told_and_the_rest_is_read(tmp_path):
    for name, text in {
        "cut": '{"schema": 1, "sys',
        "newer": '{"schema": 99, "system": "toy", "options": {}, "config": {}}',
        "list": '{"schema": 1, "system": "toy", "options": [], "config": {}}',
        "deep": "[" * 100_000,
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "lost").mkdir()
    for name in ("log.txt", "metrics.jsonl"):
        (tmp_path / "lost" / name).touch()
    damaged = complete(tmp_path / "damaged")
    (damaged / "metrics.jsonl").write_text("not json\n")
    half = complete(tmp_path / "half")
    (half / "summary.json").write_text('{"results": [1]}')
    with (half / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "line", "st')  # a kill
    found, faults = runs.find(tmp_path)
    assert set(faults) == {"cut", "newer", "list", "deep", "lost"}
    assert "schema 99" in faults["newer"] and "no config.json" in faults["lost"]
    one, other = found
    assert "line 1, is damaged" in one.faults[0] and one.summary and not one.curves
    assert other.faults == ("summary.json cannot be read: it has no list of results",)
    assert other.summary is None and other.last == {"line": 60}
    assert sections.status(other) == "unfinished: line at step 60"


def test_curves_are_the_rows_and_gaps_are_nan(tmp_path):
    path = make_run(tmp_path / "r")
    table = [
        {"stage": "a", "step": 10, "seed": 4, "x": 1.0},
        {"stage": "a", "step": 10, "seed": 3, "x": 2.0, "y": "inf"},
        {"stage": "a", "step": 20, "seed": 3, "x": 3.0},
        {"stage": "b", "step": 5, "seed": 3, "y": "nan"},
    ]
    metrics.append(path / "metrics.jsonl", table)
    found = runs.read(path, "r")
    steps, x = found.curves["x"]["a"]
    np.testing.assert_array_equal(steps, [10, 20])
    np.testing.assert_array_equal(x, [[2, 3], [1, np.nan]])
    assert found.curves["y"]["a"][1][0, 0] == math.inf and list(found.curves["x"]) == ["a"]
    assert found.last == {"a": 20, "b": 5}


def test_changed_fields_are_marked_and_equal_ones_are_not_listed(tmp_path):
    complete(tmp_path / "runs" / "a", toy.Config(lr=0.25))
    record = tmp_path / "runs" / "a" / "config.json"
    text = record.read_text().replace('"python -m toy"', '"python -m toy --lr=0.25"')
    record.write_text(text)
    complete(tmp_path / "runs" / "b")
    told = sections.differences(runs.find(tmp_path / "runs")[0])
    assert "<mark>0.25</mark>" in told and "<td>0.05</td>" in told
    assert "width" not in told
    same = sections.differences(runs.find(tmp_path / "runs" / "b")[0])
    assert same == "<p>Every run has the values of its preset.</p>"


def test_counters_are_not_drawn_and_the_number_of_panels_has_a_limit(tmp_path):
    path = complete(tmp_path / "runs" / "a")
    extra = [row | {f"m{i}": row["loss"] + i for i in range(3)} for row in rows("line")]
    (path / "metrics.jsonl").unlink()
    metrics.append(path / "metrics.jsonl", extra)
    text = write(tmp_path, max_curves=2)
    alts = [a["alt"] for a in Reader(text).all("img")]
    assert [a.split(" of ")[0] for a in alts if "over steps" in a] == ["loss", "m0"]
    assert "Not drawn: m1, m2 (--max_curves=4 draws all)." in text
    assert "over steps" not in write(tmp_path, max_curves=0)


def test_the_page_stands_by_itself_and_can_be_read_aloud(tmp_path):
    complete(tmp_path / "runs" / "a")
    complete(tmp_path / "runs" / "b", seed=9)
    read = Reader(write(tmp_path))
    assert not {"script", "iframe", "object", "embed", "form"} & {t for t, _ in read.elements}
    for tag, attributes in read.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), tag
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in read.all("a")} <= set(ids)
    assert len(read.all("img")) == 6 and all(len(a["alt"]) > 10 for a in read.all("img"))
    assert len(read.all("caption")) == len(read.all("table")) == 8
    assert all(a["scope"] in ("row", "col") for a in read.all("th"))
    levels = [int(t[1]) for t, _ in read.elements if t in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert read.all("html") == [{"lang": "en"}]


@pytest.mark.parametrize("where", ["folder", "rows", "results", "record", "summary"])
def test_text_of_a_run_stays_text(tmp_path, where):
    name = HOSTILE.replace("/", "").replace("\ud800", "") if where == "folder" else "a"
    path = make_run(tmp_path / "runs" / name, num_seeds=5)
    stage = HOSTILE if where == "rows" else "line"
    metrics.append(path / "metrics.jsonl", [r | {stage: 2 * r["loss"]} for r in rows(stage)])
    row = {"method": "a", "score_per_seed": SCORES}
    if where == "results":
        row = {"method": HOSTILE, f"{HOSTILE}_per_seed": SCORES, HOSTILE: [HOSTILE]}
    finish(path, [row, row | {"n": 1}])
    for file, fields in {
        "config.json": ("system", "command", "device", "versions", "config", "options", "git"),
        "summary.json": ("status", "stages"),
    }.items():
        if where in file.replace("config", "record"):
            body = json.loads((path / file).read_text())
            for field in fields:
                spread = {HOSTILE: {HOSTILE: HOSTILE}, "preset": HOSTILE}
                body[field] = spread if isinstance(body[field], dict) else HOSTILE
            (path / file).write_text(json.dumps(body))
    text = write(tmp_path)
    read = Reader(text)
    assert "script" not in {t for t, _ in read.elements}
    assert not any(key.startswith("on") for _, a in read.elements for key in a)
    assert "alert(1)" in "".join(read.texts)
    assert all(a["src"].startswith("data:") for a in read.all("img"))
    assert "\x07" not in text


def test_films_are_played_and_what_is_too_large_is_named(tmp_path):
    path = complete(tmp_path / "runs" / "a")
    (path / "plots" / "film.mp4").write_bytes(b"0" * 100)
    (path / "plots" / "viewer.html").write_text("<script>alert(1)</script>")
    (path / "plots" / "large.png").write_bytes(b"0" * 300_000)
    text = write(tmp_path, max_mb=0.1)
    (film,) = Reader(text).all("video")
    assert film["src"].startswith("data:video/mp4;base64,") and film["aria-label"]
    assert "not embedded: large.png (0.3 MB), viewer.html (0.0 MB)." in text


def test_figures_are_the_same_bytes_and_follow_the_readers_colours():
    x, y = np.arange(500.0), np.random.default_rng(0).normal(size=(3, 500))
    one, two = (figures.curve_panel("loss", {"a": (x, y)}, ["a"]) for _ in range(2))
    assert one == two and b"prefers-color-scheme: dark" in one and b"loss" in one
    assert b"#ffffff" not in one  # nothing white behind it
    kept, values = figures.thin(x, y)
    assert len(kept) == figures.MOST_POINTS and kept[0] == 0 and kept[-1] == 499
    np.testing.assert_array_equal(values, y[:, kept.astype(int)])


def test_only_reports_are_replaced_and_nothing_is_left_behind(tmp_path):
    complete(tmp_path / "runs" / "a")
    write(tmp_path)
    before = (tmp_path / "page.html").stat().st_ino
    write(tmp_path)  # ours
    assert (tmp_path / "page.html").stat().st_ino != before
    (tmp_path / "page.html").write_text("<html>a diary</html>")
    with pytest.raises(UserError, match="exists and is no report: choose another, or add --ov"):
        write(tmp_path)
    assert (tmp_path / "page.html").read_text() == "<html>a diary</html>"
    assert "a diary" not in write(tmp_path, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "runs"]
    shutil.rmtree(tmp_path / "runs" / "a")
    with pytest.raises(UserError, match="holds no run folder"):
        write(tmp_path)
    with pytest.raises(UserError, match="is no folder: give one that holds run folders"):
        page.write(page.PageOptions(str(tmp_path / "page.html"), str(tmp_path / "x.html")))
    with pytest.raises(UserError, match=r"page.html is in no folder that exists"):
        page.write(page.PageOptions(str(tmp_path), str(tmp_path / "none" / "page.html")))
    with pytest.raises(UserError, match="is a folder: give a file"):
        page.write(page.PageOptions(str(tmp_path), str(tmp_path / "runs")))


def test_a_picture_that_goes_while_the_page_is_made_is_named(tmp_path):
    path = complete(tmp_path / "a")
    found = runs.read(path, "a")
    shutil.rmtree(path / "plots")
    assert "worst_case.png (unreadable)" in sections.one_run(found, "x", 0, 20.0)


def test_png_files_are_embedded_as_they_are(tmp_path):
    path = complete(tmp_path / "runs" / "a")
    picture(path / "plots" / "worst_case.png", (1, 2, 3))
    (source,) = (a["src"] for a in Reader(write(tmp_path)).all("img") if "picture of" in a["alt"])
    image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert image.getpixel((0, 0)) == (1, 2, 3)
