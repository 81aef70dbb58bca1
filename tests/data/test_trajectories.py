# SPDX-License-Identifier: Apache-2.0
"""DSRL's format: every quirk that a file may have, and every way to damage one."""

import os

import h5py
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import trajectories
from jaxsafe.data.trajectories import KEYS, build, load, save, select, to_go, totals

from .damage import ROWS, columns, write


def test_quirks_of_real_files_are_read(tmp_path):
    content = columns()
    path = write(tmp_path / "a.hdf5", content | {"info/speed/x": np.arange(3)}, seed=7)
    got = load(path)
    data = got.trajectories
    np.testing.assert_array_equal(data.starts, [0, 5])
    np.testing.assert_array_equal(data.ends, [5, 10])
    np.testing.assert_array_equal(data.lengths, [5, 5])
    for key in KEYS:  # What follows the last end is dropped.
        ours = getattr(data, key)
        theirs = content[key][:10].reshape(ours.shape).astype(ours.dtype)
        np.testing.assert_array_equal(ours, theirs)
    assert data.rewards.shape == data.terminals.shape == (10,)
    assert data.observations.dtype == data.costs.dtype == np.float32
    assert data.terminals.dtype == data.timeouts.dtype == bool
    assert got.attributes == {"seed": 7} and list(got.extras) == ["info/speed/x"]


def test_the_episode_cut_short_may_be_kept(tmp_path):
    data = load(write(tmp_path / "a.hdf5", columns()), trailing="keep").trajectories
    np.testing.assert_array_equal(data.ends, [5, 10, 12])
    assert len(data.rewards) == ROWS and not data.timeouts[-1] and not data.terminals[-1]


@pytest.mark.parametrize(
    ("done", "dropped", "kept"),
    [
        ("000", ([], []), ([0], [3])),
        ("001", ([0], [3]), ([0], [3])),
        ("110", ([0, 1], [1, 2]), ([0, 1, 2], [1, 2, 3])),
        ("", ([], []), ([], [])),
    ],
)
def test_boundaries(done, dropped, kept):
    flags = np.array([x == "1" for x in done], bool)
    for trailing, want in (("drop", dropped), ("keep", kept)):
        got = trajectories.boundaries(flags, trailing)
        assert [x.tolist() for x in got] == list(want)
        assert all(x.dtype == np.int64 for x in got)


def test_write_and_read_is_exact_and_bytes_are_equal(tmp_path):
    data = build(columns())
    attributes = {"env_id": "Circle-v0", "seed": 3, "scale": 0.5, "licence": "ä", "note": ""}
    extras = {"knobs/radius": np.arange(2.0), "scalar": np.float64(3)}
    paths = [save(tmp_path / name, data, attributes, extras) for name in ("a.hdf5", "b.hdf5")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    got = load(paths[0])
    for a, b in zip(got.trajectories, data, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert got.attributes == attributes
    np.testing.assert_array_equal(got.extras["knobs/radius"], [0, 1])
    assert got.extras["scalar"] == 3
    with h5py.File(paths[0]) as file:  # As DSRL's own loader checks it.
        assert file["rewards"].shape == (10,) and file["terminals"].dtype == bool


def disk_full(value):
    raise OSError("disk full")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    data = build(columns())
    path = save(tmp_path / "a.hdf5", data, {"seed": 1})
    before = path.read_bytes()
    with pytest.raises(UserError, match="'seed' is a object: give numbers"):
        save(path, data, {"seed": object()})
    with pytest.raises(UserError, match="'text' is a str: give numbers"):
        save(path, data, extras={"text": "a"})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(trajectories.hdf5, "fixed", disk_full)
        save(path, data, {"seed": 2})
    with pytest.raises(UserError, match=r"to be written.*'rewards' row 3 is nan"):
        rewards = data.rewards.copy()
        rewards[3] = np.nan
        save(path, data._replace(rewards=rewards))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.hdf5"]
    with pytest.raises(UserError, match="there is no folder"):
        save(tmp_path / "no" / "a.hdf5", data)


def test_sums_by_hand():
    content = columns() | {"rewards": np.arange(ROWS) + 0.5, "costs": np.arange(ROWS) % 2}
    data = build(content)
    np.testing.assert_array_equal(
        to_go(data.rewards, data), [12.5, 12, 10.5, 8, 4.5, 37.5, 32, 25.5, 18, 9.5]
    )
    np.testing.assert_array_equal(to_go(data.costs, data), [2, 2, 1, 1, 0, 3, 2, 2, 1, 1])
    np.testing.assert_array_equal(totals(data), [[12.5, 37.5], [2, 3]])


def test_sums_to_go_of_long_data_are_exact_in_costs():
    rng = np.random.default_rng(0)
    done = rng.random(200_000) < 0.01
    done[-1] = True
    costs = rng.integers(0, 2, len(done)).astype(np.float32)
    base = {key: np.zeros((len(done), 1)) for key in KEYS}
    data = build(base | {"costs": costs, "timeouts": done})
    got = to_go(data.costs, data)
    np.testing.assert_array_equal(got[data.starts], totals(data)[1])
    np.testing.assert_array_equal(got[data.ends - 1], costs[data.ends - 1])
    inside = np.setdiff1d(np.arange(len(done)), data.ends - 1)
    np.testing.assert_array_equal(got[inside] - got[inside + 1], costs[inside])


def test_select_takes_whole_episodes_in_order():
    data = build(columns(), trailing="keep")
    got = select(data, [2, 0, 2])
    np.testing.assert_array_equal(got.lengths, [2, 5, 2])
    np.testing.assert_array_equal(got.rewards, data.rewards[[10, 11, 0, 1, 2, 3, 4, 10, 11]])
    np.testing.assert_array_equal(got.observations[got.starts], data.observations[[10, 0, 10]])
    assert len(select(data, []).rewards) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": None}, "key 'costs' is missing: give observations"),
        ({"actions": np.zeros(ROWS)}, r"key 'actions' has shape \(12,\): give \[N, width\]"),
        ({"rewards": np.zeros((ROWS, 2))}, r"key 'rewards' has shape \(12, 2\): give \[N\] or"),
        ({"costs": np.zeros(11)}, "key 'costs' has 11 rows and 'rewards' has 12"),
        ({"observations": np.zeros((0, 3))}, r"'observations' has shape \(0, 3\)"),
        ({"next_observations": np.zeros((ROWS, 4))}, "'next_observations' has 4 columns"),
        ({"timeouts": np.arange(ROWS) * 0.5}, "key 'timeouts' row 1 is 0.5: give 0 or 1"),
        ({"terminals": np.full(ROWS, np.nan)}, r"'terminals' row 0 is nan.*12 such values"),
        ({"actions": np.eye(ROWS) * 1e39}, r"'actions' row 0, 0 is 1e\+39: .*finite in 32 bits"),
        ({"costs": np.array([b"x"] * ROWS)}, r"key 'costs' has type \|S1: give numbers"),
        ({"terminals": np.zeros(ROWS), "timeouts": np.zeros(ROWS)}, "no episode ends in rows 0 to"),
    ],
)
def test_bad_content_is_named(tmp_path, change, message):
    content = {k: v for k, v in (columns() | change).items() if v is not None}
    with pytest.raises(UserError, match=message):
        build(content)
    path = write(tmp_path / "bad.hdf5", content)
    with pytest.raises(UserError, match=f"{path}: .*{message}") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"absent.hdf5: there is no such file"):
        load(tmp_path / "absent.hdf5")
    (tmp_path / "text.hdf5").write_text("observations,actions\n")
    with pytest.raises(UserError, match=r"text.hdf5: the file cannot be opened"):
        load(tmp_path / "text.hdf5")
    with pytest.raises(UserError, match="trailing='throw' is unknown"):
        load(write(tmp_path / "a.hdf5", columns()), trailing="throw")


def test_every_damaged_number_of_our_own_files_is_found(tmp_path):
    """Their checksums tell; other files carry none."""
    rng = np.random.default_rng(0)
    good = save(tmp_path / "a.hdf5", build(columns())).read_bytes()
    place = good.index(build(columns()).observations.tobytes())
    for _ in range(20):
        data = bytearray(good)
        data[place + rng.integers(100)] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.hdf5").write_bytes(data)
        with pytest.raises(UserError, match=r"b.hdf5: key 'observations' cannot be read"):
            load(tmp_path / "b.hdf5")


def test_a_header_that_promises_too_much_allocates_nothing(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for key in KEYS:
            file.create_dataset(key, (1 << 40, 3), "f4", chunks=(1024, 3))
    with pytest.raises(UserError, match=r"'actions' promises 13194139533312 bytes"):
        load(path)
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("elsewhere.hdf5", "x", (4,))
        file.create_virtual_dataset("rewards", layout)
    with pytest.raises(UserError, match="'rewards' lies in another file"):
        load(path)
