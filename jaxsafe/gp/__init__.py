# SPDX-License-Identifier: Apache-2.0
"""Gaussian processes: tinygp's kernels and fits, and a posterior that grows on a finite grid."""

from jaxsafe.gp.fit import Hyperparameters, fit, log_likelihood
from jaxsafe.gp.grid import AXES, Posterior, add, covariance, init, std
from jaxsafe.gp.kernels import KERNELS, cross, make

__all__ = [
    "AXES",
    "KERNELS",
    "Hyperparameters",
    "Posterior",
    "add",
    "covariance",
    "cross",
    "fit",
    "init",
    "log_likelihood",
    "make",
    "std",
]
