# SPDX-License-Identifier: Apache-2.0
"""Policies between two policies: of weights (P-SACPO) and, exactly, of laws.

P-SACPO averages weights: theta(q) = (1 - q) theta_H + q theta_HS (line/sacpo config/merge). The
geometric merge log pi_q = (1 - q) log pi_H + q log pi_HS - log Z is what that approximates: with
pi_H and pi_HS optima of multipliers 0 and lambda, it is the optimum of q lambda at the same beta.
Between pi_H and the safety model trained from SFT alone, both are the naive baseline.

Z is one number per prompt for whole answers. Decoding by `geometric` normalises at every token
instead, which is the same for answers of one token only; the two differ by prod_t Z_t(prefix).
"""

import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe.core import checks
from jaxsafe.core.checks import UserError
from jaxsafe.lm import hf, tensors
from jaxsafe.sacpo.types import Params

_PIECE = 2**24  # elements averaged at once


def average(a: np.ndarray, b: np.ndarray, q: float) -> np.ndarray:
    """a + q (b - a) in the dtype of both, one rounding from float64; q = 0 and 1 give the bits."""
    if q in (0.0, 1.0):
        return np.array(b if q else a)
    out = np.empty(a.shape, a.dtype)
    flat, one, other = out.reshape(-1), a.reshape(-1), b.reshape(-1)
    for i in range(0, flat.size, _PIECE):
        piece = slice(i, i + _PIECE)
        x, y = (np.asarray(z[piece], np.float64) for z in (one, other))
        flat[piece] = (x + q * (y - x)).astype(a.dtype)
    return out


def linear(a: Params, b: Params, q: float | jax.Array) -> Params:
    """(1 - q) a + q b of two trees of arrays; pure, so that q may be traced.

    Raises:
      UserError: the trees differ in names, shapes or dtypes.
    """
    named = [
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(x)}
        for x in (a, b)
    ]
    _check_alike("one tree", named[0], "the other", named[1])

    def between(x: jax.Array, y: jax.Array) -> jax.Array:
        mean = jnp.where(q == 1, y, x + q * (y - x))
        return jnp.where(q == 0, x, mean).astype(x.dtype)  # also where y - x overflows

    return jax.tree.map(between, a, b)


def folders(
    a: str | pathlib.Path,
    b: str | pathlib.Path,
    q: float,
    out: str | pathlib.Path,
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes the model with weights (1 - q) a + q b, with one tensor of each in memory at a time.

    Args:
      a: Hugging Face folder, whose config and tokenizer the new one takes.
      b: another of the same architecture.
      q: share of `b`.
      out: folder to write.
      shard_bytes: largest file.

    Raises:
      UserError: q outside [0, 1], a folder that cannot be read, or models of other tensors.
    """
    checks.check_range("q", q, 0.0, 1.0)
    a, b, out = map(pathlib.Path, (a, b, out))
    if out.resolve() in (a.resolve(), b.resolve()):
        raise UserError(f"out={out} is one of the models to merge: name another folder.")
    one, other = tensors.read_folder(a), tensors.read_folder(b)
    _check_alike(str(a), one, str(b), other)
    pending = {
        name: tensors.Pending(x.dtype, x.shape, functools.partial(_between, x, other[name], q))
        for name, x in one.items()
    }
    tensors.write_folder(out, pending, shard_bytes)
    (out / "config.json").write_bytes((a / "config.json").read_bytes())
    hf.copy_tokenizer(a, out)


def _between(a: tensors.Stored, b: tensors.Stored, q: float) -> np.ndarray:
    return average(a.open(), b.open(), q)


def _check_alike(a: str, one: dict, b: str, other: dict) -> None:
    for name in sorted(set(one) | set(other)):
        if name not in one or name not in other:
            holder, lacking = (a, b) if name in one else (b, a)
            raise UserError(f"{holder} has {name}, {lacking} has not: merge models of one kind.")
        x, y = one[name], other[name]
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise UserError(
                f"{name} is {x.dtype}{list(x.shape)} in {a} and {y.dtype}{list(y.shape)} in {b}: "
                "merge models of one kind."
            )


def geometric(logits: jax.Array, other: jax.Array, q: float | jax.Array) -> jax.Array:
    """log of p^(1-q) p'^q / Z `[..., V]`, of the laws that two models' logits stand for."""
    mixed = (1 - q) * jax.nn.log_softmax(logits) + q * jax.nn.log_softmax(other)
    return jax.nn.log_softmax(mixed)


def mixture(
    apply: Callable[..., jax.Array], other: Callable[..., jax.Array], q: float
) -> Callable[..., jax.Array]:
    """`apply((params, other's params), ids, mask) -> logits [B, T, V]` of the geometric merge.

    Generation has it with a cache for each: `lm.generate(models, ..., mix=(1 - q, q))`.
    """

    def mixed(params: tuple[Params, Params], ids: jax.Array, mask: jax.Array) -> jax.Array:
        return geometric(apply(params[0], ids, mask), other(params[1], ids, mask), q)

    return mixed
