# SPDX-License-Identifier: Apache-2.0
"""Every kind of file that the library reads from others, damaged at random.

python -m tests.data.fuzz FOLDER SEED NUMBER [KIND ...]

Prints how many damaged files of each kind were read and how many were refused by name; whatever is
neither ends the process. A process of its own, as a fault in a C library would end it.
"""

import collections
import gzip
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.data import image_episodes, image_files, preferences, trajectories
from jaxsafe.lm import hf, tensors
from jaxsafe.tsdi import table_file
from jaxsafe.tsdi.types import Table
from tests.data import damage, test_image_episodes, test_images, test_preferences
from tests.lm import models


class Subject(NamedTuple):
    """One kind of file.

    Attributes:
      good: whole ones, by the names they are to have, one of which is damaged at a time.
      read: reads `(folder, name of the damaged one)`; asserts what holds of all that is read.
      structure: `(generator, path)` writes a file that is sound and of wrong content, if it can.
    """

    good: dict[str, bytes]
    read: Callable[[pathlib.Path, str], None]
    structure: Callable[[np.random.Generator, pathlib.Path], None] | None = None


def _files(make: Callable[[pathlib.Path], object]) -> dict[str, bytes]:
    """What `make` leaves in a folder."""
    with tempfile.TemporaryDirectory() as name:
        make(pathlib.Path(name))
        return {path.name: path.read_bytes() for path in sorted(pathlib.Path(name).iterdir())}


def _trajectories() -> Subject:
    def make(folder: pathlib.Path) -> None:
        data = trajectories.build(damage.columns())
        extra = {"info/x": np.ones(3)}
        trajectories.save(folder / "ours.hdf5", data, {"env_id": "x", "seed": 1}, extra)
        damage.write(folder / "b.hdf5", damage.columns(), env_id="x", many=np.arange(3))

    def read(folder: pathlib.Path, name: str) -> None:
        got = trajectories.load(folder / name, trailing="keep").trajectories
        assert np.isfinite(got.observations).all() and len(got.ends)

    return Subject(_files(make), read, damage.damage_structure)


def _episodes() -> Subject:
    def make(folder: pathlib.Path) -> None:
        image_episodes.save(
            folder / "x.hdf5", image_episodes.build(test_image_episodes.columns()), {"task": "arm"}
        )

    def read(folder: pathlib.Path, name: str) -> None:
        loaded, _ = image_episodes.load(folder / name)
        assert loaded.lengths.sum() == len(loaded.images) == len(loaded.actions)
        assert np.isfinite(loaded.actions).all() and (loaded.lengths >= 1).all()

    return Subject(_files(make), read)


def _tensors() -> Subject:
    def make(folder: pathlib.Path) -> None:
        rng = np.random.default_rng(0)
        arrays = {f"x{i}": rng.normal(size=(2, i)).astype(np.float32) for i in range(4)}
        tensors.write_file(folder / "x.safetensors", damage.pending(arrays))

    def read(folder: pathlib.Path, name: str) -> None:
        for stored in tensors.read_file(folder / name).values():
            assert stored.open().shape == stored.shape

    return Subject(_files(make), read, damage.damage_header)


def _model() -> Subject:
    """Four files of one model: its config, two of weights, and their index."""
    config = models.FAMILIES["qwen2"]
    good = _files(lambda folder: hf.save(folder, config, models.params(config), shard_bytes=20_000))
    assert len(good) > 3

    def read(folder: pathlib.Path, name: str) -> None:
        got, params = hf.load(folder, dtype="float32")
        assert (
            jax.tree.leaves(params)[0].ndim
            and got.num_layers == params["layers"]["o"]["kernel"].shape[0]
        )

    def structure(rng: np.random.Generator, path: pathlib.Path) -> None:
        if path.suffix == ".json":
            damage.damage_json(rng, path)
        else:
            damage.damage_header(rng, path)

    return Subject(good, read, structure)


def _jsonl() -> Subject:
    t = test_preferences
    records = {"pku": t.PKU, "judged": t.JUDGED, "hh": t.HH, "labelled": t.LABEL}
    records["pairs"] = {"prompt": "p\u2028", "chosen": "a", "rejected": "b"}
    records["ranked"] = {"prompt": "p", "response": ["a", "b"]}
    good = {}
    for name, record in records.items():
        text = "".join(json.dumps(record, ensure_ascii=bool(i)) + "\n" for i in range(3)).encode()
        good[f"{name}.jsonl"], good[f"{name}.jsonl.gz"] = text, gzip.compress(text)
    good["list.json"] = json.dumps([t.PKU, t.PKU]).encode()

    def read(folder: pathlib.Path, name: str) -> None:
        wanted = name.startswith("labelled")
        reader = preferences.read_labelled if wanted else preferences.read_pairs
        got = reader(folder / name)
        sides = preferences.split(got.rows, 0.5)
        assert sum(map(len, sides)) == got.report.rows

    def structure(rng: np.random.Generator, path: pathlib.Path) -> None:
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(damage.damage_bytes(rng, good[path.stem])))
        else:
            damage.damage_json(rng, path)

    return Subject(good, read, structure)


def _idx() -> Subject:
    """Images and their labels, plain and zipped."""
    images = test_images.idx(np.arange(960).reshape(40, 4, 6) % 256)
    labels = test_images.idx(np.arange(40) % 10)
    good = {"images": images, "labels": labels}
    good |= {f"{name}.gz": gzip.compress(content) for name, content in good.items()}

    def read(folder: pathlib.Path, name: str) -> None:
        kind, dot, ending = name.partition(".")
        assert image_files.read_idx(folder / name, 3 if kind == "images" else 1).dtype == np.uint8
        part = image_files.idx_part(*(folder / f"{x}{dot}{ending}" for x in ("images", "labels")))
        assert part.images.shape[0] == len(part.labels)

    return Subject(good, read)


def _cifar() -> Subject:
    """A binary and a pickled file, and tar archives of pickled ones, plain and zipped."""
    t, members = test_images, ("train", "test")
    inner = t.cifar_files("cifar100", False)
    good = {"binary": t.binary_file(), "python": t.python_file()}
    good |= _files(lambda folder: t.tar(folder / "x.tar.gz", inner))
    good |= _files(lambda folder: t.tar(folder / "x.tar", inner, mode="w"))

    def read(folder: pathlib.Path, name: str) -> None:
        path, parts = folder / name, []
        if name.startswith("x.tar"):
            for member, content in image_files.read_members(path, members).items():
                parts.append(image_files.cifar_python(path / member, content, 100))
        else:
            reader = getattr(image_files, f"cifar_{name}")
            parts.append(reader(path, path.read_bytes(), 10))
        for part in parts:
            assert part.images.shape == (len(part.labels), 32, 32, 3)

    def structure(rng: np.random.Generator, path: pathlib.Path) -> None:
        if path.name == "binary":
            path.write_bytes(damage.damage_bytes(rng, good["binary"]))
        elif path.name == "python":
            path.write_bytes(damage.damage_pickle(rng, good["python"]))
        else:
            chosen = members[rng.integers(2)]
            files = inner | {chosen: damage.damage_pickle(rng, inner[chosen])}
            t.tar(path, files, mode="w:gz" if path.suffix == ".gz" else "w")

    return Subject(good, read, structure)


def _tables() -> Subject:
    made = table_file.Made("s1", "r1", "t1", "USER: {input}", draws=64, pool="words.txt", seed=3)
    values = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)

    def make(folder: pathlib.Path) -> None:
        table_file.save(folder / "x.safetensors", Table(values, np.abs(values), "logprob"), made)

    def read(folder: pathlib.Path, name: str) -> None:
        table, _ = table_file.load(folder / name, {"safe": "s1"})
        assert np.isfinite(table.bias).all() and table.bias.shape == table.error.shape

    return Subject(_files(make), read, damage.damage_header)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "trajectories": _trajectories,
    "episodes": _episodes,
    "safetensors": _tensors,
    "model folders": _model,
    "preferences": _jsonl,
    "IDX archives": _idx,
    "CIFAR archives": _cifar,
    "bias tables": _tables,
}


def fuzz(subject: Subject, folder: pathlib.Path, seed: int, number: int) -> dict[str, int]:
    """Reads damaged files; anything but data or a `UserError` of one line that names it escapes."""
    rng, seen = np.random.default_rng(seed), collections.Counter(read=0, refused=0)
    for name, content in subject.good.items():
        (folder / name).write_bytes(content)
    for name in subject.good:
        subject.read(folder, name)
    names = sorted(subject.good)
    for i in range(number):
        name = names[i % len(names)]
        path = folder / name
        if subject.structure and i // len(names) % 4 == 3:
            subject.structure(rng, path)
        else:
            path.write_bytes(damage.damage_bytes(rng, subject.good[name]))
        begun = time.monotonic()
        try:
            subject.read(folder, name)
            seen["read"] += 1
        except UserError as error:
            assert "\n" not in str(error), error
            # An index, a config and the weights are held against each other.
            assert str(folder) in str(error) or name == "config.json", (name, error)
            seen["refused"] += 1
        except Exception:
            path.rename(folder / "crashed")  # to be looked at
            raise
        assert time.monotonic() - begun < 30, name
        path.write_bytes(subject.good[name])
    return dict(seen)


def main(folder: str, seed: str, number: str, *kinds: str) -> None:
    for kind in kinds or SUBJECTS:
        place = pathlib.Path(folder) / kind.replace(" ", "_")
        place.mkdir()
        seen = fuzz(SUBJECTS[kind](), place, int(seed), int(number))
        print(json.dumps({kind: seen}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
