# SPDX-License-Identifier: Apache-2.0
"""Two processes on this machine load, train and write one model between them."""

import os
import subprocess
import sys

import jax
import numpy as np

from jaxsafe.lm import hf, sharding, tensors
from tests.core import toy
from tests.devices.test_processes import free_port
from tests.lm import across, models


def test_two_processes_do_what_one_does(tmp_path):
    """Loss to 1e-6; weights after a step of Adam to 2e-5."""
    config = models.FAMILIES["qwen3"]
    hf.save(tmp_path / "in", config, models.params(config))
    command = [sys.executable, "-m", "tests.lm.across", tmp_path / "in", tmp_path / "two"]
    command += [f"localhost:{free_port()}", "2"]
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [*map(str, command), str(i)],
            cwd=toy.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        ends = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0, 0], ends[0][1] + ends[1][1]
    losses = [float(out.split("loss ")[1].split()[0]) for out, _ in ends]
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    alone = across.train(tmp_path / "in", tmp_path / "one", mesh)
    assert losses[0] == losses[1]
    np.testing.assert_allclose(losses[0], alone, rtol=1e-6)
    one, two, before = (tensors.read_folder(tmp_path / name) for name in ("one", "two", "in"))
    assert one.keys() == two.keys()
    for name, stored in one.items():
        np.testing.assert_allclose(two[name].open(), stored.open(), rtol=0, atol=2e-5)
        assert np.abs(stored.open() - before[name].open()).max() > 5e-3, name
