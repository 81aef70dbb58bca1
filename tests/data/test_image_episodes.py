# SPDX-License-Identifier: Apache-2.0
"""The file of image episodes: there and back, and one line for whatever is wrong with it."""

import h5py
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import image_episodes


def columns(seed=0):
    """Episodes of 3, 1 and 4 images of 6 x 5 pixels."""
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (8, 6, 5, 3), dtype=np.uint8),
        "actions": rng.uniform(-1, 1, (8, 2)).astype(np.float32),
        "ends": np.isin(np.arange(8), (2, 3, 7)),
        "truth": rng.normal(size=(8, 4)).astype(np.float32),
    }


def test_episodes_are_cut_at_their_ends():
    made = image_episodes.build(columns())
    np.testing.assert_array_equal(made.starts, [0, 3, 4])
    np.testing.assert_array_equal(made.lengths, [3, 1, 4])
    expected = [[0, 1, 2, -1], [3, -1, -1, -1], [4, 5, 6, 7]]
    np.testing.assert_array_equal(made.rows, expected)
    np.testing.assert_array_equal(made.ends, columns()["ends"])


def test_a_file_gives_back_what_was_written(tmp_path):
    made = image_episodes.build(columns())
    first, second = (
        image_episodes.save(tmp_path / name, made, {"level": 2, "task": "arm"})
        for name in ("a.hdf5", "b.hdf5")
    )
    assert first.read_bytes() == second.read_bytes()
    loaded, attributes = image_episodes.load(first, size=(6, 5))
    assert attributes == {"level": 2, "task": "arm"}
    for x, y in zip(loaded, made, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_parts_join_as_one_file():
    whole = image_episodes.build(columns())
    parts = []
    for rows in (slice(0, 4), slice(4, 8)):
        parts.append(image_episodes.build({k: v[rows] for k, v in columns().items()}))
    for x, y in zip(image_episodes.join(parts), whole, strict=True):
        np.testing.assert_array_equal(x, y)


def changed(**values):
    return columns() | values


BAD = [
    ({k: v for k, v in columns().items() if k != "ends"}, r"key 'ends' is missing"),
    (changed(images=np.zeros((8, 6, 5, 3))), r"'images' has type float64: give uint8"),
    (changed(images=np.zeros((8, 6, 5), np.uint8)), r"'images' has shape \(8, 6, 5\)"),
    (changed(images=np.zeros((8, 4, 5, 3), np.uint8)), r"images are 4 x 5, expected 6 x 5"),
    (changed(actions=np.zeros((7, 2))), r"'actions' has shape \(7, 2\): give \[8, width\]"),
    (changed(actions=np.zeros((8, 3))), r"'actions' has 3 columns and the task 2"),
    (changed(actions=np.full((8, 2), 1.5)), r"'actions' row 0 is \[1.5, 1.5\], outside"),
    (changed(actions=np.full((8, 2), np.nan)), r"'actions' row 0 is \[nan, nan\]"),
    (changed(ends=np.arange(8) == 2), r"rows 3 to 7 is unfinished"),
    (changed(ends=np.zeros(8)), r"rows 0 to 7 is unfinished"),
    (changed(ends=np.full(8, 0.5)), r"'ends' row 0 is 0.5: give 0 or 1"),
    (changed(ends=np.ones((4, 2))), r"'ends' has type float64 and shape \(4, 2\)"),
    (changed(truth=np.full((8, 1), np.inf)), r"'truth' row 0 is \[inf\]"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_bad_content_is_named(content, message):
    limits = {"action_low": -np.ones(2), "action_high": np.ones(2)}
    with pytest.raises(UserError, match=message) as error:
        image_episodes.build(content, "x.hdf5", size=(6, 5), **limits)
    assert str(error.value).startswith("x.hdf5") and "\n" not in str(error.value)


def test_text_in_place_of_numbers(tmp_path):
    path = tmp_path / "text.hdf5"
    with h5py.File(path, "w") as file:
        for key, value in columns().items():
            file[key] = np.array([b"text"] * 8) if key == "actions" else value
    with pytest.raises(UserError, match=r"key 'actions' has type .S4: give numbers"):
        image_episodes.load(path)
    with pytest.raises(UserError, match="there is no such file"):
        image_episodes.load(tmp_path / "absent.hdf5")
    with pytest.raises(UserError, match="there is no folder"):
        image_episodes.save(tmp_path / "no" / "x.hdf5", image_episodes.build(columns()))
