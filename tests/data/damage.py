# SPDX-License-Identifier: Apache-2.0
"""A small file of DSRL's format, and ways to damage files of any kind."""

import itertools
import json
import pickle
import pickletools

import h5py
import numpy as np

from jaxsafe.data import trajectories
from jaxsafe.lm import tensors

ROWS = 12


def columns(seed: int = 0) -> dict[str, np.ndarray]:
    """Two episodes that end, after rows 4 and 9, and one cut short; float terminals, `[N, 1]`."""
    rng = np.random.default_rng(seed)
    done = np.arange(ROWS)
    return {
        "observations": rng.normal(size=(ROWS, 3)),
        "next_observations": rng.normal(size=(ROWS, 3)),
        "actions": rng.normal(size=(ROWS, 2)),
        "rewards": rng.normal(size=(ROWS, 1)),
        "costs": rng.integers(0, 2, ROWS).astype(float),
        "terminals": (done == 4)[:, None] * 1.0,
        "timeouts": done == 9,
    }


def write(path, content, **attributes):
    """As any writer of the format might, group by group."""
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
        file.attrs.update(attributes)
    return path


def damage_bytes(rng, good: bytes) -> bytes:
    """Flips, cuts off, overwrites or swaps bytes."""
    data, kind = bytearray(good), rng.integers(5)
    if kind == 0:
        for place in rng.integers(len(data), size=rng.integers(1, 6)):
            data[place] = rng.integers(256)
    elif kind == 1:
        return good[: rng.integers(len(good))]
    elif kind == 4:
        cut = rng.integers(len(data))
        return good[cut:] + good[:cut]
    else:
        place = rng.integers(len(data) - 16)
        data[place : place + 16] = rng.bytes(16) if kind == 2 else b"\xff" * 16
    return bytes(data)


# What a pickle may hold where CIFAR's has images, labels or names.
STRANGE = [
    *(None, True, -1, 10, 255, 10**30, 2.5, float("nan"), "", "\udcff", b"", b"data", (), [], {}),
    *([[1]] * 4, [True] * 4, [0.0] * 4, [-1, 0, 1, 2], [0, 1, 2], np.int64(3), np.float64(1)),
    *(np.zeros(shape, np.uint8) for shape in ((), 3072, (0, 3072), (4, 3071), (4, 3, 32, 32))),
    *(np.zeros((4, 3072), kind) for kind in ("f4", "i8", "S1", "U1", "?", "O")),
    np.asfortranarray(np.zeros((4, 3072), np.uint8)),
]


def damage_pickle(rng, good: bytes) -> bytes:
    """A pickle that is sound and of wrong content, or one whose instructions are out of order."""
    if rng.random() < 0.5:
        content = pickle.loads(good)
        names = sorted(content)
        name, other = names[rng.integers(len(names))], STRANGE[rng.integers(len(STRANGE))]
        kind = rng.integers(5)
        if kind == 0:
            del content[name]
        elif kind == 1 and isinstance(content[name], list):
            content[name][rng.integers(len(content[name]))] = other
        elif kind == 2:
            content[name] = content[name][: rng.integers(len(content[name]))]
        elif kind == 3:
            content = [other, list(content), [content]][rng.integers(3)]
        else:
            content[name] = other
        return pickle.dumps(content, int(rng.integers(pickle.HIGHEST_PROTOCOL + 1)))
    starts = [place for _, _, place in pickletools.genops(good)]
    steps = [good[a:b] for a, b in itertools.pairwise([*starts, len(good)])]
    one, two, kind = *rng.integers(len(steps), size=2), rng.integers(4)
    if kind == 0:
        del steps[one]
    elif kind == 1:
        steps.insert(two, steps[one])
    elif kind == 2:
        steps[one], steps[two] = steps[two], steps[one]
    else:  # another instruction, with what this one was given
        steps[one] = rng.choice(pickletools.opcodes).code.encode("latin1") + steps[one][1:]
    return b"".join(steps)


def damage_structure(rng, path) -> None:
    """Writes a file that is sound HDF5 and no longer sound data."""
    content: dict = columns(int(rng.integers(5)))
    key = trajectories.KEYS[rng.integers(len(trajectories.KEYS))]
    array = np.asarray(content[key], float)
    kind = rng.integers(8)
    if kind == 0:
        del content[key]
    elif kind == 1:
        content[key] = array[: rng.integers(ROWS)]
    elif kind == 2:
        array.flat[rng.integers(array.size)] = rng.choice([np.nan, np.inf, -np.inf, 1e300])
        content[key] = array
    elif kind == 3:
        content[key] = array.reshape(rng.choice([1, 2, 3]), -1)
    elif kind == 4:
        content[key] = np.array([b"text"] * ROWS)
    elif kind == 5:
        content[key] = array[..., None, None]
    elif kind == 6:
        content[f"group/{key}"] = content.pop(key)
    else:
        content[key] = h5py.Empty("f")
    write(path, content)


def pending(arrays):
    """Arrays as `tensors.write_file` takes them."""
    return {name: tensors.Pending(x.dtype, x.shape, lambda x=x: x) for name, x in arrays.items()}


# What JSON can say where a number or a text should be; the deep one has more levels than Python.
HOSTILE = [
    *("null", "true", "-1", "0", "1", "2.5", "1e400", "NaN", "1" + "0" * 30, "9" * 5000),
    *('""', '"../x"', '"/etc/passwd"', '"\\ud800"', '"\\u0000"', "[]", "{}", "[-2, -3]"),
    *("[0, 1000000000000000000000]", '"' + "x" * 300 + '"', "[" * 200_000),
]


def damaged_text(rng, text: str) -> str:
    """JSON text, one of whose values, at any depth, is something else."""
    marker = "\u0001"
    lines = text.split("\n")
    at = int(rng.choice([i for i, line in enumerate(lines) if line.strip()]))
    try:
        values = [json.loads(lines[at])]
    except ValueError:  # one object on many lines
        values, lines, at = [json.loads(text)], [""], 0
    holder, key = values, 0
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.9:
        holder = holder[key]
        places = sorted(holder) if isinstance(holder, dict) else range(len(holder))
        key = places[rng.integers(len(places))]
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = marker
    lines[at] = json.dumps(values[0], ensure_ascii=False).replace(
        json.dumps(marker), HOSTILE[rng.integers(len(HOSTILE))]
    )
    return "\n".join(lines)


def damage_json(rng, path) -> None:
    """Writes JSON or JSONL in which one value is something else."""
    path.write_text(damaged_text(rng, path.read_text()))


def damage_header(rng, path) -> None:
    """Writes a safetensors file whose header says something else about the same bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = damaged_text(rng, data[8 : 8 + length].decode()).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
