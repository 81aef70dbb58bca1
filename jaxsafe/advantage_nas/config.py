# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters of estimators and of the search (arXiv 2012.06138 and the authors' code).

Where the authors' code departs from what it says, the default works and the other value is theirs;
`paper_compat` sets them all.
"""

import dataclasses

from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds

# A factor on each edge's score, from gate gradients; the same from losses alone; and others.
GATE_METHODS = ("advantage", "advantage_ema", "counterfactual", "corrected")
LOSS_METHODS = ("reinforce", "rloo")
DENSE_METHODS = ("darts", "proxyless")
METHODS = (*GATE_METHODS, *LOSS_METHODS, "gdas", *DENSE_METHODS, "random")


@dataclasses.dataclass(frozen=True)
class EstimatorConfig:
    """How the gradient of the expected loss by theta is estimated. Static under jit."""

    method: str = field(
        "advantage",
        "advantage: gate gradients, as published; advantage_ema: less their average; "
        "counterfactual: loss less that with the edge's gate at 0; corrected: gate gradients less "
        "half the curvature; reinforce: loss less its average; rloo: loss less the other samples'; "
        "gdas: hard Gumbel-softmax; darts: mixture; proxyless: two paths; random: no gradient.",
        choices=METHODS,
    )
    ema_rate: float = field(0.05, "Weight of the newest value in averages.", low=0.0, high=1.0)
    samples: int = field(2, "Architectures of one estimate of rloo.", low=2)
    in_turn: bool = field(
        False, "counterfactual, corrected: one edge after the other, for memory, not vmapped."
    )
    zero_op: int | None = field(None, "Index of the operation that gives 0, if any.", low=0)
    zero_rule: str = field(
        "gate",
        "The zero operation's advantage; gate: its gate gradient, 0; worst: the greatest average "
        "of the edge's other sampled operations; literal: of all, sampled or not, as theirs.",
        choices=("gate", "worst", "literal"),
    )
    sampler: str = field(
        "exact",
        "exact: softmax(theta); clipped: theirs, uniforms in [.001, .999] and .001 added to p.",
        choices=("exact", "clipped"),
    )
    loss_baseline: str = field(
        "before",
        "reinforce subtracts the average before the current loss, or after it joined (theirs, "
        "which also joins the losses of weight steps).",
        choices=("before", "after"),
    )
    tau_start: float = field(10.0, "Temperature of gdas at the first step.", low=1e-3)
    tau_end: float = field(0.1, "Temperature of gdas at the last.", low=1e-3)
    tau_steps: int = field(0, "Steps from the one to the other; 0: those of the search.", low=0)


@dataclasses.dataclass(frozen=True)
class Config:
    """One search: alternating steps of theta and of the weights. Static under jit."""

    estimator: EstimatorConfig = EstimatorConfig()
    epochs: int = field(40, "Epochs of the search.", low=1)
    freeze_epochs: int = field(10, "First epochs, in which only weights move.", low=0)
    steps_per_epoch: int = field(20, "Updates of one epoch; rates move once in an epoch.", low=1)
    # theta: clip, L2, Adam
    theta_lr: float = field(3e-2, "Adam's learning rate, theta.", low=0.0)
    theta_beta1: float = field(0.5, "Adam's decay of the first moment.", low=0.0, high=0.9999)
    theta_beta2: float = field(0.999, "Adam's decay of the second moment.", low=0.0, high=0.999999)
    theta_l2: float = field(0.0, "Factor of theta in its gradient; theirs: .003.", low=0.0)
    theta_clip: float = field(1.0, "Greatest norm of theta's gradient; inf: no clip.", low=0.0)
    theta_schedule: str = field(
        "cosine", "theta's rate once unfrozen: down to 0, or level.", choices=("cosine", "constant")
    )
    # weights: clip, decay, SGD with momentum
    weight_lr: float = field(0.1, "SGD's learning rate, weights.", low=0.0)
    weight_momentum: float = field(0.9, "SGD's momentum.", low=0.0, high=0.9999)
    weight_nesterov: bool = field(True, "Nesterov's momentum.")
    weight_decay: float = field(5e-4, "Factor of the weights in their gradient.", low=0.0)
    weight_clip: float = field(1.0, "Greatest norm of the weights' gradient; inf: none.", low=0.0)
    weight_schedule: str = field(
        "cosine", "The weights' rate: down to 0, or level.", choices=("cosine", "constant")
    )

    @property
    def total_steps(self) -> int:
        """Updates of the whole search."""
        return self.epochs * self.steps_per_epoch

    @property
    def freeze_steps(self) -> int:
        """First updates, in which theta rests."""
        return self.freeze_epochs * self.steps_per_epoch


def validate(config: Config, prefix: str = "search.") -> None:
    """Raises `UserError` naming field, value and fix where the fields do not fit together."""
    validate_bounds(config, prefix.rstrip("."))
    validate_estimator(config.estimator, f"{prefix}estimator.")
    if config.freeze_epochs >= config.epochs:
        raise UserError(
            f"{prefix}freeze_epochs={config.freeze_epochs} leaves theta nothing of "
            f"{prefix}epochs={config.epochs}: lower the first or raise the second."
        )
    if config.weight_nesterov and not config.weight_momentum:
        raise UserError(
            f"{prefix}weight_momentum=0 has no Nesterov form: set {prefix}weight_nesterov to false."
        )


def validate_estimator(config: EstimatorConfig, prefix: str = "estimator.") -> None:
    """Raises `UserError` naming field, value and fix where the fields do not fit together."""
    validate_bounds(config, prefix.rstrip("."))
    if config.zero_rule != "gate" and config.zero_op is None:
        raise UserError(
            f"{prefix}zero_op=None leaves {prefix}zero_rule={config.zero_rule!r} without its "
            "operation: give its index, or set zero_rule to gate."
        )
    if config.zero_rule != "gate" and config.method != "advantage":
        raise UserError(
            f"{prefix}zero_rule={config.zero_rule!r} is not for {prefix}method={config.method!r}: "
            "set zero_rule to gate; only advantage has another."
        )


def paper_compat(config: Config) -> Config:
    """Returns `config` with the authors' sampler, baseline, zero rule and L2 (traps 6-8, 11, 20).

    The zero rule stays `gate` where there is no zero operation or the method is not theirs.
    """
    estimator = config.estimator
    has_rule = estimator.zero_op is not None and estimator.method == "advantage"
    estimator = dataclasses.replace(
        estimator,
        sampler="clipped",
        loss_baseline="after",
        zero_rule="literal" if has_rule else "gate",
    )
    return dataclasses.replace(config, estimator=estimator, theta_l2=3e-3)


# The published searches. NAS-Bench-201: 25,000 images a half in batches of 64.
NB201 = Config(
    epochs=90,
    freeze_epochs=50,
    steps_per_epoch=390,
    theta_lr=3e-4,
    theta_l2=3e-3,
)
# Penn Treebank: 929,589 tokens in 256 streams of 35 steps; the weights' SGD is plain. An iteration
# of theirs is a step of theta or of the weights, ours both.
PTB = Config(
    epochs=30,
    freeze_epochs=0,
    steps_per_epoch=51,
    theta_lr=3e-3,
    weight_lr=20.0,
    weight_momentum=0.0,
    weight_nesterov=False,
    weight_decay=0.0,
    weight_clip=0.25,
)
