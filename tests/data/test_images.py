# SPDX-License-Identifier: Apache-2.0
"""Archives become images; damaged ones say where."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import image_files, images

RNG = np.random.default_rng(0)
ROWS = RNG.integers(0, 256, (4, 3072), np.uint8)
LABELS = [3, 0, 9, 1]


def idx(array):
    """An IDX file of bytes."""
    array = np.asarray(array, np.uint8)
    return (
        b"\0\0\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def idx_folder(folder, zipped, change=None):
    pictures = RNG.integers(0, 256, (5, 8, 12), np.uint8)
    for name, content in (
        ("train-images-idx3-ubyte", idx(pictures)),
        ("train-labels-idx1-ubyte", idx([0, 1, 2, 3, 9])),
        ("t10k-images-idx3-ubyte", idx(pictures[:2])),
        ("t10k-labels-idx1-ubyte", idx([4, 5])),
    ):
        content = (change or {}).get(name, content)
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return pictures


def python_file(rows=ROWS, labels=LABELS, key=b"labels", protocol=2):
    return pickle.dumps({b"data": rows, key: list(labels), b"filenames": [b"a.png"] * 4}, protocol)


def binary_file(rows=ROWS, labels=LABELS, coarse=False):
    return b"".join(
        bytes([7] * coarse) + bytes([label]) + row.tobytes()
        for label, row in zip(labels, rows, strict=True)
    )


def cifar_files(name, binary):
    """Contents by file name of one of CIFAR's archives, four images in each file."""
    ten = name == "cifar10"
    train = [f"data_batch_{i}" for i in range(1, 6)] if ten else ["train"]
    make = (
        (lambda: binary_file(coarse=not ten))
        if binary
        else (lambda: python_file(key=b"labels" if ten else b"fine_labels"))
    )
    return {
        f + (".bin" if binary else ""): make() for f in (*train, "test_batch" if ten else "test")
    }


def tar(path, files, folder="x", mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read(tmp_path, zipped):
    pictures = idx_folder(tmp_path, zipped)
    found = images.load(tmp_path)
    np.testing.assert_array_equal(found.train.images[..., 0], pictures)
    assert found.train.labels.tolist() == [0, 1, 2, 3, 9] and found.test.labels.tolist() == [4, 5]
    assert (found.name, found.classes, found.flip) == ("idx", 10, False)


@pytest.mark.parametrize("how", ["packed", "unpacked beside", "the folder itself"])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_packed_or_not_for_python_or_binary(tmp_path, name, binary, how):
    classes, python, packed, *_ = images._CIFAR[name]
    archive, inner = packed if binary else python
    files = cifar_files(name, binary)
    if how == "packed":
        tar(tmp_path / archive, files)
    else:
        place = tmp_path if how == "the folder itself" else tmp_path / inner
        place.mkdir(exist_ok=True)
        for file, content in files.items():
            (place / file).write_bytes(content)
    found = images.load(tmp_path)
    assert (found.name, found.classes, found.flip) == (name, classes, True)
    assert len(found.train.labels) == 4 * (len(files) - 1)
    # Planes of red, green and blue, row by row.
    expected = ROWS.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found.test.images, expected)
    assert found.test.labels.tolist() == LABELS


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_any_age_are_read(protocol):
    part = image_files.cifar_python("x", python_file(protocol=protocol), 10)
    assert part.labels.tolist() == LABELS and part.images.shape == (4, 32, 32, 3)


class Call:
    """What a pickle asks to be called on loading."""

    def __init__(self, function, *arguments):
        self.how = (function, arguments)

    def __reduce__(self):
        return self.how


def test_a_pickle_that_asks_for_more_is_refused(tmp_path):
    touched = tmp_path / "touched"
    for content in (
        pickle.dumps(Call(open, str(touched), "w")),
        pickle.dumps({b"data": ROWS, b"labels": Call(eval, "[1, 2, 3, 4]")}),
        pickle.dumps({b"data": np.array([open, 1], dtype=object), b"labels": [1, 2]}),
        pickle.dumps({b"data": ROWS.astype(float), b"labels": LABELS}),
    ):
        with pytest.raises(UserError, match=r"x/y, offset .*no pickle of CIFAR's"):
            image_files.cifar_python("x/y", content, 10)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"\x1f\x00\x08\x03" + bytes(12), "offset 0: magic 1f000803"),
        ("train-images-idx3-ubyte", b"", "offset 0: magic  is not IDX"),
        ("train-images-idx3-ubyte", idx(np.zeros((2, 2))), "offset 3: it has 2 dimensions"),
        ("train-images-idx3-ubyte", idx(np.zeros((5, 8, 12)))[:9], "offset 9: .*inside its header"),
        ("train-images-idx3-ubyte", idx(np.zeros((5, 8, 12)))[:-7], "offset 489: .*7 bytes early"),
        ("train-labels-idx1-ubyte", idx([0] * 5) + b"x", "offset 13: bytes follow"),
        ("train-labels-idx1-ubyte", idx([0] * 4), "has 5 images and .* 4 labels"),
        ("t10k-labels-idx1-ubyte", idx([10, 0]), "has label 10, classes=10: give at least 11"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((2, 8, 8))), "give files of one set"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_idx_files_are_named_with_the_offset(tmp_path, file, content, message, zipped):
    idx_folder(tmp_path, zipped, {file: content})
    with pytest.raises(UserError, match=message) as raised:
        images.load(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_a_header_that_promises_terabytes_costs_none(tmp_path):
    header = b"\0\0\x08\x03" + struct.pack(">3I", 60000, 1 << 20, 1 << 12)
    idx_folder(tmp_path, False, {"train-images-idx3-ubyte": header + bytes(100)})
    with pytest.raises(UserError, match=r"60000x1048576x4096 bytes needs"):
        images.load(tmp_path)


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (
            "cifar_binary",
            binary_file()[:-1],
            "offset 9219: a record of 3073 bytes is cut off after 3",
        ),
        ("cifar_binary", b"", "offset 0"),
        ("cifar_binary", binary_file(labels=[1, 2, 10, 3]), "offset 6146: label 10 is none of 10"),
        ("cifar_python", python_file()[:-100], "offset .*no pickle"),
        ("cifar_python", python_file(labels=[1, 2, 3, 10]), "label 10 of image 3 is none of 10"),
        ("cifar_python", python_file(labels=[1, 2, 3]), "4 images and 3 labels"),
        ("cifar_python", python_file(key=b"label"), r"lacks data \[N, 3072\] or labels"),
        ("cifar_python", python_file(rows=ROWS[:, :5]), r"lacks data \[N, 3072\]"),
        ("cifar_python", pickle.dumps([1]), "lacks data"),
    ],
)
def test_damaged_cifar_files_are_named_with_the_offset(read, content, message):
    with pytest.raises(UserError, match=message) as raised:
        getattr(image_files, read)("archive/data_batch_1", content, 10)
    assert "archive/data_batch_1" in str(raised.value)


def test_what_is_absent_is_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        images.load(tmp_path / "none")
    with pytest.raises(UserError, match="holds no images that are known"):
        images.load(tmp_path)
    idx_folder(tmp_path, False)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"has no t10k-labels-idx1-ubyte \(or"):
        images.load(tmp_path)
    files = cifar_files("cifar10", False)
    files.pop("data_batch_3")
    tar(tmp_path / "cifar-10-python.tar.gz", files)
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz has no data_batch_3"):
        images.load(tmp_path)
