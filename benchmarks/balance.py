# SPDX-License-Identifier: Apache-2.0
"""A policy that keeps every pole of InvertedPendulum-2 up, so that no episode ends early."""

import numpy as np

GAINS = np.array([0.2024, 15.0148, 0.3707, 0.5322], np.float32)


def force(xp, obs, gains=GAINS):
    """Linear, clipped actions `[..., 1]` for observations `[..., 4]`; `xp`: numpy or jax.numpy."""
    return xp.clip(obs @ gains, -3, 3)[..., None]
