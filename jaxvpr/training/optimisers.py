"""Optimisers and schedules by name, with torch's semantics; freezing and learning rates by parameter pattern.

A transform here gives a direction; the step multiplies it by the learning rate of the moment. So one schedule, read at
the run's own step, serves the model and every stacked head, also one that trains only every eighth epoch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvpr.errors import UserError

Schedule = Callable[[jax.Array], jax.Array]


class Optimiser(NamedTuple):
    """A direction and how far to go along it.

    Attributes:
      transform: gradients -> direction (to be subtracted).
      rate: step -> learning rate.
      clip: largest global norm of the gradients, 0 for none.
      factors: (pattern, factor) pairs; the first pattern found in a parameter's path scales its learning rate.
    """

    transform: optax.GradientTransformation
    rate: Schedule
    clip: float = 0.0
    factors: tuple[tuple[str, float], ...] = ()

    def update(self, grads: Any, state: Any, params: Any, step: jax.Array) -> tuple[Any, Any]:
        """One step: (new params, new optimiser state)."""
        if self.clip:
            shrink = jnp.minimum(1.0, self.clip / (optax.tree.norm(grads) + 1e-6))
            grads = jax.tree.map(lambda g: g * shrink, grads)
        direction, state = self.transform.update(grads, state, params)
        rate = jnp.asarray(self.rate(step), jnp.float32)

        def move(path: str, leaf: Any) -> Any:
            far = rate * self._factor(path)
            return jax.tree.map(lambda p, d: p - far.astype(p.dtype) * d, params[path], leaf)

        return {path: move(path, leaf) for path, leaf in direction.items()}, state

    def _factor(self, path: str) -> float:
        return next((factor for pattern, factor in self.factors if re.search(pattern, path)), 1.0)


def _sgd(*, momentum: float, nesterov: bool, weight_decay: float, **_: float) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    return optax.chain(decay, optax.trace(momentum, nesterov) if momentum else optax.identity())


def _adam(*, b1: float, b2: float, eps: float, weight_decay: float, **_: Any) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    return optax.chain(decay, optax.scale_by_adam(b1, b2, eps))


def _adamw(*, b1: float, b2: float, eps: float, weight_decay: float, **_: Any) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(b1, b2, eps), optax.add_decayed_weights(weight_decay))


TRANSFORMS: dict[str, Callable[..., optax.GradientTransformation]] = {"sgd": _sgd, "adam": _adam, "adamw": _adamw}
SCHEDULES = ("constant", "cosine", "linear")


def schedule(name: str, rate: float, *, total: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Learning rate over a run: a linear warm-up from 0, then constant, cosine or linear down to `final * rate`.

    Args:
      name: one of `SCHEDULES`.
      rate: the peak.
      total: steps of the whole run.
      warmup: steps of the warm-up.
      final: the share of the peak that is left at the end.

    Raises:
      UserError: for an unknown name.
    """
    rest = max(total - warmup, 1)
    if name == "constant":
        after = optax.constant_schedule(rate)
    elif name == "cosine":
        after = optax.cosine_decay_schedule(rate, rest, alpha=final)
    elif name == "linear":
        after = optax.linear_schedule(rate, final * rate, rest)
    else:
        raise UserError(f"optimiser schedule {name!r} does not exist; there are {list(SCHEDULES)}")
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup])


def build(
    name: str,
    *,
    rate: float,
    total: int,
    schedule_name: str = "constant",
    warmup: int = 0,
    final: float = 0.0,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    clip: float = 0.0,
    factors: Sequence[tuple[str, float]] = (),
) -> Optimiser:
    """An optimiser by name. `adam` adds `weight_decay * w` to the gradient as torch's Adam, `adamw` to the direction.

    Raises:
      UserError: for an unknown optimiser or schedule.
    """
    if name not in TRANSFORMS:
        raise UserError(f"optimiser {name!r} does not exist; there are {sorted(TRANSFORMS)}")
    transform = TRANSFORMS[name](momentum=momentum, nesterov=nesterov, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
    rates = schedule(schedule_name, rate, total=total, warmup=warmup, final=final)
    return Optimiser(transform, rates, clip, tuple(factors))


def split_frozen(params: Any, frozen: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters as two flat dicts `{path: array}`: those that train, and those whose path matches a pattern of
    `frozen`.

    Raises:
      UserError: for a pattern that no parameter matches: a typing error would train what was meant to rest.
    """
    flat = flatten_dict(params, sep="/")
    check_patterns("frozen", frozen, flat)
    rest = {path for path in flat if any(re.search(pattern, path) for pattern in frozen)}
    return {p: v for p, v in flat.items() if p not in rest}, {p: flat[p] for p in flat if p in rest}


def check_patterns(what: str, patterns: Iterable[str], paths: Iterable[str]) -> None:
    """Makes sure that each pattern is found in a parameter's path.

    Raises:
      UserError: for one that is found in none; says how paths begin.
    """
    paths = list(paths)
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            heads = sorted({"/".join(path.split("/")[:2]) for path in paths})
            raise UserError(f"{what} pattern {pattern!r} matches no parameter; parameters start with {heads}")


def join_frozen(trained: Mapping[str, Any], frozen: Mapping[str, Any]) -> Any:
    """The inverse of `split_frozen`: nested parameters."""
    return unflatten_dict({**frozen, **trained}, sep="/")
