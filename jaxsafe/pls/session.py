# SPDX-License-Identifier: Apache-2.0
"""A search whose episodes are run elsewhere: by a person, a robot, another program.

A folder holds `evaluations.csv`, one row per episode and written first, checkpoints of the state,
and `session.json`, which tells what it was begun with. Whatever moment the program dies at,
`resume` gives the state of an unbroken session, bit for bit: the newest checkpoint that the log
leads to, and the log's rows after it told again.

```python
state = session.resume(folder, jax.random.key(0), problem, config)
while not session.finished(state, config):
    query, state = session.ask(state, config)
    returns = ...  # [Q, W, O] of the targets query.z
    state, metrics = session.record(folder, state, query.point, returns, config)
session.recommend(state, config)
```

The seed set is trusted. `check_seed` first, of episodes of its own, leaves of it what is shown to
be safe:

```python
costs = ...  # [P, n, C] of the P targets problem.grid[problem.seed]
problem = session.check_seed(folder, problem, costs, low=0.0, high=1000.0)
```
"""

import json
import pathlib
import shutil
import warnings
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import checkpoint, run
from jaxsafe.core.checks import UserError
from jaxsafe.core.config import to_dict
from jaxsafe.pls import search, seed_check, session_log
from jaxsafe.pls.config import SearchConfig
from jaxsafe.pls.session_log import Told
from jaxsafe.pls.types import Problem, State

_LOG = "evaluations.csv"
_BEGUN = "session.json"
_SEEDS = "seeds.csv"
_CHECKPOINTS = "checkpoints"
# Another machine may compute an alpha or a grid that is off by a last bit.
_CLOSE = 1e-6

# One compiled program, so that a resumed session does the arithmetic of an unbroken one.
ask = jax.jit(search.ask, static_argnums=1)
recommend = jax.jit(search.recommend, static_argnums=1)
_tell = jax.jit(search.tell, static_argnums=2)


class _Saved(NamedTuple):
    state: State
    log: jax.Array  # [32] uint8, of the log that led to it


def finished(state: State, config: SearchConfig) -> bool:
    """Returns whether all steps of the config are done."""
    return int(state.step) >= config.num_steps


def record(
    folder: pathlib.Path, state: State, point: Any, returns: Any, config: SearchConfig
) -> tuple[State, search.Metrics]:
    """Logs a step's episodes, tells them and saves the state.

    Args:
      folder: of the session.
      state: what `ask` returned.
      point: `[Q]` places in the grid, those asked for or others.
      returns: `[Q, W, O]` undiscounted returns, reward first.
      config: static.

    Raises:
      UserError: the search is over, a shape or place is wrong, a return is not finite, the folder
        is of another problem, config or key, or the disk is full.
    """
    batch = session_log.checked(state, point, returns, config)
    if finished(state, config):
        raise UserError(f"all {config.num_steps} steps are done: raise reward_steps for more.")
    folder.mkdir(parents=True, exist_ok=True)
    log, begun = folder / _LOG, folder / _BEGUN
    if log.exists() and begun.exists():
        _check_begun(begun, state, config)
    else:
        run.write_json(begun, _begun(state, config))
    session_log.append(log, state, batch)
    state, metrics = _tell(state, batch, config)
    digest = jnp.asarray(session_log.digest(log.read_bytes(), config))
    checkpoint.save(folder / _CHECKPOINTS, int(state.step), _Saved(state, digest))
    return state, metrics


def resume(folder: pathlib.Path, key: jax.Array, problem: Problem, config: SearchConfig) -> State:
    """Returns the state of a session, new where the folder has none; `key` is consumed.

    A log without anything else is enough, and decides: a checkpoint of other rows, or one that
    cannot be read, is deleted, and the log told again. A last step that was cut off while written
    is moved from the log to `evaluations.csv.torn`. More `reward_steps` than before go on.

    Raises:
      UserError: the log is damaged or lost, or the session is of another problem, config or key.
    """
    state = search.init(key, problem, config)
    log, begun, saved = folder / _LOG, folder / _BEGUN, folder / _CHECKPOINTS
    if log.exists() and begun.exists():
        _check_begun(begun, state, config)
    told = session_log.read(log, state, config) if log.exists() else Told([], [])
    if not told.batches:
        if checkpoint.steps(saved):
            raise UserError(
                f"{log} has no step, but {saved} has states of some: put the log back, or delete "
                f"{folder} to begin anew."
            )
        return state
    state = _newest(saved, told, state)
    for batch in told.batches[int(state.step) :]:
        _, state = ask(state, config)
        state, _ = _tell(state, batch, config)
    return state


def check_seed(
    folder: pathlib.Path,
    problem: Problem,
    costs: Any | None,
    low: float,
    high: float,
    delta: float = 0.01,
) -> Problem:
    """Returns the problem with those of its seeds only that episodes show to be safe.

    By Bernstein's bound (`seed_check`), at every threshold. The episodes are kept in `seeds.csv`;
    do this before the first `resume` and, with the same numbers, before each later one.

    Args:
      folder: of the session.
      problem: whose seed set has P points.
      costs: `[P, n, C]` undiscounted cost returns of n episodes of each, in the grid's order; None
        where the folder has them.
      low: no cost return is below it.
      high: none is above it.
      delta: probability that a seed that is not safe passes.

    Raises:
      UserError: costs are missing, others than those kept, or out of range; or no seed is shown to
        be safe.
    """
    path = folder / _SEEDS
    known = path.exists()
    if known:
        given = session_log.read_seeds(path, problem)
        if costs is not None and not np.array_equal(session_log.numbers("costs", costs), given):
            raise UserError(f"costs are not those that {path} has: give None, or another folder.")
    elif costs is None:
        raise UserError(f"costs=None, and there is no {path}: run episodes of the seed set.")
    else:
        given = session_log.numbers("costs", costs)
    mask = seed_check.safe_seeds(problem, given, low, high, delta)
    if not known:
        folder.mkdir(parents=True, exist_ok=True)
        session_log.write_seeds(path, problem, given)
    if not mask.any():
        raise UserError(
            f"no seed is shown to be safe by {given.shape[1]} episodes each: choose safer ones, or "
            "run more episodes, in another folder."
        )
    return problem.replace(seed=jnp.asarray(mask))


def evaluated(folder: pathlib.Path) -> np.ndarray:
    """Returns the episodes' mean returns of each point logged, in order, `[N, O]`, reward first.

    Raises:
      UserError: the log is damaged.
    """
    return session_log.means(folder / _LOG)


def _newest(saved: pathlib.Path, told: Told, new: State) -> State:
    """Returns the newest saved state that the log leads to, or the new one.

    Later ones and those that do not fit are deleted, as a saved step is never written over.
    """
    for step in reversed(checkpoint.steps(saved)):
        if step < len(told.digests):
            found = _restored(saved, step, _Saved(new, jnp.asarray(told.digests[step])))
            if found is not None and np.array_equal(found.log, told.digests[step]):
                _check_same(saved / str(step), _leaves(new), _leaves(found.state))
                return found.state
        shutil.rmtree(saved / str(step))
    return new


def _restored(saved: pathlib.Path, step: int, like: _Saved) -> _Saved | None:
    try:
        return checkpoint.restore(saved, step, like)
    except UserError:
        # Of a search of fewer steps, too: its arrays have other shapes.
        warnings.warn(
            f"{saved / str(step)} is damaged or of another number of steps: the log is told again.",
            stacklevel=4,
        )
        return None


def _leaves(state: State) -> dict[str, np.ndarray]:
    """What a search is told, by name, and its key."""
    named = {"problem": state.problem, "key": state.key}
    return {name: np.asarray(leaf) for name, leaf in checkpoint.flatten(named).items()}


def _begun(state: State, config: SearchConfig) -> dict[str, Any]:
    leaves = {name: leaf.tolist() for name, leaf in _leaves(state).items()}
    return {"search": to_dict(config), "told": leaves}


def _check_begun(begun: pathlib.Path, state: State, config: SearchConfig) -> None:
    """Raises `UserError` where a session was begun with something else than this."""
    try:
        then = json.loads(begun.read_text(encoding="utf-8"))
        fields, leaves = then["search"], then["told"]
        arrays = {name: np.asarray(leaves[name]) for name in leaves}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{begun} cannot be read ({error}): delete it to go on with the problem and config "
            "that are given."
        ) from None
    for name, value in to_dict(config).items():
        # More of them lengthen a search, and change none of its steps.
        if name != "reward_steps" and fields.get(name) != value:
            _refuse(begun, f"search.{name}", repr(value), repr(fields.get(name)))
    _check_same(begun, _leaves(state), arrays)


def _check_same(where: pathlib.Path, now: dict[str, Any], then: dict[str, Any]) -> None:
    for name, leaf in now.items():
        if name not in then:
            _refuse(where, name, "given", "missing")
        a, b = leaf, np.asarray(then[name])
        if name == "problem.alpha":  # a row for each step
            a, b = a[: len(b)], b[: len(a)]
        if a.shape != b.shape:
            _refuse(where, name, f"of shape {list(a.shape)}", f"of shape {list(b.shape)}")
        same = np.isclose(a, b, _CLOSE, 0) if a.dtype.kind == "f" else a == b
        if not same.all():
            place = np.unravel_index(int(np.argmin(same)), a.shape)
            _refuse(where, name, _text(a[place].item()), _text(b[place].item()))


def _text(value: float | int | bool) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _refuse(where: pathlib.Path, name: str, now: str, then: str) -> NoReturn:
    raise UserError(
        f"{name}={now} is given, and {where} was begun with {then}: give that, or another folder "
        "for another search."
    )
