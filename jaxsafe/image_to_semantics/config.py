# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters of the image encoder and of the predictors on top of it.

Published values are those of the authors' code (madoibito80/im2sem at 043ffc6) where the paper is
silent.
"""

import dataclasses

from jaxsafe.core import checks
from jaxsafe.core.config import field
from jaxsafe.core.config import validate as validate_bounds

ENCODERS = ("shared", "separate", "joint")
BODIES = ("points", "dense")
DECODERS = ("subpixel", "transposed")
RANGES = ("relative", "absolute")
# Rows and columns of images; the published layers reduce just these to one.
SIDE = 64
LAYERS = 6


@dataclasses.dataclass(frozen=True)
class Config:
    """One learner: a variational autoencoder of images, then predictors of semantics. Static."""

    # the autoencoder
    frames: int = field(2, "Images stacked, the newest first; 2 show velocities.", low=1, high=8)
    encoders: str = field(
        "shared",
        "One encoder for every frame, one for each (published), or one that sees all at once.",
        choices=ENCODERS,
    )
    encoder: str = field(
        "points",
        "What an encoder makes of its convolutions: places at which the third one's channels are "
        "strongest, or the last one's features (published).",
        choices=BODIES,
    )
    points: int = field(32, "Such places.", low=1)
    latent: int = field(32, "Latent dimensions per frame.", low=1)
    widths: tuple[int, ...] = field(
        (16, 32, 32, 32, 32, 64), "Channels of the encoder's six convolutions.", low=1
    )
    decoder: str = field(
        "subpixel",
        "Decoder: subpixel convolutions, or transposed ones (published; slow on CPUs).",
        choices=DECODERS,
    )
    decoder_widths: tuple[int, ...] = field(
        (32, 16, 16, 8), "Channels at sides 4, 8, 16 and 32 of the subpixel decoder.", low=1
    )
    reconstruction_weight: float = field(
        10.0, "Weight of the squared pixel errors; published: 50.", low=0.0
    )
    colour_weight: float = field(
        10.0,
        "Further weight of a pixel's error, times the pixel's saturation: small coloured things "
        "count beside a grey floor; published: 0.",
        low=0.0,
    )
    kl_weight: float = field(1.0, "Weight of the divergence from the prior.", low=0.0)
    vae_steps: int = field(1500, "Minibatches that train the autoencoder.", low=1)
    vae_batch: int = field(25, "Images, or stacks of them, in one of these; published: 50.", low=1)
    vae_lr: float = field(2e-3, "Adam's learning rate, autoencoder; published: 1e-3.", low=0.0)
    # the predictors
    head_width: int = field(
        32, "Width of the three hidden layers for each dimension; published: 64.", low=1
    )
    head_steps: int = field(2500, "Minibatches that train the predictors.", low=1)
    head_batch: int = field(50, "Pairs in one of these.", low=1)
    head_lr: float = field(1e-3, "Adam's learning rate, predictors; published: 5e-4.", low=0.0)
    latent_noise: float = field(
        0.3,
        "Noise on the latents that predictors train on, in standard deviations of a minibatch's; "
        "they act without.",
        low=0.0,
    )
    sample_latents: bool = field(
        False, "Predictors train and act on a sampled latent (published), not on its mean."
    )
    range_margin: str = field(
        "relative",
        "What is added to a range before dividing: 1e-6 of the largest, or 0.01 (published).",
        choices=RANGES,
    )

    @property
    def encoded(self) -> int:
        """Size of what predictors see."""
        return self.latent * self.frames


def validate(config: Config, prefix: str = "algo.") -> None:
    """Raises `UserError` naming field, value and fix where the fields do not fit together."""
    validate_bounds(config, prefix.rstrip("."))
    for name, wanted in (("widths", LAYERS), ("decoder_widths", 4)):
        given = getattr(config, name)
        if len(given) != wanted:
            raise checks.UserError(
                f"{prefix}{name}={','.join(map(str, given))} has {len(given)} values: "
                f"give {wanted}."
            )


PAPER = Config(
    encoders="separate",
    encoder="dense",
    decoder="transposed",
    reconstruction_weight=50.0,
    colour_weight=0.0,
    vae_steps=40_000,
    vae_batch=50,
    vae_lr=1e-3,
    head_width=64,
    head_lr=5e-4,
    head_steps=40_000,
    sample_latents=True,
    range_margin="absolute",
)
