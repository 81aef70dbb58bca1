# SPDX-License-Identifier: Apache-2.0
"""One training step from a folder to a folder: alone, or as one of several processes.

python -m tests.lm.across IN OUT COORDINATOR PROCESSES INDEX
"""

import sys

import jax
import numpy as np
import optax

from jaxsafe.core import parallel
from jaxsafe.lm import hf, hf_config, logprobs, optimiser, sharding
from tests.lm import models


def train(folder, out, mesh):
    """A step of Adam on a batch of 8 rows; returns the loss."""
    config = hf_config.read(folder)
    where = sharding.param_shardings(config, mesh)
    config, params = hf.load(folder, where)
    ids = np.asarray(models.tokens(config, (8, 10)))
    mask = np.ones(ids.shape, bool)
    completion = mask & (np.arange(10) >= 5)
    rule = optax.adam(0.01)

    @jax.jit
    def step(params, rows):
        def loss(p, rows):
            return -logprobs.sums(config, p, *rows).mean(), {}

        (value, _), gradient = optimiser.value_and_grad(loss, params, rows)
        update, _ = rule.update(gradient, rule.init(params), params)
        return value, jax.lax.with_sharding_constraint(optax.apply_updates(params, update), where)

    with jax.set_mesh(mesh):
        value, params = step(params, sharding.place((ids, mask, completion), mesh))
    hf.save(out, config, params)
    return float(parallel.to_host(value))


def main(folder, out, coordinator, processes, index):
    parallel.split_host_cpu(2)
    parallel.initialize_distributed(coordinator, int(processes), int(index))
    mesh = sharding.make_mesh(data=2, fsdp=2)
    assert len({device.process_index for device in mesh.devices.flat}) == int(processes)
    print(f"loss {train(folder, out, mesh)!r}", flush=True)
    parallel.largest(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
