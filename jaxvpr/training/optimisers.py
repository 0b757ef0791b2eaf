"""Optimisers by name; freezing and learning rates by parameter pattern.

A direction (`directions`) and a rate (`schedules`) meet here. One schedule, read at the run's own step, serves the
model and every stacked head, also one that trains only every eighth epoch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvpr.errors import UserError
from jaxvpr.training.directions import DIRECTIONS
from jaxvpr.training.options import checked
from jaxvpr.training.schedules import Schedule, schedule


class Optimiser(NamedTuple):
    """A direction and how far to go along it.

    Attributes:
      transform: gradients, parameters and a rate -> what to subtract.
      rate: step -> learning rate.
      clip: largest global norm of the gradients, 0 for none.
      factors: (pattern, factor) pairs; the first pattern found in a parameter's path scales its learning rate.
      layer_decay: scales the learning rates of a transformer's blocks on top of that, 1 for none: `layer_factors`.
    """

    transform: optax.GradientTransformationExtraArgs
    rate: Schedule
    clip: float = 0.0
    factors: tuple[tuple[str, float], ...] = ()
    layer_decay: float = 1.0

    def update(
        self, grads: Any, state: Any, params: Any, step: jax.Array, scale: jax.Array | float = 1.0
    ) -> tuple[Any, Any]:
        """One step: (new params, new optimiser state). `scale` multiplies the learning rate: that of `plateau`."""
        if self.clip:
            shrink = jnp.minimum(1.0, self.clip / (optax.tree.norm(grads) + 1e-6))
            grads = jax.tree.map(lambda g: g * shrink, grads)
        rate = jnp.asarray(self.rate(step), jnp.float32) * scale
        moves, state = self.transform.update(grads, state, params, rate=rate, factors=self.factors_of(params))
        return jax.tree.map(jnp.subtract, params, moves), state

    def factors_of(self, paths: Iterable[str]) -> dict[str, float]:
        """What the learning rate of each parameter is multiplied by.

        Raises:
          UserError: for a `layer_decay` of a model without numbered blocks.
        """
        paths = list(paths)
        layers = layer_factors(paths, self.layer_decay) if self.layer_decay != 1 else ()
        return {path: _first(self.factors, path) * _first(layers, path) for path in paths}

    def check(self, paths: Iterable[str]) -> None:
        """Makes sure that each pattern of `factors` is found in a parameter's path, and `layer_decay` has blocks.

        Raises:
          UserError: otherwise.
        """
        paths = list(paths)
        check_patterns("factors", [pattern for pattern, _ in self.factors], paths)
        self.factors_of(paths)


# What a run optimises, each with an optimiser and a state of its own: the model, the heads stacked by slot, and what
# all slots have in common.
GROUPS = ("model", "heads", "shared")


def _first(factors: Iterable[tuple[str, float]], path: str) -> float:
    return next((factor for pattern, factor in factors if re.search(pattern, path)), 1.0)


# What comes before the blocks of a transformer or an EfficientNet-Lite, in the names of our backbones.
EMBEDDINGS = (
    r"(conv_stem|bn0|patch_embed|tokenizer_\d+|cls_token|mask_token|register_tokens|pos_embed|positional_emb)(/|$)"
)


def layer_factors(
    paths: Iterable[str], decay: float, blocks: str = "backbone/blocks_"
) -> tuple[tuple[str, float], ...]:
    """Layer-wise decay as `factors`: `decay` once for the last block, twice for the one before, and so on.

    What feeds the first block (patches, tokens, positions, a stem) counts as one more block below it; what follows the
    last one (its norm, the aggregator) keeps the full rate. As BEiT and DINOv2 (`layer_decay` there).

    Args:
      paths: of all parameters.
      decay: factor of one block, in (0, 1].
      blocks: what the path of a block begins with, up to its number.

    Raises:
      UserError: where no path is a block's, or for a decay outside (0, 1].
    """
    if not 0 < decay <= 1:
        raise UserError(f"layer_decay={decay} must be above 0 and at most 1")
    number = re.compile(rf"^{blocks}(\d+)/")
    numbers = [int(found[1]) for found in map(number.match, paths) if found]
    if not numbers:
        raise UserError(f"layer_decay={decay} needs a backbone with blocks; no parameter begins with {blocks!r}")
    depth = max(numbers) + 1
    parent = blocks.rpartition("/")[0] + "/" if "/" in blocks else ""
    below = ((rf"^{parent}{EMBEDDINGS}", decay ** (depth + 1)),)
    return tuple((rf"^{blocks}{i}/", decay ** (depth - i)) for i in range(depth)) + below


def build(
    name: str,
    *,
    rate: float,
    total: int,
    schedule_name: str = "constant",
    clip: float = 0.0,
    factors: Sequence[tuple[str, float]] = (),
    layer_decay: float = 1.0,
    weight_decay: float = 0.0,
    **options: Any,
) -> Optimiser:
    """An optimiser by name: `sgd`, `asgd`, `adam`, `adamw` or `radam`, with the schedule of `schedules.schedule`.

    `options` are the optimiser's (`OPTIONS`) and the schedule's, whose names and defaults are those of that function.

    Weight decay is torch's: `adamw` shrinks the weights by `rate * weight_decay`, the others add `weight_decay * w` to
    the gradient. Options an optimiser has no use for are left alone, so that one table of keys serves them all:
    `OPTIONS` lists them with their defaults.

    Raises:
      UserError: for an unknown optimiser or schedule, and for settings that do not make sense together.
    """
    if name not in DIRECTIONS:
        raise UserError(f"optimiser {name!r} does not exist; there are {sorted(DIRECTIONS)}")
    schedule_options = {key: options.pop(key) for key in SCHEDULE_OPTIONS & set(options)}
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise TypeError(f"unknown options {unknown}; there are {sorted(SCHEDULE_OPTIONS | set(OPTIONS))}")
    transform = DIRECTIONS[name](**{**OPTIONS, **options}, weight_decay=weight_decay)
    return Optimiser(
        transform, schedule(schedule_name, rate, total=total, **schedule_options), clip, tuple(factors), layer_decay
    )


def from_keys(keys: Mapping[str, Any], *, total: int, period: int = 1) -> Optimiser:
    """An optimiser from a group of a recipe: `name`, `schedule`, `options`, and arguments of `build` and `schedule`.

    Args:
      keys: all of the group; its `options` are further arguments of that optimiser alone.
      total, period: steps of the run and of an epoch.

    Raises:
      UserError: as `build`, and for an option that the optimiser does not have, which lists those it has.
    """
    given = dict(keys)
    name, schedule_name, options = given.pop("name"), given.pop("schedule"), given.pop("options")
    if name in DIRECTIONS:  # else `build` says which there are
        given |= checked(f"the optimiser {name}", DIRECTIONS[name], options, given)
    return build(name, total=total, period=period, schedule_name=schedule_name, **given)


OPTIONS: dict[str, Any] = {
    "momentum": 0.9,
    "nesterov": False,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "lambd": 1e-4,
    "alpha": 0.75,
    "t0": 1e6,
}


SCHEDULE_OPTIONS = frozenset(signature(schedule).parameters) - {"name", "rate", "total"}


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
