# SPDX-License-Identifier: Apache-2.0
"""What a safe search may be told (paper: arXiv 2505.21852, algorithm 1 and appendix C).

Where the paper's text cannot work as written, the default works and the other value is the text's;
`paper_compat` sets them all.
"""

import dataclasses

from jaxsafe.core.checks import UserError
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.gp.kernels import KERNELS

METHODS = ("pls", "safeopt", "ucb", "seed")


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """One search over a finite grid of targets. Static under jit; numbers are in `Problem`."""

    method: str = field(
        "pls",
        "pls: safe expansion, then safe UCB; safeopt: Sui et al. 2015, maximisers and expanders by "
        "width; ucb: reward UCB that knows no safety; seed: random in the seed set.",
        choices=METHODS,
    )
    explore_steps: int = field(20, "N1, steps of safe expansion at most.", low=0)
    reward_steps: int = field(20, "N2, steps of safe UCB at least.", low=0)
    batch: int = field(1, "Points proposed at once, each safe by the bounds before them.", low=1)
    episodes: int = field(1, "W, episodes of an evaluation; the paper runs 20.", low=1)
    zeta: float = field(
        0.2, "Width of the bounds, in prior deviations, at which expansion ends.", low=0.0
    )
    # the promise
    delta: float = field(0.1, "Probability of any unsafe evaluation.", low=1e-9, high=0.999)
    alpha: str = field(
        "srinivas",
        "Deviations in a bound; srinivas: the paper's; constant: alpha_value; calibrated: "
        "alpha_value as found by `calibrate`.",
        choices=("srinivas", "calibrated", "constant"),
    )
    alpha_value: float | None = field(None, "Deviations, where alpha is not srinivas.", low=0.0)
    split_delta: str = field(
        "constraints",
        "Which share delta: the constraints; all outputs, for a joint claim with the reward; none, "
        "each has all of it.",
        choices=("constraints", "all", "none"),
    )
    intersect: bool = field(True, "A bound never widens: intervals are intersected over steps.")
    retreat: bool = field(False, "After an alarm only the seed set counts as safe.")
    # the model
    kernel: str = field("rbf", "Covariance of every output.", choices=KERNELS)
    lengthscale_factors: tuple[float, ...] = field(
        (1.0,), "Bounds hold for each of these multiples of the lengthscale.", low=1e-3
    )
    noise: str = field(
        "fixed",
        "Variance of an evaluation's mean; fixed: the model's; episodes: from their own spread, "
        "shrunk to the model's.",
        choices=("fixed", "episodes"),
    )
    noise_weight: float = field(
        5.0, "Episodes that the model's variance counts for in that spread.", low=0.0
    )
    # expansion
    expander: str = field(
        "gp",
        "Which safe points may enlarge the safe set; gp: a lucky observation there would; "
        "lipschitz: its lower bound plus L d allows it; literal: minus L d, as printed; none: all.",
        choices=("gp", "lipschitz", "literal", "none"),
    )
    lipschitz: float = field(
        0.0, "L, cost per unit of Euclidean distance on the grid; the paper's is 0.", low=0.0
    )
    # where the paper's text fails: defaults work, the other value is the text's
    safe_rule: str = field(
        "bounds",
        "bounds: a point is safe by its own upper bound; lipschitz: by any safe point's upper "
        "bound plus L d, as printed, which with L = 0 makes one safe point the whole grid.",
        choices=("bounds", "lipschitz"),
    )
    initial_intervals: str = field(
        "seed",
        "Where [floor, b] holds at the start; everywhere, as printed, calls every point safe.",
        choices=("seed", "everywhere"),
    )
    check_prior: bool = field(
        True, "Refuse a prior that calls unseen points safe, such as the paper's mean of 0."
    )
    recommend: str = field(
        "mean",
        "What to deploy; mean: the safe point of greatest mean reward; lower: of greatest lower "
        "bound; last: the last one evaluated, as printed.",
        choices=("mean", "lower", "last"),
    )

    @property
    def num_steps(self) -> int:
        """Steps of the whole search, each of `batch` evaluations."""
        return self.explore_steps + self.reward_steps

    @property
    def capacity(self) -> int:
        """Evaluations of the whole search."""
        return self.num_steps * self.batch


def validate(config: SearchConfig, prefix: str = "search.") -> None:
    """Raises `UserError` naming field, value and fix where the fields do not fit together."""
    validate_bounds(config, prefix.rstrip("."))
    if config.num_steps < 1:
        raise UserError(
            f"{prefix}explore_steps=0 and {prefix}reward_steps=0 leave nothing to do: raise one."
        )
    if not config.lengthscale_factors:
        raise UserError(f"{prefix}lengthscale_factors=() is empty: give at least 1.0.")
    if config.alpha == "constant" and config.alpha_value is None:
        raise UserError(f"{prefix}alpha_value=None gives alpha='constant' no value: give one.")
    if config.alpha == "srinivas" and config.alpha_value is not None:
        raise UserError(
            f"{prefix}alpha_value={config.alpha_value} is not used by alpha='srinivas': drop it or "
            "set alpha to constant."
        )


def paper_compat(config: SearchConfig) -> SearchConfig:
    """Returns `config` with the paper's text taken literally (traps 1-4 and 8 of the notes).

    The prior mean is the `Problem`'s: give `cost_mean=0` for the paper's.
    """
    return dataclasses.replace(
        config,
        expander="literal",
        lipschitz=0.0,
        safe_rule="lipschitz",
        initial_intervals="everywhere",
        check_prior=False,
        recommend="last",
    )
