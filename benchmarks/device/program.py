"""A traced step as a program: what its matrix products and convolutions cost."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import jax
from jax.extend import core

PRODUCTS = ("dot_general", "conv_general_dilated")
# cuDNN's attention is one operation; it is counted as its products written out: two forward, four backward.
ATTENTION = {"dot_product_attention_fwd": 2, "dot_product_attention_bwd": 4}


def flops(program: Any) -> Counter[str]:
    """FLOPs of the matrix products and convolutions of a jaxpr, by type and precision ("float32 HIGHEST").

    Of a conditional, the branch with the most counts; where platforms compute in ways of their own, that of all others.
    What a `while` loop repeats counts once.
    """
    counted: Counter[str] = Counter()
    for equation in getattr(program, "jaxpr", program).eqns:
        name = equation.primitive.name
        if name in PRODUCTS:
            counted[_kind(equation)] += _flops(equation)
        elif (fused := name.removesuffix("_wrapper")) in ATTENTION:
            counted[str(equation.invars[0].aval.dtype)] += ATTENTION[fused] * _attention_flops(equation)
        elif name == "cond":
            branches, by_platform = equation.params["branches"], equation.params.get("branches_platforms")
            counted += flops(branches[-1]) if by_platform else max(map(flops, branches), key=Counter.total)
        else:
            repeats = equation.params["length"] if name == "scan" else 1
            for inner in filter(_is_program, jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program)):
                counted += Counter({kind: repeats * count for kind, count in flops(inner).items()})
    return counted


def _kind(equation: Any) -> str:
    """Type and precision, which is none, one for each operand, or an algorithm for both."""
    kind, precision = str(equation.invars[0].aval.dtype), equation.params["precision"]
    if precision is None:
        return kind
    return f"{kind} {(precision[0] if isinstance(precision, tuple) else precision).name}"


def _attention_flops(equation: Any) -> int:
    """Of one product of an attention; queries are [B, T, N, H], or [B, N, T, H] where the layout is 1."""
    query, key = (variable.aval.shape for variable in equation.invars[:2])
    return 2 * prod(query) * key[1 + equation.params["layout"]]


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _flops(equation: Any) -> int:
    left, right = (variable.aval for variable in equation.invars[:2])
    out = equation.outvars[0].aval
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * prod(out.shape) * prod(left.shape[axis] for axis in contracted)
    # Zeros that a stride puts between the elements of a gradient are no work.
    spread = prod(equation.params["lhs_dilation"])
    kernel = equation.params["dimension_numbers"].rhs_spec[1:]
    return 2 * prod(out.shape) * prod(right.shape[axis] for axis in kernel) // spread
