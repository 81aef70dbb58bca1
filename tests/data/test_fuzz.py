# SPDX-License-Identifier: Apache-2.0
"""Files from others, damaged or hostile, are read or refused by name, and stay where they are."""

import json
import os
import pickle
import subprocess
import sys
import tarfile

import h5py
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import image_files, preferences, trajectories
from jaxsafe.lm import hf, tensors
from tests.core import toy
from tests.data import damage, fuzz, test_images
from tests.lm import models


@pytest.mark.parametrize(
    ("seed", "number"), [(0, 250), pytest.param(1, 10_000, marks=pytest.mark.slow)]
)
def test_damage_is_read_or_named(tmp_path, seed, number):
    command = [sys.executable, "-m", "tests.data.fuzz", str(tmp_path), str(seed), str(number)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=toy.ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = {}
    for line in done.stdout.splitlines():
        seen |= json.loads(line)
    assert list(seen) == list(fuzz.SUBJECTS)
    for kind, counts in seen.items():
        assert sum(counts.values()) == number, kind
        # Some damage is to what nobody reads; most is not.
        assert counts["refused"] > number // 3 and counts["read"] > 0, (kind, counts)


def test_an_index_that_names_files_elsewhere_is_refused(tmp_path):
    """Its folder's neighbour holds the very tensor."""
    config = models.FAMILIES["llama"]
    folder, other = tmp_path / "model", tmp_path / "secret.safetensors"
    hf.save(folder, config, models.params(config), shard_bytes=20_000)
    index = json.loads((folder / tensors.INDEX).read_text())
    first = index["weight_map"]["model.embed_tokens.weight"]
    other.write_bytes((folder / first).read_bytes())
    for name in ("../secret.safetensors", str(other), "a/../../secret.safetensors", "..", "", "."):
        moved = {k: name if v == first else v for k, v in index["weight_map"].items()}
        (folder / tensors.INDEX).write_text(json.dumps({"weight_map": moved}))
        with pytest.raises(
            UserError, match=r"index\.json names the file .*, not one of its folder"
        ):
            tensors.read_folder(folder)


def test_an_archives_members_stay_in_it(tmp_path):
    """Nothing is unpacked: a member that climbs is bytes, and a link is none."""
    files, secret = test_images.cifar_files("cifar100", False), tmp_path / "secret"
    secret.write_bytes(b"not theirs")
    path = tmp_path / "in" / "x.tar.gz"
    path.parent.mkdir()
    test_images.tar(path, files, folder="../../..")
    found = image_files.read_members(path, ("train", "test"))
    assert found == files and sorted(p.name for p in tmp_path.iterdir()) == ["in", "secret"]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        with tarfile.open(path, "w:gz") as archive:
            for name in ("train", "test"):
                member = tarfile.TarInfo(f"x/{name}")
                member.type, member.linkname = kind, str(secret)
                archive.addfile(member)
        with pytest.raises(UserError, match="has no train: fetch the archive again"):
            image_files.read_members(path, ("train", "test"))


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path):
    other = damage.write(tmp_path / "other.hdf5", damage.columns())
    path = tmp_path / "x.hdf5"
    for link in (h5py.ExternalLink(str(other), "/rewards"), h5py.SoftLink("/none")):
        content = damage.columns()
        del content["rewards"]
        damage.write(path, content)
        with h5py.File(path, "a") as file:
            file["rewards"] = link
        with pytest.raises(UserError, match=r"x\.hdf5: key 'rewards' is missing"):
            trajectories.load(path)
    with h5py.File(path, "w") as file:
        for key, value in damage.columns().items():
            where = [(str(other), 0, value.nbytes)] if key == "actions" else None
            file.create_dataset(key, value.shape, value.dtype, external=where)
    with pytest.raises(UserError, match="'actions' lies in another file"):
        trajectories.load(path)


class _Hostile:
    def __init__(self, touched):
        self.touched = touched

    def __reduce__(self):
        return os.system, (f"touch {self.touched}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_is_obeyed(tmp_path, protocol):
    """In CIFAR's archives, whole; as objects in arrays; and where no pickle belongs."""
    touched = tmp_path / "touched"
    hostile = pickle.dumps(_Hostile(touched), protocol)
    assert b"system" in hostile
    with pytest.raises(UserError, match=r"asks for .*system, no image archive's"):
        image_files.cifar_python("x", hostile, 10)
    objects = np.array([_Hostile(touched)], dtype=object)
    with pytest.raises(UserError, match="no pickle of CIFAR's"):
        image_files.cifar_python("x", pickle.dumps({b"data": objects}, protocol), 10)
    path = tmp_path / "x"
    path.write_bytes(hostile)
    for read in (tensors.read_file, trajectories.load, preferences.read_pairs):
        with pytest.raises(UserError):
            read(path)
    with pytest.raises(UserError):
        image_files.read_idx(path, 3)
    assert not touched.exists()
    pickle.loads(hostile)
    assert touched.exists()  # it would have been


def test_text_that_no_tokenizer_takes_is_named(tmp_path):
    """Half of a surrogate pair is valid JSON and no text."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "p\\ud800", "chosen": "a", "rejected": "b"}\n')
    with pytest.raises(UserError, match=r"line 1, field 'prompt' is .*half a character"):
        preferences.read_pairs(path)
    path.write_text('{"prompt": "p", "response": ["a", "\\udfff"]}\n')
    with pytest.raises(UserError, match=r"line 1, field 'response' is .*half a character"):
        preferences.read_pairs(path)


def test_json_without_an_end_to_its_depth_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"x\.json is no JSON"):
        preferences.read_pairs(path)
