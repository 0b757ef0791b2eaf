"""Costs of a model without running it: parameters, bytes and floating-point operations."""

from collections.abc import Mapping
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.platforms import plain

# Arithmetic that costs one operation for each number it gives ...
ELEMENTWISE = {"add", "sub", "mul", "div", "max", "min", "exp", "log", "pow", "integer_pow", "sqrt", "rsqrt", "square"}
# ... and for each number that it takes.
REDUCTIONS = {"reduce_sum", "reduce_max"}


def parameter_count(variables: Mapping[str, Any]) -> int:
    """Learned numbers, without BatchNorm's running statistics. Leaves need only a shape."""
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def model_mib(variables: Mapping[str, Any]) -> float:
    """MiB of parameters and BatchNorm statistics, as a file of weights would hold them."""
    return sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables)) / 2**20


def flops(model: nn.Module, height: int, width: int, frames: int = 0) -> int:
    """Operations that describing one image of `height` x `width` pixels takes, or one clip of so many `frames`.

    A multiply-add of a convolution or matrix product counts 2, other arithmetic 1 a number. The traced program is
    counted, so that the figure depends on the model alone and not on a compiler or device; nothing is computed.
    """
    images = jax.ShapeDtypeStruct((1, *(frames,) * bool(frames), height, width, 3), jnp.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return _count(jax.make_jaxpr(plain(model.apply))(variables, images).jaxpr)


def _count(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    kind, parameters = equation.primitive.name, equation.params
    taken = [prod(variable.aval.shape) for variable in equation.invars]
    given = prod(equation.outvars[0].aval.shape)
    if kind == "conv_general_dilated":
        outputs = equation.invars[1].aval.shape[parameters["dimension_numbers"].rhs_spec[0]]
        return 2 * given * taken[1] // outputs
    if kind == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        return 2 * given * prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if kind.startswith("reduce_window"):
        return given * prod(parameters["window_dimensions"])
    if kind in ELEMENTWISE:
        return given
    if kind in REDUCTIONS:
        return taken[0]
    return parameters.get("length", 1) * sum(_count(body) for body in _bodies(parameters))


def _bodies(parameters: Mapping[str, Any]) -> list[Any]:
    """The programs inside an equation: of a nested jit, a checkpoint, a scan, the branches of a condition.

    Where the platform chooses (`platforms.by_platform`), that of all platforms without one of their own.
    """
    if parameters.get("branches_platforms"):
        parameters = {"branches": parameters["branches"][-1:]}
    values = [p for value in parameters.values() for p in (value if isinstance(value, tuple) else (value,))]
    inner = [getattr(value, "jaxpr", value) for value in values]
    return [body for body in inner if hasattr(body, "eqns")]
