# SPDX-License-Identifier: Apache-2.0
"""What a return-conditioned policy and its offline training may be told.

Two models: a perceptron (RvS; Emmons et al., arXiv 2112.10751) and the Constrained Decision
Transformer (CDT; Liu et al., arXiv 2302.07351) as liuzuxin/OSRL has it. Where OSRL's code cannot
work as intended, the default works and the other value is OSRL's; `osrl_compat` sets them all.
"""

import dataclasses

from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds

MODELS = ("rvs", "cdt")


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """One policy and its training; static under jit."""

    model: str = field("rvs", "rvs: a perceptron; cdt: a decision transformer.", choices=MODELS)
    loss: str = field(
        "mse",
        "Of actions; mse: squared error; gaussian: likelihood and entropy.",
        choices=("mse", "gaussian"),
    )
    # training
    steps: int = field(12_000, "Optimizer steps.", low=1)
    batch_size: int = field(256, "Windows per step.", low=1)
    learning_rate: float = field(1e-3, "Of AdamW, after its warm-up.", low=0.0)
    warmup_steps: int = field(500, "Steps over which the rate grows linearly.", low=1)
    weight_decay: float = field(1e-4, "Of AdamW, on every parameter.", low=0.0)
    betas: tuple[float, float] = field((0.9, 0.999), "Of AdamW.", low=0.0, high=0.999999)
    clip: float = field(0.25, "Greatest norm of the gradient; inf: none.", low=0.0)
    temperature: float = field(0.1, "First weight of the entropy; 0: no entropy term.", low=0.0)
    temperature_lr: float = field(1e-4, "Adam's rate for the logarithm of that weight.", low=0.0)
    entropy_target: float | None = field(
        -1.0,
        "Entropy per action dimension that the weight aims at; none: minus the number of "
        "dimensions, OSRL's, which ends near deterministic where there are many.",
    )
    clip_log_std: bool = field(
        True,
        "Keep log standard deviations in [-5, 2]; OSRL names these bounds and does not use "
        "them, so densities have no limit.",
    )
    cost_loss: float = field(0.02, "cdt: weight of predicting whether a step costs.", low=0.0)
    state_loss: float = field(0.0, "cdt: weight of predicting the next observation.", low=0.0)
    masked_losses: bool = field(
        True,
        "Every loss is a mean over real steps. OSRL divides those of costs, observations and "
        "mse by padded steps too, and lets the last real step predict the padding.",
    )
    cost_labels: str = field(
        "positive",
        "What the cost head predicts; positive: any cost; truncated: its integer part, OSRL's, "
        "for which a cost of 0.9 is none.",
        choices=("positive", "truncated"),
    )
    # inputs
    standardise: bool = field(True, "Networks see observations of zero mean and unit variance.")
    return_scale: float | None = field(
        None, "Factor on returns-to-go; none: 1 / the greatest in the data. OSRL's is 0.1.", low=0.0
    )
    cost_scale: float | None = field(
        None, "Factor on costs-to-go; none: 1 / the greatest in the data. OSRL's is 1.", low=0.0
    )
    flip_costs: bool = field(
        False, "cdt: tokens hold 50 - cost-to-go, as OSRL's whatever the scale; needs cost_scale."
    )
    episode_steps: int = field(
        0, "T that times are counted against; 0: the data's longest episode. OSRL's is 300.", low=0
    )
    # rvs
    hidden: tuple[int, ...] = field((128, 128), "rvs: widths of the hidden layers.", low=1)
    rate_limit: float = field(
        5.0, "rvs: to-go per remaining step is clipped at so many times the scaled mean.", low=0.0
    )
    # cdt
    context: int = field(10, "cdt: K, steps that the transformer sees.", low=1)
    width: int = field(128, "cdt: of the embeddings.", low=1)
    layers: int = field(3, "cdt: transformer blocks.", low=1)
    heads: int = field(8, "cdt: of the attention.", low=1)
    embedding_dropout: float = field(0.1, "cdt: after the first norm.", low=0.0, high=0.99)
    attention_dropout: float = field(0.1, "cdt: on attention weights.", low=0.0, high=0.99)
    residual_dropout: float = field(0.1, "cdt: on each block's two branches.", low=0.0, high=0.99)
    # which windows
    sample_below: float | None = field(
        None,
        "Draw an episode with probability in proportion to max(this - its cost return, 0); none: "
        "alike. OSRL's is 70, which never draws what costs more, whatever the threshold.",
    )
    augment: float = field(
        0.0, "Relabelled episodes to add, as a share of the data; OSRL's is 0.2.", low=0.0
    )
    augment_degree: int = field(4, "Of the polynomial through the Pareto frontier.", low=0)
    augment_min_reward: float = field(1.0, "Relabelled returns lie so far above the frontier.")
    augment_max_reward: float | None = field(
        None, "Greatest relabelled return; none: the data's greatest and a tenth of its range."
    )
    augment_decrease: float | None = field(
        None,
        "An episode stands in for a nearest one whose return is at most this much greater; none: "
        "a tenth of the data's range.",
        low=0.0,
    )
    augment_beta: float = field(1.0, "Stand-ins are drawn by 1 / (distance + this).", low=1e-6)
    augment_thin: bool = field(True, "Look for the frontier in a 10 x 50 grid's kept episodes.")
    augment_pairing: str = field(
        "paired",
        "paired: each target has the episode chosen for it; grouped: OSRL's order, in which a "
        "target may meet an episode that costs more.",
        choices=("paired", "grouped"),
    )
    augment_curve: str = field(
        "shift",
        "How curves of to-go meet the target; shift: by a constant, OSRL's, which stays to the "
        "episode's end; proportional: by a factor, so that they end as they did.",
        choices=("shift", "proportional"),
    )
    guard_degree: bool = field(
        True, "Lower the degree to what the frontier's points carry; OSRL's fit may be NaN."
    )
    # rollouts
    rollout_block: int = field(
        16, "cdt: episodes run side by side, about what a CPU's caches hold; 0: all of them.", low=0
    )
    divide_costs: bool = field(
        False, "Divide cost returns by cost_scale, as OSRL's evaluation does to unscaled ones."
    )

    @property
    def window(self) -> int:
        """Steps of a training window: K, or 1 for rvs."""
        return self.context if self.model == "cdt" else 1


def validate(config: PolicyConfig, prefix: str = "policy.") -> None:
    """Raises `UserError` naming field, value and fix where the fields do not fit together."""
    validate_bounds(config, prefix.rstrip("."))
    if config.model == "cdt" and config.width % config.heads:
        raise UserError(
            f"{prefix}width={config.width} is no multiple of {prefix}heads={config.heads}: set it "
            f"to {-(-config.width // config.heads) * config.heads}."
        )
    if config.flip_costs and config.cost_scale is None:
        raise UserError(
            f"{prefix}flip_costs=True counts in units that {prefix}cost_scale=None leaves open: "
            "set cost_scale to 1."
        )


# The transformer with OSRL's sizes and rates, and what of its code works.
CDT = PolicyConfig(
    model="cdt",
    loss="gaussian",
    steps=100_000,
    batch_size=2048,
    learning_rate=1e-4,
    augment=0.2,
)


def osrl_compat(config: PolicyConfig) -> PolicyConfig:
    """Returns `config` with every quirk of OSRL's code put back (traps a to l of the notes).

    Its fixed T of 300 is among them: longer episodes are then refused. Of the traps outside a
    policy, OSRL's choice of a checkpoint by 1,200 unvetted episodes has no counterpart here, and
    `data.trajectories` drops a trailing episode as OSRL does.
    """
    return dataclasses.replace(
        config,
        standardise=False,
        return_scale=0.1,
        cost_scale=1.0,
        flip_costs=True,
        episode_steps=300,
        entropy_target=None,
        clip_log_std=False,
        masked_losses=False,
        cost_labels="truncated",
        sample_below=70.0,
        augment_pairing="grouped",
        augment_curve="shift",
        augment_thin=True,
        guard_degree=False,
        divide_costs=True,
    )
