# SPDX-License-Identifier: Apache-2.0
"""TSDI: token-level safety bias, measured and taken off while decoding (arXiv 2502.02153)."""

from jaxsafe.tsdi import models, pool, table_file
from jaxsafe.tsdi.bias import init, split_half, table, update
from jaxsafe.tsdi.config import Config, validate
from jaxsafe.tsdi.decode import correct, gate, processor, raised
from jaxsafe.tsdi.types import Batch, Correction, Model, Pair, State, Table, correction, of_apply

__all__ = [
    "Batch",
    "Config",
    "Correction",
    "Model",
    "Pair",
    "State",
    "Table",
    "correct",
    "correction",
    "gate",
    "init",
    "models",
    "of_apply",
    "pool",
    "processor",
    "raised",
    "split_half",
    "table",
    "table_file",
    "update",
    "validate",
]
