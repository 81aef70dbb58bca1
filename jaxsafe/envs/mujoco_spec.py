# SPDX-License-Identifier: Apache-2.0
"""What a MuJoCo task is, once, for both engines."""

import contextlib
import dataclasses
import importlib.resources
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mujoco

from jaxsafe.core.checks import UserError

_THEIRS = "gymnasium:"


@dataclasses.dataclass(frozen=True)
class MujocoSpec:
    """One task, once, for both engines: MJX (`make`) and MuJoCo C (`envs.host`).

    Its functions take the array namespace `xp` (`numpy` or `jax.numpy`) and any leading batch axes,
    so that the two engines cannot drift apart.

    `derived` is a dict of `MjData` arrays, as a control step leaves them, for rewards and
    observations that depend on more than positions and velocities. MuJoCo computes them ahead of
    its last integration, so they lag behind `qpos` and cannot be recomputed from it; the state
    carries them along. It is empty for most tasks.

    Attributes:
      name: the task's name, Gymnasium's where there is one.
      asset: file name of the MJCF under `envs/assets`, or, after `gymnasium:`, of the MJCF that the
        installed Gymnasium brings.
      frame_skip: physics steps in one control step.
      max_episode_steps: control steps until `truncated`.
      reset_noise: half-width of the uniform noise on every position and velocity at reset.
      explore_qpos: `[nq]` half-widths of the exploring starts around `qpos0`.
      explore_qvel: `[nv]` half-widths of the exploring starts around rest.
      obs_scale: `[O]` factors for network inputs.
      ls_iterations: line-search steps of MJX's solver. In 32 bits it takes all it is given, mostly
        without effect; MuJoCo C stops by itself.
      parameters: `(name, field, element)`: the element is a body or geom, by name or, where it has
        none, by index; None is all of them.
      observe: `(xp, qpos [..., nq], qvel [..., nv], derived) -> obs [..., O]`.
      terminated: `(xp, qpos [..., nq], qvel [..., nv]) -> [...]` bool.
      reward: `(xp, before, qpos, qvel, action, terminated, derived_before, derived) -> [...]`;
        what ends in `before` is from ahead of the step, and `action` is clipped.
      cost: safety cost, of the arguments that `reward` takes; None where there is none.
      derived: names of the arrays in `derived`; of `xpos`, `cinert`, `cvel`, `qfrc_actuator` and
        `cfrc_ext`.
      reset_normal: velocities at reset are normal with standard deviation `reset_noise`.
      newton: replaces the solver that the MJCF asks for by Newton's, in both engines.
    """

    name: str
    asset: str
    frame_skip: int
    max_episode_steps: int
    reset_noise: float
    explore_qpos: tuple[float, ...]
    explore_qvel: tuple[float, ...]
    obs_scale: tuple[float, ...]
    ls_iterations: int
    parameters: tuple[tuple[str, str, str | int | None], ...]
    observe: Callable[..., Any]
    terminated: Callable[..., Any]
    reward: Callable[..., Any]
    cost: Callable[..., Any] | None = None
    derived: tuple[str, ...] = ()
    reset_normal: bool = False
    newton: bool = False

    def pay(self, xp, before, qpos, qvel, action, terminated, derived_before=(), derived=()):
        """Returns `(reward, cost)` of a control step, `[...]` each; arguments as `reward`'s."""
        step = (xp, before, qpos, qvel, action, terminated, derived_before, derived)
        reward = self.reward(*step)
        return reward, xp.zeros_like(reward) if self.cost is None else self.cost(*step)


class HostTask(NamedTuple):
    """The spec and its compiled model, for MuJoCo C."""

    spec: MujocoSpec
    model: mujoco.MjModel


def mjcf(spec: MujocoSpec) -> str:
    """The MJCF of `spec`, as its file has it.

    Raises:
      UserError: if the MJCF is Gymnasium's and Gymnasium is not installed.
    """
    if spec.asset.startswith(_THEIRS):
        asset = _gymnasium_assets(spec.name).joinpath(spec.asset.removeprefix(_THEIRS))
    else:
        asset = importlib.resources.files("jaxsafe.envs").joinpath("assets", spec.asset)
    return asset.read_text(encoding="utf-8")


@contextlib.contextmanager
def quiet_mujoco() -> Iterator[None]:
    """MuJoCo would print that HalfCheetah's MJCF is dated, and log it to a file in this folder."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def compile_model(spec: MujocoSpec, text: str | None = None) -> mujoco.MjModel:
    """Returns an `MjModel` of `spec`: the nominal one of its own MJCF, or that of another `text`.

    Raises:
      UserError: as `mjcf`.
    """
    with quiet_mujoco():
        model = mujoco.MjModel.from_xml_string(mjcf(spec) if text is None else text)
    if spec.newton:
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return model


def _gymnasium_assets(name: str):
    try:
        package = importlib.resources.files("gymnasium")
    except ModuleNotFoundError:
        raise UserError(
            f"{name} takes its robot from Gymnasium, which is not installed: pip install "
            "'gymnasium<1.4', the versions that gymnax takes as well."
        ) from None
    return package.joinpath("envs", "mujoco", "assets")
