# SPDX-License-Identifier: Apache-2.0
"""A binary that fits lines: everything of a real one, and compiled in a fraction of a second."""

import dataclasses
import fcntl
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import struct

from jaxsafe.core import config as config_lib
from jaxsafe.core import flags as flags_lib
from jaxsafe.core import launch, metrics, parallel
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.program import Program, Stage
from jaxsafe.core.run import Folder

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Config:
    """What the toy fits, and how."""

    stages: tuple[str, ...] = field(("line",), "Names of the stages, trained in order.")
    steps: int = field(20, "Steps of each stage.", low=1)
    width: int = field(3, "Inputs of the line.", low=1)
    lr: float = field(0.05, "Adam's learning rate.", low=0.0)
    nan_at: int = field(-1, "Step whose loss is NaN; -1: none.", low=-1)
    points: int = field(3, "Rows in eval.jsonl.", low=1)


PRESETS = {"demo": Config(), "paper": Config(lr=0.1, steps=30)}


class State(struct.PyTreeNode):
    """Everything one seed carries."""

    weights: jax.Array  # [width]
    opt_state: Any
    steps: jax.Array  # [] int32
    lucky: jax.Array  # [] bool
    key: jax.Array


def _init(key: jax.Array, config: Config) -> State:
    key_weights, key = jax.random.split(key)
    weights = jax.random.normal(key_weights, (config.width,))
    opt_state = optax.adam(config.lr).init(weights)
    return State(weights, opt_state, jnp.int32(0), jnp.bool_(False), key)


def _step(state: State, step: jax.Array, config: Config) -> tuple[State, jax.Array]:
    key_x, key_noise = jax.random.split(jax.random.fold_in(state.key, step))
    x = jax.random.normal(key_x, (16, config.width))
    y = x.sum(-1) + 0.1 * jax.random.normal(key_noise, (16,))
    # The logarithm of a negative number, where a NaN is wanted.
    broken = jnp.log(jnp.where(step == config.nan_at, -1.0, 1.0))

    def loss_of(weights: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(x @ weights - y)) + broken * weights[0]

    loss, grads = jax.value_and_grad(loss_of)(state.weights)
    updates, opt_state = optax.adam(config.lr).update(grads, state.opt_state)
    weights = optax.apply_updates(state.weights, updates)
    return State(weights, opt_state, state.steps + 1, loss < 0.1, state.key), loss


def stage(name: str, config: Config) -> Stage:
    """One line to fit; its seeds' keys depend on the stage's name."""

    def chunk(state: State, first: jax.Array, length: int):
        steps = first + jnp.arange(length)
        state, losses = jax.lax.scan(lambda s, i: _step(s, i, config), state, steps)
        return state, {"loss/mean": jnp.mean(losses), "loss/last": losses[-1], "n": state.steps}

    return Stage(
        name=name,
        init=lambda key: _init(jax.random.fold_in(key, len(name)), config),
        chunk=chunk,
        num_steps=config.steps,
        parameters=lambda state: state.weights,
        result=lambda state: state.weights,
        unit="samples",
        units_per_step=16,
    )


def _validate(config: Config) -> None:
    config_lib.validate(config)
    if len(set(config.stages)) < len(config.stages):
        raise UserError(f"stages={','.join(config.stages)} repeats one: name each once.")


def _finish(folder: Folder, options: RunOptions, config: Config, results) -> list[dict[str, Any]]:
    rows = [
        {"stage": name, "seed": options.seed + i, "point": p, "value": float(w.sum()) * p}
        for name, weights in results.items()
        for i, w in enumerate(np.asarray(weights))
        for p in range(config.points)
    ]
    metrics.append(folder.evals, rows)
    folder.say("finished")
    return [{"method": name, "mean": float(np.mean(w))} for name, w in results.items()]


def _render(folder: Folder, options: RunOptions, config: Config, results) -> None:
    folder.plots.mkdir(exist_ok=True)
    (folder.plots / "toy.txt").write_text(f"{sorted(results)}\n")
    folder.say("rendered")


BINARY = launch.Binary(
    system="toy",
    presets=PRESETS,
    validate=_validate,
    stages=lambda config: [stage(name, config) for name in config.stages],
    finish=_finish,
    render=_render,
    free=("steps", "points"),
    options=RunOptions(num_seeds=2, log_every=5, progress=False),
)


def program(config: Config | None = None, num_devices: int = 1, **options) -> Program:
    """The first stage of `config`, two seeds on one device unless told otherwise."""
    options = RunOptions(**({"num_seeds": 2, "log_every": 5, "progress": False} | options))
    config = config or Config()
    return Program(stage(config.stages[0], config), options, parallel.seed_mesh(num_devices))


def parsed(*arguments: str) -> flags.FlagValues:
    """The toy's flags, parsed; bad ones end in `SystemExit`."""
    values = flags.FlagValues()
    flags_lib.define_run_flags(values, PRESETS, defaults=BINARY.options)
    flags_lib.define_config_flags(PRESETS["demo"], "", values)
    flags_lib.parse_command_line(["toy", *arguments], values)
    return values


def here(*arguments: str) -> int:
    """Runs the toy in this process, whose devices stay as they are; returns its exit code."""
    jax.devices()
    return launch._run(BINARY, parsed(*arguments))


def command(*arguments: str) -> list[str]:
    """The toy as a program of its own, to be run in `ROOT`, on one device unless told otherwise."""
    flags = [str(argument) for argument in arguments]
    given = ("--devices", "--distributed", "--mode", "--resume")
    if not any(flag.startswith(given) for flag in flags):
        # As many as `here` has, however many cores there are.
        flags.append("--devices=1")
    return [sys.executable, "-m", "tests.core.toy", *flags]


def apart(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    """Runs the toy as a program of its own, to its end."""
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=120, **kwargs
    )


def once(tmp_path_factory, name: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """A folder that `make` fills for all tests of the session, those of other workers too."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = root / f"{name}.done"
        if not done.exists():
            make(folder)
            done.touch()
    return folder


if __name__ == "__main__":
    launch.main(BINARY)
