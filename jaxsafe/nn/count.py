# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds of a function, read from its program."""

import math
from collections.abc import Callable
from typing import Any

import jax


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns the multiply-adds of all matrix products and convolutions of `function(*arguments)`.

    Nothing runs: arguments may be `jax.ShapeDtypeStruct`s. A loop counts each turn where their
    number is known, else one; of a conditional the dearest branch counts. Twice the result is what
    is often called FLOPs.
    """
    return _of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of(jaxpr: Any) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out_feature = parameters["dimension_numbers"].rhs_spec[0]
        per_output = math.prod(kernel) // kernel[out_feature]
        return math.prod(equation.outvars[0].aval.shape) * per_output
    inner = [_of(jaxpr) for value in parameters.values() for jaxpr in _programs(value)]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * (parameters["length"] if name == "scan" else 1)


def _programs(value: Any) -> list[Any]:
    """The programs inside a parameter of an equation."""
    if isinstance(value, tuple | list):
        return [program for part in value for program in _programs(part)]
    inner = getattr(value, "jaxpr", value)
    return [inner] if hasattr(inner, "eqns") else []
