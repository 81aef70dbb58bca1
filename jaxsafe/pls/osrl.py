# SPDX-License-Identifier: Apache-2.0
"""Weights of OSRL's CDT (PyTorch, `osrl/algorithms/cdt.py`) as parameters of ours."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsafe.core.checks import UserError, did_you_mean
from jaxsafe.pls.policy_config import PolicyConfig
from jaxsafe.pls.policy_types import Params, Policy, Sizes

_DENSE = {
    "return_in": "return_emb",
    "cost_in": "cost_emb",
    "obs_in": "state_emb",
    "action_in": "action_emb",
    "cost_out": "cost_pred_head",
    "obs_out": "state_pred_head",
}
_BLOCK_DENSE = {"out": "attention.out_proj", "wide": "mlp.0", "narrow": "mlp.2"}


class _Reader:
    """Takes arrays out of a mapping by name, and remembers which are left."""

    def __init__(self, state: Mapping[str, Any]):
        self.left = {
            name: np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, np.float32)
            for name, x in state.items()
            if not name.endswith("causal_mask")  # a buffer
        }

    def take(self, name: str) -> np.ndarray:
        if name not in self.left:
            raise UserError(
                f"OSRL's weights have no {name!r}: give the state of a CDT that sees returns and "
                f"costs, with policy.layers as many as its blocks.{did_you_mean(name, self.left)}"
            )
        return self.left.pop(name)

    def dense(self, name: str) -> dict[str, Any]:
        return {"kernel": self.take(f"{name}.weight").T, "bias": self.take(f"{name}.bias")}

    def norm(self, name: str) -> dict[str, Any]:
        return {"scale": self.take(f"{name}.weight"), "bias": self.take(f"{name}.bias")}


def from_osrl_state_dict(state: Mapping[str, Any], config: PolicyConfig) -> Params:
    """Converts `model.state_dict()` of OSRL's CDT, with OSRL's default of which tokens there are.

    The fused in-projection of a block's attention stays fused; mean and log standard deviation of
    the action are one layer here.

    Args:
      state: arrays or tensors by OSRL's names.
      config: of the same sizes; `loss="gaussian"` for stochastic heads, "mse" for others.

    Returns:
      parameters for `Policy.params`; see `policy` for the rest.

    Raises:
      UserError: a name is missing or unknown, or a shape is not what the config says.
    """
    if config.model != "cdt":
        raise UserError(f"policy.model={config.model!r} has no OSRL weights: set it to cdt.")
    read = _Reader(state)
    params: dict[str, Any] = {ours: read.dense(theirs) for ours, theirs in _DENSE.items()}
    params["time"] = read.take("timestep_emb.weight")
    params |= {"norm_in": read.norm("emb_norm"), "norm_out": read.norm("out_norm")}
    for i in range(config.layers):
        params[f"block_{i}"] = _block(read, f"blocks.{i}.")
    if config.loss == "gaussian":
        mean, spread = (read.dense(f"action_head.{name}") for name in ("mu", "log_std"))
        params["action_out"] = {k: np.concatenate([mean[k], spread[k]], -1) for k in mean}
    else:
        params["action_out"] = read.dense("action_head.0")
    if read.left:
        raise UserError(
            f"OSRL's weights have {sorted(read.left)[0]!r}, which this network has no place for: "
            "convert a CDT without cost prefix and cost features, and with policy.layers blocks."
        )
    width = params["time"].shape[1]
    if width != config.width:
        raise UserError(f"policy.width={config.width}, but OSRL's weights have {width}: set that.")
    if len(params["time"]) <= config.context:
        raise UserError(
            f"policy.context={config.context}, but OSRL's weights have {len(params['time'])} time "
            "embeddings, episode_len + seq_len: set it to their seq_len."
        )
    return {"params": _on_device(params)}


def _block(read: _Reader, prefix: str) -> dict[str, Any]:
    block: dict[str, Any] = {k: read.dense(prefix + v) for k, v in _BLOCK_DENSE.items()}
    block["query_key_value"] = {
        "kernel": read.take(f"{prefix}attention.in_proj_weight").T,
        "bias": read.take(f"{prefix}attention.in_proj_bias"),
    }
    return block | {name: read.norm(prefix + name) for name in ("norm1", "norm2")}


def _on_device(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _on_device(value) for name, value in tree.items()}
    return jnp.asarray(tree)


def policy(state: Mapping[str, Any], config: PolicyConfig) -> Policy:
    """Returns a policy that acts as OSRL's does, sizes and T read off the weights' shapes.

    Args:
      state: as `from_osrl_state_dict` takes it.
      config: with the scales the weights were trained with, as `osrl_compat` sets them.

    Raises:
      UserError: as there, or a scale is none, which only data could tell.
    """
    for name in ("return_scale", "cost_scale"):
        if getattr(config, name) is None:
            raise UserError(f"policy.{name}=None needs data: set it to what OSRL trained with.")
    params = from_osrl_state_dict(state, config)
    inner = params["params"]
    obs, action = (inner[name]["kernel"].shape[0] for name in ("obs_in", "action_in"))
    sizes = Sizes(
        obs_mean=jnp.zeros(obs),
        obs_scale=jnp.ones(obs),
        return_scale=jnp.float32(config.return_scale),
        cost_scale=jnp.float32(config.cost_scale),
        obs=obs,
        action=action,
        steps=len(inner["time"]) - config.context,
    )
    return Policy(params, sizes)
