# SPDX-License-Identifier: Apache-2.0
"""A bias as one safetensors file that other stacks can read, and that knows whose it is.

Tensors `bias` and `error`, `[L, V]` float32; metadata `space` and what `Made` names, all text.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, numpy, safe_open

from jaxsafe.core.checks import UserError
from jaxsafe.tsdi.config import SPACES
from jaxsafe.tsdi.types import Table

FORMAT = "jaxsafe.tsdi.1"


@dataclasses.dataclass(frozen=True)
class Made:
    """What a table was made of. The first four must agree where it is used."""

    safe: str  # fingerprint of the safe model's parameters
    reference: str
    tokenizer: str
    template: str
    draws: int = 0
    prompt_length: int = 0
    prefix: str = ""
    pool: str = ""
    seed: int = 0


MUST_AGREE = ("safe", "reference", "tokenizer", "template")


def save(path: str | pathlib.Path, table: Table, made: Made) -> None:
    """Writes a table; raises `UserError` where the disk does not take it or it holds a NaN."""
    arrays = {"bias": np.asarray(table.bias), "error": np.asarray(table.error)}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"the table's {name} is not finite: check both models' logits.")
    metadata = {"format": FORMAT, "space": table.space}
    metadata |= {name: str(value) for name, value in dataclasses.asdict(made).items()}
    path = pathlib.Path(path)
    part = path.with_name(path.name + ".part")
    try:
        numpy.save_file(arrays, part, metadata)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error}.") from None


def load(
    path: str | pathlib.Path, expected: Mapping[str, str] | None = None
) -> tuple[Table, dict[str, str]]:
    """Reads a table and what it was made of.

    Args:
      path: a file of `save`.
      expected: values that the file's must equal, such as the fingerprints of MUST_AGREE.

    Raises:
      UserError: no such file, a damaged one, or one made for other models.
    """
    path = pathlib.Path(path)
    try:
        with safe_open(path, "numpy") as file:
            metadata = dict(file.metadata() or {})
            names = set(file.keys())
            arrays = {name: file.get_tensor(name) for name in names & {"bias", "error"}}
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no bias table: {error}.") from None
    _check(path, metadata, arrays)
    for name, value in (expected or {}).items():
        if metadata.get(name) != value:
            raise UserError(
                f"{path} was made with {name}={metadata.get(name)!r}, and here it is {value!r}: "
                "estimate a table for these models."
            )
    table = Table(jnp.asarray(arrays["bias"]), jnp.asarray(arrays["error"]), metadata["space"])
    return table, metadata


def _check(
    path: pathlib.Path, metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]
) -> None:
    if metadata.get("format") != FORMAT or metadata.get("space") not in SPACES:
        raise UserError(f"{path} is no bias table: its metadata lack format={FORMAT} or a space.")
    for name in ("bias", "error"):
        if name not in arrays:
            raise UserError(f"{path} is no bias table: tensor {name!r} is missing.")
        array = arrays[name]
        if array.ndim != 2 or array.dtype != np.float32 or not np.isfinite(array).all():
            raise UserError(
                f"{path}: tensor {name!r} is {array.dtype}{list(array.shape)}, not finite float32 "
                "[L, V]: estimate the table anew."
            )
    if arrays["bias"].shape != arrays["error"].shape:
        shapes = f"{list(arrays['bias'].shape)} and {list(arrays['error'].shape)}"
        raise UserError(f"{path}: bias and error have shapes {shapes}: estimate the table anew.")
