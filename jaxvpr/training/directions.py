"""Where an optimiser goes, by name, with torch's semantics: gradients, parameters and a rate -> what to subtract.

Each is an optax transformation whose `update(grads, state, params, rate=…, factors={path: factor})` gives what is
subtracted from the parameters, a dict by path. All but ASGD give `rate * factor` times a direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvpr.errors import UserError


def _along(*parts: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Goes `rate * factor` along the direction that the parts give one after the other."""
    chain = optax.chain(*parts)

    def update(grads: Any, state: Any, params: Any, *, rate: jax.Array, factors: Mapping[str, float]) -> Any:
        direction, state = chain.update(grads, state, params)
        return {path: _scaled(leaf, rate * factors[path]) for path, leaf in direction.items()}, state

    return optax.GradientTransformationExtraArgs(chain.init, update)


def _scaled(tree: Any, far: jax.Array) -> Any:
    return jax.tree.map(lambda x: far.astype(x.dtype) * x, tree)


def _coupled(weight_decay: float) -> optax.GradientTransformation:
    """Weight decay as part of the gradient."""
    return optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()


def _sgd(*, momentum: float, nesterov: bool, weight_decay: float, **_: Any) -> optax.GradientTransformationExtraArgs:
    """Without dampening, as torch's default."""
    if nesterov and not momentum:
        raise UserError("nesterov=True needs a momentum above 0")
    return _along(_coupled(weight_decay), optax.trace(momentum, nesterov) if momentum else optax.identity())


def _adam(*, b1: float, b2: float, eps: float, weight_decay: float, **_: Any) -> optax.GradientTransformationExtraArgs:
    return _along(_coupled(weight_decay), optax.scale_by_adam(b1, b2, eps))


def _adamw(*, b1: float, b2: float, eps: float, weight_decay: float, **_: Any) -> optax.GradientTransformationExtraArgs:
    return _along(optax.scale_by_adam(b1, b2, eps), optax.add_decayed_weights(weight_decay))


def _radam(*, b1: float, b2: float, eps: float, weight_decay: float, **_: Any) -> optax.GradientTransformationExtraArgs:
    return _along(_coupled(weight_decay), _scale_by_radam(b1, b2, eps))


def _scale_by_radam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Rectified Adam (Liu et al., ICLR 2020). Unlike optax's, with `eps` beside the uncorrected root, as torch has it,
    and exact in float32."""

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        count = state.count + 1
        mu, nu = optax.tree.update_moment(grads, state.mu, b1, 1), optax.tree.update_moment(grads, state.nu, b2, 2)
        steps = count.astype(jnp.result_type(float))
        first = 1.0 / -jnp.expm1(steps * math.log(b1)) if b1 else jnp.ones_like(steps)
        root = jnp.sqrt(-jnp.expm1(steps * math.log(b2)))
        sure, rectified = _rectification(steps, b2)

        def go(m: jax.Array, v: jax.Array) -> jax.Array:
            adaptive = (rectified * root).astype(m.dtype) / (jnp.sqrt(v) + eps)
            return first.astype(m.dtype) * m * jnp.where(sure, adaptive, jnp.ones_like(m))

        return jax.tree.map(go, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _rectification(steps: jax.Array, b2: float) -> tuple[jax.Array, jax.Array]:
    """Whether the variance can be told after so many steps, and by how much its root is too small.

    The length of the moving average, 2/(1-b2) - 1 - 2t b2^t/(1-b2^t), is a small difference of large numbers; it is
    written here as a constant and a multiple of 1 - x/(e^x - 1), x = -t log b2, which has a series about 0.
    """
    decay, longest = -math.log(b2), 2.0 / (1.0 - b2) - 1.0
    x = steps * decay
    series = x / 2 - x**2 / 12 + x**4 / 720 - x**6 / 30240
    length = (longest - 2.0 / decay) + 2.0 / decay * jnp.where(x < 0.5, series, 1.0 - x / jnp.expm1(x))
    sure = length > 5.0
    known = jnp.where(sure, length, longest)
    ratio = (known - 4.0) * (known - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * known)
    return sure, jnp.sqrt(ratio)


class AsgdState(NamedTuple):
    """What ASGD carries.

    Attributes:
      made: updates, int32 [].
      rate: the learning rate of the update before, float32 [].
      mean: the average of the parameters from update `t0` on, before it the parameters.
    """

    made: jax.Array
    rate: jax.Array
    mean: Any


def _asgd(
    *, lambd: float, alpha: float, t0: float, weight_decay: float, **_: Any
) -> optax.GradientTransformationExtraArgs:
    """Averaged SGD (Polyak and Juditsky, 1992). As in torch, its own decay of the rate looks at the rate of the update
    before, and the average is kept aside: what trains, and what torch evaluates, are the plain parameters."""

    def init(params: Any) -> AsgdState:
        zero = jnp.zeros((), jnp.float32)
        return AsgdState(jnp.zeros((), jnp.int32), zero, optax.tree.zeros_like(params))

    def update(grads: Any, state: Any, params: Any, *, rate: jax.Array, factors: Mapping[str, float]) -> Any:
        made = state.made.astype(jnp.float32)
        before = jnp.where(state.made == 0, rate, state.rate)

        def go(path: str) -> Any:
            far = before * factors[path]
            far = far / (1.0 + lambd * far * made) ** alpha
            pulled = jax.tree.map(lambda g, p: g + (weight_decay + lambd) * p, grads[path], params[path])
            return _scaled(pulled, far)

        moves = {path: go(path) for path in grads}
        share = 1.0 / jnp.maximum(state.made - int(t0), 1).astype(jnp.float32)

        def average(mean: jax.Array, p: jax.Array, move: jax.Array) -> jax.Array:
            part = share.astype(p.dtype)
            return (1.0 - part) * mean + part * (p - move)

        mean = jax.tree.map(average, state.mean, params, moves)
        return moves, AsgdState(state.made + 1, rate, mean)

    return optax.GradientTransformationExtraArgs(init, update)


DIRECTIONS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    "adam": _adam,
    "adamw": _adamw,
    "asgd": _asgd,
    "radam": _radam,
    "sgd": _sgd,
}
