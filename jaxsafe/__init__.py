# SPDX-License-Identifier: Apache-2.0
"""Safe and robust decision-making in pure JAX, from physics simulation to language models."""

__version__ = "0.1.0"
